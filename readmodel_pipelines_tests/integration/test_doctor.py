"""The doctor on real servers: it finds what is wrong, says what to do, writes nothing, starts nothing."""

import json
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.examine import ON_SERVER, examine
from readmodel_pipelines.embedded.server import ensure_running
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import shadow_names
from readmodel_pipelines.mongo.rights import privileges, role_named
from readmodel_pipelines.mongo.scan import index_on
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.servers.embedded import own_server
from readmodel_pipelines_tests.support.servers.standalone import standalone_server
from readmodel_pipelines_tests.support.verbs.command_line import readmodel

OK, WARNING, PROBLEM = Health.OK, Health.WARNING, Health.PROBLEM


def found(diagnosis: Diagnosis, name: str) -> Check:
    (check,) = [item for item in diagnosis.checks if item.name == name]
    return check


def troubles(diagnosis: Diagnosis) -> dict[str, Health]:
    return {item.name: item.state for item in diagnosis.checks if item.state is not OK}


@pytest.fixture(scope="module")
def made() -> Iterator[Scene]:
    """On a server of its own: the history of the one that all tests share is short, as they write so much."""
    with own_server() as server:
        settings = Settings(mongodb_uri=SecretStr(ensure_running(server)), database="test_doctor")
        with open_database(settings) as database:
            scene = Scene(database, settings)
            scene.fill(8)
            scene.ensure_indexes()
            yield scene


@pytest.fixture
def healthy(made: Scene) -> Iterator[Scene]:
    """Read models that are right, with every index, verified a moment ago; healed behind each test."""
    assert verify(made.database, made.settings, [], VerificationRequest()).ok
    yield made
    for name in ("readmodel_leases", "readmodel_rebuilds", "readmodel_findings", "repair_queue"):
        made.database[name].delete_many({})
    made.database.drop_collection(shadow_names("chats_read_model")[0])
    made.events.delete_many({"aggregate_id": {"$type": "array"}})
    made.ensure_indexes()
    assert made.rebuild().ok


# A replica set


def test_a_healthy_database_has_no_finding_and_nothing_is_written(healthy: Scene) -> None:
    def content() -> Any:
        return healthy.database.command("dbHash")["collections"]

    before = content()
    diagnosis = examine(healthy.settings)
    assert troubles(diagnosis) == {}
    assert [item.name for item in diagnosis.checks] == ["settings", "connection", *ON_SERVER]
    assert (diagnosis.exit_code, diagnosis.not_checked) == (0, [])
    assert content() == before


def test_a_record_of_another_form_is_a_problem_of_one_check(healthy: Scene) -> None:
    healthy.database.readmodel_watermarks.insert_one({"_id": "chats_read_model of another version"})
    try:
        diagnosis = examine(healthy.settings)
    finally:
        healthy.database.readmodel_watermarks.delete_one({"_id": "chats_read_model of another version"})
    assert set(troubles(diagnosis)) <= {"history", "findings"}
    assert PROBLEM in troubles(diagnosis).values()
    assert diagnosis.exit_code == 1


def test_a_missing_index_is_found_and_so_are_the_queries_that_lack_it(healthy: Scene) -> None:
    healthy.events.drop_index(str(index_on(healthy.events, "aggregate_id", "version")))
    healthy.tasks.drop_index("task_id_1")
    diagnosis = examine(healthy.settings)
    assert troubles(diagnosis) == {"indexes": PROBLEM, "queries": PROBLEM}
    assert found(diagnosis, "indexes").details == (
        "events: no unique index on aggregate_id, version",
        "tasks_read_model: no unique index on task_id",
    )
    queries = found(diagnosis, "queries").details
    assert any(line.startswith("events, some streams (chat): sorts in memory") for line in queries)
    assert "tasks_read_model, all documents in order: reads every document and sorts them in memory" in queries
    assert "readmodel ensure-indexes" in found(diagnosis, "indexes").hint
    healthy.ensure_indexes()
    assert troubles(examine(healthy.settings)) == {}


