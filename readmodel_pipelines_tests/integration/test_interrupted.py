"""Ctrl-C and a polite kill, in a real process: what was done is said, how to go on is said, and going on works."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import REBUILDS, copy_names, shadow_names
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import once
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.servers.authorized import AuthorizedServer
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow, leftovers
from readmodel_pipelines_tests.support.waiting import wait_until

PROGRAM = [sys.executable, "-m", "readmodel_pipelines.cli.main"]
EVERYTHING = ("--type", "all", "--all")


class Interruptible:
    """Starts `readmodel` on the test's database, and ends it once something is so."""

    def __init__(self, settings: Settings) -> None:
        self._env = {**os.environ, **environment_of(settings)}

    def __call__(
        self, *arguments: str, when: Callable[[], object], by: signal.Signals = signal.SIGINT, **changed: str
    ) -> tuple[str, str]:
        with subprocess.Popen(
            [*PROGRAM, *arguments],
            env=self._env | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                wait_until(lambda: when() or process.poll() is not None, every=0.005)
                process.send_signal(by)
                stdout, stderr = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == 130, stdout + stderr
        assert "Traceback" not in stderr
        return stdout, stderr

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """What somebody pastes into a shell."""
        name, *arguments = shlex.split(command)
        assert name == "readmodel"
        return subprocess.run(
            [*PROGRAM, *arguments], env=self._env, capture_output=True, text=True, check=False, timeout=240
        )


@pytest.fixture
def interrupted(scene: Scene) -> Interruptible:
    scene.ensure_indexes()
    return Interruptible(scene.settings)


def interruption(stdout: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(stdout)
    assert document["error"]["code"] == "interrupted"
    return document


def test_a_full_rebuild_says_its_id_what_it_did_and_how_to_go_on(scene: Scene, interrupted: Interruptible) -> None:
    scene.add(chat_events(2_000, mean_events=8))

    def read() -> int:
        return sum(item["events"] for item in scene.database[REBUILDS].find({"of": {"$exists": True}}))

    stdout, stderr = interrupted("rebuild-readmodel", *EVERYTHING, when=read, READMODEL_MAX_EVENTS_PER_SECOND="2500")
    (record,) = scene.database[REBUILDS].find({"kind": "rebuild"})
    assert stdout == ""
    assert (
        f"Interrupted. Rebuild {record['_id']} (in_place) is not finished; so far {read():,} events were read" in stderr
    )
    told = re.search(
        r"chats_read_model: (\d+) compared, (\d+) missing, (\d+) inserted", re.sub(r"(\d),(\d)", r"\1\2", stderr)
    )
    assert told is not None
    # Of the batch that it was at some may be written that nobody has counted yet.
    assert 0 < int(told[1]) == int(told[2]) == int(told[3]) <= scene.chats.count_documents({})
    assert f": readmodel rebuild-readmodel {' '.join(EVERYTHING)} --resume\n" in stderr

    before = read()
    resume = ("rebuild-readmodel", *EVERYTHING, "--resume", "--json")
    # A pace, so that it is still at work when it is ended.
    stdout, _ = interrupted(
        *resume, when=lambda: read() > before, by=signal.SIGTERM, READMODEL_MAX_EVENTS_PER_SECOND="2500"
    )
    document = interruption(stdout)
    assert (document["verb"], document["done"]["rebuild"]) == ("rebuild", record["_id"])
    assert (document["done"]["state"], document["done"]["events"]) == ("interrupted", read())

    last = interrupted.run(document["error"]["hint"].rpartition(": ")[2])
    assert json.loads(last.stdout)["rebuild"] == record["_id"]
    assert last.returncode == 0
    assert scene.verify().ok


@pytest.mark.parametrize(("command", "names"), [("createIndexes", shadow_names), ("aggregate", copy_names)])
def test_a_rebuild_does_not_wait_for_what_the_server_takes_long_for(
    authorized: AuthorizedServer, command: str, names: Callable[[str], Sequence[str]]
) -> None:
    settings = authorized.settings(database=f"interrupted_{uuid.uuid4().hex[:8]}")
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.fill(3)
        # The second of the read models, which are indexed and copied side by side.
        with authorized.stuck(command, database.name, names("tasks_read_model")[0]) as begun:
            Interruptible(settings)("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow", when=begun)
        assert in_shadow(scene, resume=True).ok
        assert leftovers(scene) == []
        authorized.client.drop_database(database.name)


def test_a_rebuild_is_resumed_while_the_server_still_builds_an_index_of_its_shadow(
    authorized: AuthorizedServer,
) -> None:
    settings = authorized.settings(database=f"interrupted_{uuid.uuid4().hex[:8]}")
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.fill(3)
        with authorized.building() as (begun, end):
            Interruptible(settings)("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow", when=begun)
            waited: list[object] = []
            with listening(Moment.INDEX_BUILD, once(lambda: waited.append(end()))):
                assert in_shadow(scene, resume=True).ok
            assert waited
        assert leftovers(scene) == []
        authorized.client.drop_database(database.name)


def test_a_verification_says_how_far_it_came(scene: Scene, interrupted: Interruptible) -> None:
    scene.add(chat_events(30, mean_events=8))
    scene.build()
    ids = sorted(scene.chats.distinct("chat_id"))
    scene.chats.update_one({"chat_id": ids[3]}, {"$set": {"title": "wrong"}})
    # A document that lacks a young event is looked at again after the grace time, which keeps the command at work.
    event = found_in(scene.events, {"aggregate_id": ids[9]}, sort=[("version", -1)])
    young = {"version": event["version"] + 1, "created_at": datetime.now(UTC), "event_type": "chat.renamed"}
    payload = {"new_title": "Just now", "old_title": "", "renamed_by": "u"}
    scene.events.insert_one({**event, **young, "_id": "young", "payload": payload})

    def remembered() -> bool:
        found = scene.database.readmodel_findings.find_one({"aggregate_id": ids[3]})
        if found:
            # It is counted the moment after.
            time.sleep(0.5)
        return found is not None

    stdout, stderr = interrupted(
        "verify-consistency", *EVERYTHING, "--json", when=remembered, READMODEL_GRACE_SECONDS="60"
    )
    done = interruption(stdout)["done"]
    assert done["events"] > 200
    assert done["read_models"]["chats_read_model"]["different"] == 1
    assert f"Interrupted after {done['events']:,} of about " in stderr
    assert "No read model was changed." in stderr
    assert f": readmodel verify-consistency {' '.join(EVERYTHING)} --json" in stderr


def test_a_load_says_what_is_loaded_and_goes_on_later(scene: Scene, interrupted: Interruptible, tmp_path: Path) -> None:
    lines = "\n".join(f'{{"_id": {number}, "filling": "{number:0200}"}}' for number in range(20_000))
    (tmp_path / "repair_queue.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
    queue = scene.database.repair_queue
    # The second batch, for the first to be told for sure.
    _, stderr = interrupted("load", str(tmp_path), when=lambda: queue.estimated_document_count() > 1_000)
    assert f"repair_queue.jsonl.gz → {scene.database.name}.repair_queue: " in stderr
    assert 0 < queue.count_documents({}) < 20_000
    command = stderr.rpartition("Run again: ")[2]
    again = interrupted.run(command)
    assert again.returncode == 0
    assert queue.count_documents({}) == 20_000
    assert "already present" in again.stdout


def test_repair_work_says_what_it_completed_and_gives_back_the_rest(scene: Scene, interrupted: Interruptible) -> None:
    scene.add(chat_events(300, mean_events=5))
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    queue = RepairQueue(scene.database, scene.settings)
    for document in scene.chats.find():
        queue.add(document["chat_id"], "chat")

    # The second batch, for the first to be told for sure.
    work = ("repair-queue", "work", "--once", "--batch-size", "10", "--json")
    stdout, _ = interrupted(*work, when=lambda: queue.stats().completed > 10)
    done, stats = interruption(stdout)["done"], queue.stats()
    assert 10 <= done["completed"] <= stats.completed < 300
    assert (stats.processing, stats.pending) == (0, 300 - stats.completed)


def test_a_ctrl_c_that_python_drops_arrives_all_the_same() -> None:
    program = (
        "import signal, sys, time\n"
        "from readmodel_pipelines.cli import main\n"
        "class Cleaning:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "def work():\n"
        "    Cleaning()\n"
        "    time.sleep(20)\n"
        "main.app = work\n"
        "try: main.main()\n"
        "except KeyboardInterrupt: print('arrived')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240)
    assert (ended.stdout, ended.stderr) == ("arrived\n", "")


def test_a_server_that_is_starting_ends_with_its_command(interrupted: Interruptible, tmp_path: Path) -> None:
    place: dict[str, Any] = {"READMODEL_MONGODB_URI": "", "READMODEL_DATA_DIR": str(tmp_path)}
    log = tmp_path / "mongod" / "mongod.log"
    _, stderr = interrupted("server", "start", when=lambda: log.exists() and log.stat().st_size, **place)
    assert stderr.startswith("Interrupted")
    said = subprocess.run(
        [*PROGRAM, "server", "status", "--json"], env=os.environ | place, capture_output=True, check=True
    )
    assert json.loads(said.stdout)["running"] is False
