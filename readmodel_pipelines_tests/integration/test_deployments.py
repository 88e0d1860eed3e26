"""TLS, certificates, passwords and options as deployments have them: every command works, or says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.server_api import ServerApi

from readmodel_pipelines import EventRepository, ReadModelProjector, RepairQueue, RepairWorker, UsageError
from readmodel_pipelines_tests.support.servers import certificates
from readmodel_pipelines_tests.support.servers.secured import SecuredServer, secured_server
from readmodel_pipelines_tests.support.trials.deployments import (
    BEGINNING,
    DEPLOYMENTS,
    END,
    REFUSED,
    REFUSED_AFTER_A_WHILE,
    WANTS_A_VERSION,
    Deployment,
    Refused,
)
from readmodel_pipelines_tests.support.trials.rights import TRIALS, RightsScene, Trial, rights_scene
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, readmodel

pytestmark = pytest.mark.skipif(bool(certificates.why_not()), reason=certificates.why_not())


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredServer]:
    with secured_server() as running:
        yield running


@pytest.fixture
def scene(secured: SecuredServer, tmp_path: Path) -> Iterator[RightsScene]:
    with rights_scene(secured, tmp_path) as scene:
        yield scene


@contextmanager
def in_place(server: SecuredServer, deployment: Deployment | Refused) -> Iterator[None]:
    """The environment of a deployment, and what its server demands."""
    with pytest.MonkeyPatch.context() as patch, server.demanding(**deployment.demands):
        for name, value in deployment.environment.items():
            patch.setenv(name, value)
        yield


@pytest.mark.each_once
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.documented)
@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=str)
def test_every_command_works_in_every_deployment(
    scene: RightsScene, secured: SecuredServer, deployment: Deployment, trial: Trial, recwarn: pytest.WarningsRecorder
) -> None:
    uri = deployment.uri(secured)
    with in_place(secured, deployment):
        for outcome in scene.outcomes(trial, uri):
            assert outcome.well, outcome
            assert not told(outcome.said)
    assert not [item for item in recwarn if "pymongo" in item.filename], "the driver's warnings are for nobody"


@pytest.mark.whole
@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=str)
def test_the_jobs_of_dagster_work_in_every_deployment(
    scene: RightsScene, secured: SecuredServer, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seconds to import, of which the other tests need nothing.
    import dagster as dg

    from readmodel_pipelines_tests.support.verbs.dagster_runs import Dagster

    ids = scene.damage()
    scene.queue(*ids[:1])
    monkeypatch.setenv("READMODEL_MONGODB_URI", deployment.uri(secured))
    monkeypatch.setenv("READMODEL_DATABASE", scene.settings.database)
    with in_place(secured, deployment), dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(instance)
        assert dagster.run("repair_read_models").success
        assert not dagster.run("verify_read_models", "chat").success
        assert dagster.run("rebuild_read_models", "chat").success
        assert dagster.run("rebuild_read_models", "task", strategy="shadow").success
        for partition in ("chat", "task"):
            assert dagster.run("verify_read_models", partition).success


@pytest.mark.parametrize(
    "refused", [*REFUSED, *(pytest.param(item, marks=pytest.mark.whole) for item in REFUSED_AFTER_A_WHILE)], ids=str
)
def test_what_cannot_be_is_refused_in_a_sentence(
    secured: SecuredServer, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", refused.uri(secured))
    with in_place(secured, refused):
        for command in (["leases", "list"], ["doctor"]):
            result = readmodel(*command, "--verbose")
            assert result.exit_code == refused.code, result.output
            assert isinstance(result.exception, SystemExit)
            assert "Traceback" not in result.output
            assert [words for words in refused.said if words not in " ".join(result.output.split())] == []
            assert not told(result.output)


def test_indexes_on_documents_are_done_where_a_version_of_the_api_is_wanted(
    scene: RightsScene, secured: SecuredServer
) -> None:
    """A member of 6.0 votes on them without a version, and is refused."""
    scene.fill()
    with in_place(secured, WANTS_A_VERSION):
        code, said = scene.command(secured.uri, ["ensure-indexes"])
        assert code == 0, said
        scene.chats.create_index("title")
        code, said = scene.command(secured.uri, ["rebuild-readmodel", *EVERYTHING, "--strategy", "shadow"])
        assert code == 0, said


def told(said: str) -> bool:
    """Whether a part of a password is in it."""
    return BEGINNING in said or END in said


def test_doctor_tells_the_user_of_a_certificate_and_what_the_driver_passes_over(
    scene: RightsScene, secured: SecuredServer
) -> None:
    uri = f"{secured.by_certificate(secured.certified())}&useUnifiedTopology=true&w=nonsense&maxPoolSize=many"
    code, said = scene.command(uri, ["doctor"])
    assert code in (0, 1)
    assert "as CN=user-" in said
    assert "useUnifiedTopology: Unknown option" in " ".join(said.split())
    assert "maxPoolSize: " in said
    assert "TLS." in said


def test_an_authority_alone_is_tls(scene: RightsScene, secured: SecuredServer) -> None:
    _, said = scene.command(secured.uri.replace("tls=true&", ""), ["doctor"])
    assert "; TLS." in " ".join(said.split())


def test_a_member_that_is_no_primary_is_not_read_from(scene: RightsScene, secured: SecuredServer) -> None:
    scene.fill()
    uri = f"{secured.uri}&directConnection=true"
    with secured.without_primary():
        for command in (
            ["verify-consistency", "--type", "all", "--all"],
            ["rebuild-readmodel", "--type", "all", "--all"],
        ):
            code, said = scene.command(uri, command)
            assert (code, "is no primary" in said, "replicaSet=" in said) == (3, True, True), said
        code, said = scene.command(uri, ["doctor"])
        assert (code, "replicaSet=" in said) == (1, True), said


@pytest.mark.parametrize("made", [ReadModelProjector, RepairQueue, RepairWorker, EventRepository])
def test_a_client_whose_api_is_strict_is_refused_before_anything_is_done(
    scene: RightsScene, secured: SecuredServer, made: Any
) -> None:
    with MongoClient[Any](secured.uri, server_api=ServerApi("1", strict=True)) as client:
        database = client[scene.settings.database]
        with pytest.raises(UsageError, match="strict"):
            made(database, scene.settings)
        assert database.list_collection_names() == []