def test_indexes_of_another_kind_are_found_by_name(healthy: Scene) -> None:
    healthy.chats.drop_index("chat_id_1")
    healthy.chats.create_index("chat_id", name="not_unique")
    healthy.database.command("collMod", "readmodel_leases", index={"name": "expiry", "expireAfterSeconds": 7})
    diagnosis = examine(healthy.settings)
    assert troubles(diagnosis) == {"indexes": PROBLEM}
    assert found(diagnosis, "indexes").details == (
        "readmodel_leases: expiry lets documents expire at another time than in the settings",
        "chats_read_model: not_unique on chat_id is no suitable unique index",
    )
    assert "dropIndex('not_unique')" in found(diagnosis, "indexes").hint
    healthy.chats.drop_index("not_unique")


def test_an_array_among_the_ids_makes_the_server_sort_and_is_told(healthy: Scene) -> None:
    healthy.events.insert_one({"aggregate_id": ["x"], "aggregate_type": "Chat", "version": 1})
    queries = found(examine(healthy.settings), "queries")
    assert queries.state is PROBLEM
    assert any("sorts in memory" in line and "arrays" in line for line in queries.details)
    assert "array" in queries.hint
    healthy.events.drop_indexes()


@pytest.mark.parametrize(("off", "state"), [(3, WARNING), (-3, WARNING), (60, PROBLEM)])
def test_a_clock_that_is_off_is_found(settings: Settings, off: float, state: Health) -> None:
    clock = found(examine(settings, now=lambda: datetime.now(UTC) - timedelta(seconds=off)), "clock")
    assert clock.state is state
    assert ("ahead of" if off > 0 else "behind") in clock.found
    assert str(abs(off)) in clock.found or "60 s" in clock.found


def test_a_stale_lease_is_found_whether_it_ran_out_or_its_holder_is_gone(healthy: Scene) -> None:
    assert found(examine(healthy.settings), "leases").found == "No lease is held."
    Leases(healthy.database, 60, "the night shift").acquire(["rebuild:tasks_read_model"])
    assert "tasks_read_model by the night shift" in found(examine(healthy.settings), "leases").found
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    Leases(healthy.database, 60, f"{socket.gethostname()} process {ended.pid}").acquire(
        ["repair:chat:a", "repair:chat:b"]
    )
    died = Leases(healthy.database, 60, "Dagster run 1234")
    died.acquire(["rebuild:chats_read_model"])
    died.abandon()
    leases = found(examine(healthy.settings), "leases")
    assert (leases.state, len(leases.details)) == (WARNING, 2)
    assert leases.details[0].startswith("chats_read_model: Dagster run 1234 ")
    assert leases.details[1].startswith("repairs of 2 aggregates: ")


