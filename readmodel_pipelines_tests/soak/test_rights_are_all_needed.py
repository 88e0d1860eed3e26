"""No role holds a right that none of its commands needs: each right of each role is taken away in turn.

Then at least one command of the role fails, or warns that it goes without. Several minutes.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.rights import ROLES
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer, authorized_server
from readmodel_pipelines_tests.support.trials.rights import RightsScene, needless, rights_scene
from readmodel_pipelines_tests.support.verbs.dagster_runs import SAMPLE, Dagster, with_events

COMMANDS_OF = {"enqueue": ["enqueue", "verify"], "pacing": ["rebuild"]}
"""Where these are not those of the role alone: it is another one and more, or something besides."""
BESIDE = {"rebuild": "pacing", "shadow": "pacing", "pacing": "rebuild"}


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizedServer]:
    with authorized_server() as running:
        yield running


@pytest.fixture
def scene(server: AuthorizedServer, tmp_path: Path) -> Iterator[RightsScene]:
    with rights_scene(server, tmp_path) as scene:
        yield scene


# That of Dagster is the union of others.
@pytest.mark.parametrize("role", [role.name for role in ROLES if role.name != "dagster"])
def test_every_right_of_a_role_is_needed(scene: RightsScene, role: str) -> None:
    beside = scene.privileges_of(BESIDE[role]) if role in BESIDE else []
    found = needless(scene, scene.privileges_of(role), beside, *COMMANDS_OF.get(role, [role]))
    # Without it a worker that goes on for ever is later.
    assert found == (["changeStream on repair_queue"] if role == "repair" else [])


def test_all_that_dagster_does_it_does_with_its_role(scene: RightsScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", scene.server.user(scene.privileges_of("dagster", "pacing")))
    monkeypatch.setenv("READMODEL_DATABASE", scene.settings.database)
    database = with_events(scene.server.client[scene.settings.database], scene.settings, SAMPLE)
    (known, other) = (item["aggregate_id"] for item in database.events.find({"event_type": "chat.created"}).limit(2))
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(instance)
        for strategy in ("in_place", "shadow"):
            assert dagster.run("rebuild_read_models", "chat", strategy=strategy).success
        assert dagster.materialize("chats_read_model", "tasks_read_model").success
        for chat_id in (known, other):
            database.chats_read_model.update_one({"chat_id": chat_id}, {"$set": {"title": "wrong"}})
        assert dagster.run("rebuild_aggregate", aggregate_type="chat", aggregate_id=known).success
        assert RepairQueue(database, scene.settings).add(other, "chat")
        assert dagster.run("repair_read_models").success
        assert dagster.run("verify_read_models", "chat").success
        assert dagster.run("verify_read_models", "task", enqueue_repairs=True).success
