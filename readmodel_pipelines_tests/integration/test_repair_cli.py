"""`readmodel repair-queue …`: what it says, what it does, how it ends."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import Result

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.cli import main
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.errors import MongoUnavailable
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.repair.claim import lease_of
from readmodel_pipelines_tests.support.at_a_moment import At, nth, raises
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.command_line import Cli, readmodel
from readmodel_pipelines_tests.support.verbs.repairing import put, task
from readmodel_pipelines_tests.support.waiting import wait_until


@pytest.fixture
def cli(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Cli:
    name_database(monkeypatch, scene.settings)
    scene.ensure_indexes()
    return partial(readmodel, "repair-queue")


@pytest.fixture
def queue(scene: Scene, cli: Cli) -> RepairQueue:
    return RepairQueue(scene.database, scene.settings)


@pytest.fixture
def broken(scene: Scene, queue: RepairQueue) -> list[str]:
    """Chats whose documents are wrong, each with a task."""
    ids = [scene.chat(f"chat {number}") for number in range(4)]
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    for chat_id in ids:
        queue.add(chat_id, "chat", "failed to operate on chats_read_model")
    return ids


def many(scene: Scene, chats: int) -> None:
    scene.add(chat_events(chats, mean_events=5))
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    put(scene, *(task(document["chat_id"]) for document in scene.chats.find()))


def ended(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def test_work_once_repairs_what_is_due_and_says_so(scene: Scene, broken: list[str], cli: Cli) -> None:
    result = cli("work", "--once")

    assert (result.exit_code, result.stderr) == (0, "")
    assert "4 tasks taken" in result.stdout
    assert "4 completed" in result.stdout
    assert "chats_read_model: 4 compared, 0 same; 0 inserted, 4 replaced, 0 deleted" in result.stdout
    assert "All is well" in result.stdout
    assert scene.verify().ok
    assert cli("work", "--once").stdout == "Nothing was due.\n"


def test_work_says_what_it_parked_and_how_to_bring_it_back(broken: list[str], queue: RepairQueue, cli: Cli) -> None:
    queue.add(str(uuid4()), "task")
    result = cli("work", "--once", "--json")
    said = ended(result)
    assert result.exit_code == 1, "not everything is repaired"
    assert (said["verb"], said["claimed"], said["completed"], said["parked"]) == ("repair", 5, 4, 1)
    assert said["read_models"]["chats_read_model"]["replaced"] == 4
    assert [letter["reason"] for letter in said["dead_letters"]] == ["aggregate_not_found"]

    nobody = str(uuid4())
    queue.add(nobody, "chat")
    in_words = cli("work", "--once")
    assert in_words.exit_code == 1
    assert f"dead letter: chat {nobody}  aggregate_not_found: " in in_words.stdout
    assert "requeue" in in_words.stdout


def test_named_tasks_are_repaired_at_once(scene: Scene, broken: list[str], queue: RepairQueue, cli: Cli) -> None:
    scene.database.repair_queue.update_many({}, [{"$set": {"next_attempt_at": {"$add": ["$$NOW", 3_600_000]}}}])
    first, second, *_ = queue.tasks()
    assert cli("work", "--once").stdout == "Nothing was due.\n"
    assert "2 completed" in cli("work", "--id", first["_id"], "--id", second["_id"]).stdout

    again = cli("work", "--id", first["_id"])
    assert again.exit_code == 1
    assert "not open" in again.stderr
    assert cli("work", "--id", "no such task").exit_code == 1


def test_stats_tell_depth_age_and_dead_letters(scene: Scene, broken: list[str], queue: RepairQueue, cli: Cli) -> None:
    scene.database.repair_queue.update_one({}, {"$set": {"created_at": datetime.now(UTC) - timedelta(hours=3.21)}})
    before = cli("stats").stdout
    assert re.search(r"^pending.* 4$", before, re.MULTILINE)
    assert "has waited for 3 h." in before
    assert "work" in before.splitlines()[-1]

    queue.add(str(uuid4()), "chat")
    cli("work", "--once")
    after = cli("stats").stdout
    assert "Dead letters: 1 aggregate_not_found" in after
    assert "0.8 repairs a minute" in after
    assert "requeue" in after.splitlines()[-1]
    said = ended(cli("stats", "--json"))
    assert (said["completed"], said["failed"], said["due"]) == (4, 1, 0)
    assert said["dead_letters"] == {"aggregate_not_found": 1}


def test_an_empty_queue_is_well(cli: Cli) -> None:
    assert cli("stats").stdout.splitlines()[-1] == "All is well: nothing is due."
    assert cli("list").stdout == "0 tasks.\n"
    assert ended(cli("list", "--json")) == {"verb": "list", "tasks": [], "more": False}


def test_tasks_are_listed_by_status_and_reason_and_the_list_says_when_there_are_more(
    scene: Scene, broken: list[str], queue: RepairQueue, cli: Cli
) -> None:
    nobody = str(uuid4())
    queue.add(nobody, "chat")
    cli("work", "--id", next(iter(queue.tasks("pending", limit=10)))["_id"])
    cli("work", "--once")
    listed = cli("list", "--status", "failed").stdout
    assert f"chat {nobody}  failed (aggregate_not_found)" in listed
    assert "last attempt: it has neither an event nor a document" in listed
    assert cli("list", "--reason", "aggregate_not_found").stdout == listed
    assert cli("list", "--reason", "nothing").stdout == "0 tasks.\n"

    assert "… and more; --limit 4 shows them." in cli("list", "--limit", 2).stdout
    said = ended(cli("list", "--limit", 2, "--json"))
    assert (len(said["tasks"]), said["more"]) == (2, True)
    assert "$oid" in said["tasks"][0]["_id"]
    assert cli("list", "--status", "lost").exit_code == 2


def test_what_a_producer_wrote_cannot_command_the_terminal(scene: Scene, cli: Cli) -> None:
    evil = "\x1b[2J\x07bad"
    task = {"_id": evil, "aggregate_id": evil, "aggregate_type": evil, "error": evil, "task_type": evil}
    scene.database.repair_queue.insert_one({**task, "status": "pending", "created_at": "soon", "retry_count": "x"})
    for result in (cli("list"), cli("work", "--once"), cli("list"), cli("stats")):
        assert result.stdout.isprintable() or set(filter(lambda char: not char.isprintable(), result.stdout)) == {"\n"}
    assert "\\x1b[2J" in cli("list").stdout


def test_dead_letters_come_back_after_their_cause_is_mended(scene: Scene, queue: RepairQueue, cli: Cli) -> None:
    chat_id = str(uuid4())
    queue.add(chat_id, "chat")
    cli("work", "--once")
    (letter,) = queue.tasks("failed")
    scene.chat("late", id=chat_id)

    assert "1 task requeued" in cli("requeue", "--id", letter["_id"]).stdout
    assert cli("work", "--once").exit_code == 0
    assert scene.verify().ok
    assert ended(cli("requeue", "--all-failed", "--json")) == {"verb": "requeue", "requeued": 0}
    assert cli("requeue", "--reason", "bad_field").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [("requeue",), ("requeue", "--all-failed", "--reason", "x"), ("requeue", "--id", "nobody"), ("purge",)]
)
def test_what_makes_no_sense_is_a_usage_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert result.stderr


def test_purging_dead_letters_wants_a_yes(scene: Scene, broken: list[str], queue: RepairQueue, cli: Cli) -> None:
    queue.add(str(uuid4()), "chat")
    cli("work", "--once")
    queue.add(broken[0], "chat")

    assert cli("purge", "--status", "completed", "--older-than-days", 1).stdout == "0 tasks deleted.\n"
    assert ended(cli("purge", "--status", "completed", "--json")) == {"verb": "purge", "deleted": 4}
    refused = cli("purge", "--status", "failed")
    assert (refused.exit_code, queue.stats().failed) == (2, 1)
    assert "--yes" in refused.stderr
    assert cli("purge", "--status", "failed", "--yes").stdout == "1 task deleted.\n"
    assert cli("purge", "--status", "pending").exit_code == 2
    assert queue.stats().pending == 1


def test_without_a_server_it_ends_with_3(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READMODEL_MONGODB_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100")
    for arguments in (("stats",), ("work", "--once"), ("work",)):
        assert cli(*arguments).exit_code == 3
    assert ended(cli("work", "--once", "--json"))["error"]["code"] == "mongo_unavailable"


@contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`readmodel repair-queue work` in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", main.__name__, "repair-queue", "work", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_ended_gives_back_its_tasks(scene: Scene, queue: RepairQueue, ending: signal.Signals) -> None:
    many(scene, 400)
    with worker("--batch-size", "20", "--json") as process:
        # The second batch, for the first to be told for sure.
        wait_until(lambda: queue.stats().completed > 20, every=0.005)
        process.send_signal(ending)
        said, _ = process.communicate(timeout=240)

    summary, stats = json.loads(said), queue.stats()
    assert process.returncode == 0
    assert summary["completed"] >= 20
    assert stats.processing == 0
    assert stats.pending == stats.due == 400 - stats.completed > 0
    assert scene.database[LEASES].count_documents({"_id": {"$regex": "^repair:"}}) == 0


def test_a_worker_that_is_ended_while_it_claims_leaves_no_claim(scene: Scene, queue: RepairQueue) -> None:
    many(scene, 20)
    last = max(item["aggregate_id"] for item in scene.database.repair_queue.find())
    leases = scene.database[LEASES]

    def asked(where: dict[str, Any]) -> list[Any]:
        of_leases = {"$match": {"ns": leases.full_name, "op": {"$in": ["insert", "update"]}, **where}}
        return list(scene.database.client.admin.aggregate([{"$currentOp": {}}, of_leases]))

    with scene.database.client.start_session() as session, worker() as process:
        with session.start_transaction():
            # Whoever wants this lease waits.
            leases.insert_one({"_id": lease_of("chat", last)}, session=session)
            wait_until(lambda: asked({"writeConflicts": {"$gt": 0}}), every=0.005)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                # It would give up, and the server go on with it.
                process.wait(1)
            session.abort_transaction()
        process.communicate(timeout=240)
    wait_until(lambda: not asked({}))
    assert queue.stats().processing == 0
    assert leases.count_documents({"_id": {"$regex": "^repair:"}}) == 0


def test_a_worker_outlives_an_outage(broken: list[str], queue: RepairQueue, cli: Cli, at: At) -> None:
    down = raises(MongoUnavailable("MongoDB does not answer."))
    for number, failing in ((2, down), (3, down), (5, raises(KeyboardInterrupt()))):
        at(Moment.REPAIRS, nth(number, failing))
    result = cli("work", "--every", "0.1")

    assert result.exit_code == 0
    assert result.stderr.count("does not answer") == 1
    assert "MongoDB answers again." in result.stderr
    assert "4 completed" in result.stdout