def test_a_lease_that_is_held_longer_than_it_can_be_is_found_listed_and_broken(
    healthy: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_database(monkeypatch, healthy.settings)
    Leases(healthy.database, 60, "the night shift").acquire(["rebuild:tasks_read_model"])
    ahead = [{"$set": {"expires_at": {"$add": ["$expires_at", 7_200_000]}}}]
    healthy.database.readmodel_leases.update_many({}, ahead)
    leases = found(examine(healthy.settings), "leases")
    assert (leases.state, len(leases.details)) == (WARNING, 1)
    assert "clock was ahead" in leases.details[0]
    (listed,) = json.loads(readmodel("leases", "list", "--json").stdout)["leases"]
    assert (listed["_id"], listed["holder"]) == ("rebuild:tasks_read_model", "the night shift")
    assert (listed["over"], listed["too_far"]) == (False, True)

    assert readmodel("leases", "break", listed["_id"]).exit_code == 2, "nobody was there to be asked"
    assert readmodel("leases", "break", listed["_id"], "--yes", "--json").exit_code == 0
    assert readmodel("leases", "break", listed["_id"], "--yes").exit_code == 2
    assert json.loads(readmodel("leases", "list", "--json").stdout)["leases"] == []
    assert found(examine(healthy.settings), "leases").found == "No lease is held."


def test_a_rebuild_that_nobody_goes_on_with_and_its_shadow_are_found(healthy: Scene) -> None:
    rebuilds = Rebuilds(healthy.database)
    about = {"strategy": "shadow", "read_models": ["chats_read_model"], "names": ["chat"]}
    record = rebuilds.begin("0123456789ab", about, [(1, EVERYTHING)])
    healthy.database.create_collection(shadow_names("chats_read_model")[0])
    unfinished = found(examine(healthy.settings), "rebuilds")
    assert (unfinished.state, len(unfinished.details)) == (WARNING, 1)
    assert "readmodel rebuild-readmodel --type chat --all --strategy shadow --resume" in unfinished.hint
    rebuilds.to(record, RebuildState.ABORTED)
    left = found(examine(healthy.settings), "rebuilds")
    assert (left.state, "readmodel_shadow_chats_read_model" in left.details[0]) == (WARNING, True)


def test_findings_and_dead_letters_are_problems(healthy: Scene) -> None:
    healthy.chats.update_one({}, {"$set": {"title": "damaged"}})
    assert not verify(healthy.database, healthy.settings, [], VerificationRequest()).ok
    healthy.database.repair_queue.insert_one({"status": "failed", "reason": "bad_field"})
    diagnosis = examine(healthy.settings)
    assert troubles(diagnosis) == {"findings": PROBLEM, "repair queue": PROBLEM}
    assert found(diagnosis, "findings").details == ("chats_read_model: 1 different",)


def test_a_server_that_does_not_tell_in_time_costs_the_checks_concerned_and_no_other(settings: Settings) -> None:
    diagnosis = examine(settings, seconds=1e-9)
    assert found(diagnosis, "replica set").state is OK
    late = found(diagnosis, "queries")
    assert (late.state, late.found) == (PROBLEM, "MongoDB did not answer within 1e-09 s.")
    assert [item.name for item in diagnosis.checks] == ["settings", "connection", *ON_SERVER]


# A server that knows its users


def user_with(server: AuthorizedServer, *roles: str) -> Settings:
    settings = server.settings(database="shop")
    granted = [item for role in roles for item in privileges(role_named(role), settings)]
    return server.settings(server.user(granted), database="shop")


def test_a_wrong_password_is_found_and_what_needs_no_mongodb_is_told_all_the_same(authorized: AuthorizedServer) -> None:
    uri = authorized.uri_of("administrator", "not-the-password")
    diagnosis = examine(authorized.settings(uri))
    assert (diagnosis.exit_code, troubles(diagnosis)) == (3, {"connection": PROBLEM})
    assert "authentication failed" in found(diagnosis, "connection").found
    assert "password" in found(diagnosis, "connection").hint
    assert found(diagnosis, "settings").state is OK
    assert diagnosis.not_checked == list(ON_SERVER)
    assert "not-the-password" not in repr(diagnosis)


def test_a_connection_string_without_a_user_is_found_where_one_is_wanted(authorized: AuthorizedServer) -> None:
    scheme, _, rest = authorized.uri.partition("://")
    diagnosis = examine(authorized.settings(f"{scheme}://{rest.partition('@')[2]}"))
    assert diagnosis.exit_code == 3
    assert "requires a login" in found(diagnosis, "connection").found


def test_no_right_to_write_is_a_problem_unless_the_user_is_meant_to_look(authorized: AuthorizedServer) -> None:
    looks = user_with(authorized, "read_only")
    rights = found(examine(looks), "rights")
    assert rights.state is PROBLEM
    assert "insert, remove, update on shop.chats_read_model" in rights.found
    assert "readmodel rights dagster" in rights.hint
    meant = examine(looks, "read_only")
    assert (meant.exit_code, troubles(meant)) == (0, {"collections": WARNING, "findings": WARNING}), "it is empty"
    assert "READMODEL_DATABASE" in found(meant, "collections").hint
    assert troubles(examine(user_with(authorized, "dagster", "pacing"))).keys() == {"collections", "findings"}


def test_what_a_user_may_not_look_at_is_told_and_costs_no_other_check(authorized: AuthorizedServer) -> None:
    diagnosis = examine(user_with(authorized, "queue"), "queue")
    assert found(diagnosis, "rights").state is OK
    findings = found(diagnosis, "findings")
    assert (findings.state, "`readmodel rights read_only`" in findings.hint) == (WARNING, True)
    assert [item.name for item in diagnosis.checks] == ["settings", "connection", *ON_SERVER]


# Other servers


@pytest.fixture(scope="module")
def standalone() -> Iterator[str]:
    with standalone_server() as uri:
        yield uri


def test_a_standalone_server_is_found_with_what_does_not_work_on_it(standalone: str) -> None:
    diagnosis = examine(Settings(mongodb_uri=SecretStr(standalone)))
    topology = found(diagnosis, "replica set")
    assert (diagnosis.exit_code, topology.state) == (1, PROBLEM)
    assert "shadow" in topology.found
    assert "rs.initiate()" in topology.hint
    # It keeps no history that could be too short.
    assert [item.name for item in diagnosis.checks] == [
        *("settings", "connection"),
        *(name for name in ON_SERVER if name != "history"),
    ]
    assert diagnosis.not_checked == []


def test_the_embedded_server_is_not_started_to_look_at_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    diagnosis = examine(Settings(data_dir=folder))
    assert diagnosis.exit_code == 3
    assert "not running" in found(diagnosis, "embedded server").found
    assert diagnosis.not_checked == list(ON_SERVER)
    assert not folder.exists()


def test_a_connection_string_that_cannot_be_read_is_a_usage_error_that_is_told_as_a_check() -> None:
    diagnosis = examine(Settings(mongodb_uri=SecretStr("mongodb://ann:h/ush@host/db")))
    assert (diagnosis.exit_code, troubles(diagnosis)) == (2, {"connection": PROBLEM})
    assert "ush" not in repr(diagnosis)


# The command


def doctor(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> Any:
    name_database(monkeypatch, settings)
    return readmodel("doctor", *arguments)


def test_each_check_is_a_line_with_a_mark_and_then_what_to_do(healthy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    well = doctor(monkeypatch, healthy.settings)
    assert well.exit_code == 0
    assert well.stdout.endswith("\n\nAll is well.\n")
    assert sum(line.startswith("✓ ") for line in well.stdout.splitlines()) == len(ON_SERVER) + 2
    healthy.events.drop_index(str(index_on(healthy.events, "aggregate_id", "version")))
    wrong = doctor(monkeypatch, healthy.settings)
    assert wrong.exit_code == 1
    lines = wrong.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("✗ indexes"))
    assert lines[place + 1].strip() == "events: no unique index on aggregate_id, version"
    assert lines[place + 2].strip().startswith("→ `readmodel ensure-indexes`")
    assert lines[-1] == "2 problems."
    quiet = doctor(monkeypatch, healthy.settings, "--quiet").stdout.splitlines()
    assert [line.split()[1] for line in quiet if not line.startswith(" ")] == ["indexes", "queries"]
    verbose = doctor(monkeypatch, healthy.settings, "--verbose").stdout
    shown = [line.split() for line in verbose.splitlines()]
    assert ["READMODEL_DATABASE", "environment", "test_doctor"] in shown
    assert ["READMODEL_SLICES", "default", "16"] in shown


def test_json_is_one_document_with_every_check_and_setting(healthy: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(doctor(monkeypatch, healthy.settings, "--json").stdout)
    assert set(document) == {"verb", "state", "checks", "not_checked", "settings"}
    assert (document["verb"], document["state"]) == ("doctor", "ok")
    assert [check["name"] for check in document["checks"]] == ["settings", "connection", *ON_SERVER]
    assert all({"name", "state", "found", "hint"} <= set(check) for check in document["checks"])
    settings = {item["variable"]: item for item in document["settings"]}
    assert settings["READMODEL_DATABASE"]["from"] == "environment"
    assert settings["READMODEL_SLICES"] == {"variable": "READMODEL_SLICES", "value": "16", "from": "default"}


def test_a_role_that_there_is_not_is_a_usage_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = doctor(monkeypatch, settings, "--for", "janitor")
    assert refused.exit_code == 2
    assert "read_only" in refused.stderr
