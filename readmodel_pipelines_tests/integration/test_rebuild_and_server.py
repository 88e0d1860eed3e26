"""A rebuild and its server: one that goes away and comes back, one whose history is short, one that is loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import LEASES, REBUILDS
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Mongo, found_in
from readmodel_pipelines_tests.support.servers.embedded import own_server
from readmodel_pipelines_tests.support.waiting import wait_until

REBUILD = [sys.executable, "-m", "readmodel_pipelines.cli.main", "rebuild-readmodel", "--type", "all", "--all"]


@pytest.fixture
def server() -> Iterator[Settings]:
    """Settings of a server of this test's own, which is not running yet."""
    with own_server(started=False, lease_seconds=1.0) as settings:
        yield settings


def filled(settings: Settings, chats: int) -> int:
    with open_database(settings) as database:
        ensure_indexes(database, settings)
        database.events.insert_many(list(chat_events(chats, seed=3, mean_events=8)))
        return int(database.events.count_documents({}))


def states(settings: Settings) -> list[str]:
    with open_database(settings) as database:
        return [record["state"] for record in database[REBUILDS].find({"kind": "rebuild"})]


def test_a_server_that_stops_and_starts_again_costs_a_rebuild_nothing_but_time(server: Settings) -> None:
    embedded.ensure_running(server, die_with_parent=True)
    events = filled(server, 1_500)
    environment = {
        **os.environ,
        "READMODEL_MONGODB_URI": embedded.ensure_running(server),
        # Longer than any server needs to come back.
        "READMODEL_LEASE_SECONDS": "600",
        "READMODEL_MAX_EVENTS_PER_SECOND": str(events / 4),
    }
    with subprocess.Popen(REBUILD, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        with open_database(server) as database:
            wait_until(lambda: database[REBUILDS].find_one({"cursor": {"$ne": None}}), every=0.02)
        embedded.stop(server)
        embedded.ensure_running(server, die_with_parent=True)
        output, said = run.communicate(timeout=240)
    assert run.returncode in (0, 3), (output, said)
    assert "Traceback" not in said
    if run.returncode == 3:
        assert "does not answer" in said
        assert states(server)[0] in ("building", "finishing")
        with open_database(server) as database:
            database[LEASES].update_many({}, [{"$set": {"expires_at": "$$NOW"}}])
        resumed = subprocess.run(
            [*REBUILD, "--resume", "--json"], env=environment, capture_output=True, text=True, check=False, timeout=240
        )
        assert resumed.returncode == 0, resumed.stderr
        assert json.loads(resumed.stdout)["state"] == "done"
    assert states(server) == ["done"]
    with open_database(server) as database:
        assert ReadModelProjector(database, server).verify_all().ok


def test_an_oplog_that_rolled_over_has_all_looked_at_again(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    command = mongod_program.command

    def small(*arguments: Any, **options: Any) -> list[str]:
        # What the last checkpoint needs is kept, so that these come often.
        sizes = {"64": "1"}
        return [*(sizes.get(part, part) for part in command(*arguments, **options)), "--syncdelay", "1"]

    monkeypatch.setattr(mongod_program, "command", small)
    embedded.ensure_running(server, die_with_parent=True)
    filled(server, 300)
    with open_database(server) as database:
        with killed_at(Moment.RANGES):
            rebuild(database, server, [], RebuildRequest())
        chat_id = found_in(database.events, {})["aggregate_id"]
        last = found_in(database.events, {"aggregate_id": chat_id}, sort=[("version", -1)])
        new = {"version": last["version"] + 1, "event_type": "chat.renamed", "data": {"new_title": "Late"}}
        database.events.insert_one({"aggregate_id": chat_id, "aggregate_type": "Chat", "metadata": {}, **new})
        appended = database.client.admin.command("ping")["operationTime"]

        def rolled_over() -> bool:
            database.noise.insert_many([{"noise": "x" * 100_000} for _ in range(50)])
            return bool(found_in(database.client.local["oplog.rs"], sort=[("$natural", 1)])["ts"] > appended)

        wait_until(rolled_over, every=0)
        summary = rebuild(database, server, [], RebuildRequest(resume=True))
        assert any("does not reach back" in warning for warning in summary.warnings)
        assert (summary.ok, summary.about["state"]) == (True, "done")
        assert ReadModelProjector(database, server).verify_all().ok


# Its load: a quiet one is no reason to wait, operations that really queue are


def test_a_quiet_server_is_no_reason_to_wait(database: Mongo) -> None:
    load = Pressure(database, max_queued=50, max_lag_seconds=10)
    assert (load.reason_to_wait(), load.warning) == ("", "")


def test_writes_that_queue_are_a_reason_until_they_are_through(database: Mongo) -> None:
    load, patient = (Pressure(database, max_queued=most, max_lag_seconds=10) for most in (1, 1_000))
    admin = database.client.admin
    database["queued"].insert_one({})
    with ThreadPoolExecutor(4) as writers:
        # Until it is unlocked, no write gets through.
        admin.command("fsync", lock=True)
        try:
            for number in range(4):
                writers.submit(database["queued"].insert_one, {"number": number})
            wait_until(lambda: "operations are queued on the server (limit 1)" in load.reason_to_wait(), every=0.05)
            assert patient.reason_to_wait() == ""
        finally:
            admin.command("fsyncUnlock")
    wait_until(lambda: load.reason_to_wait() == "", every=0.05)
    assert load.warning == ""
