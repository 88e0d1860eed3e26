"""The repair loop in the real daemon: its sensor sees what is due, its runs repair it.

So it ends what a verification finds: what is queued is repaired, and the same look is clean. One test, because the
daemon and each of its runs take longer to start than all repairs take.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from typer.testing import Result

from readmodel_pipelines.demo.damage import damage_everything
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import Mongo, make_right
from readmodel_pipelines_tests.support.servers.dagster_daemon import Daemon, running
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, readmodel
from readmodel_pipelines_tests.support.verbs.dagster_runs import BOTH, CHATS, TASKS, recorded, stored, with_events
from readmodel_pipelines_tests.support.waiting import wait_until

JOB = "repair_read_models"


@pytest.fixture
def daemon(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    name_database(monkeypatch, settings)
    # Whether processes of runs live is looked at more often than every 30 seconds, that a test need not wait.
    with running(tmp_path, {"run_monitoring": {"poll_interval_seconds": 2}}) as started:
        yield started


def all_done(database: Mongo, tasks: int) -> bool:
    return bool(database.repair_queue.count_documents({"status": "completed"}) == tasks)


def healthy(database: Mongo, settings: Settings) -> bool:
    return ReadModelProjector(database, settings).verify_all().ok


def verify(*options: str) -> Result:
    return readmodel("verify-consistency", *EVERYTHING, *options)


def test_what_the_application_and_a_verification_queue_is_repaired_through_the_daemon_and_its_sensor(
    database: Mongo, settings: Settings, corpus: Path, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The damage has more documents without a reason to be there than are queued for deletion otherwise.
    monkeypatch.setenv("READMODEL_MAX_DELETE_SHARE", "1")
    folder = corpus / "small"
    tasks = read_documents(folder / "repair_queue.jsonl.gz")
    ids = [task["aggregate_id"] for task in tasks]
    with daemon.paused():
        with_events(database, settings, read_documents(folder / "events.jsonl.gz"))
        for _, read_model in BOTH:
            database[read_model].insert_many(read_documents(folder / f"{read_model}.jsonl.gz"))
        database.events.insert_many(list(chat_events(300, seed=11)))
        make_right(database, settings)
        right = {read_model: stored(database, read_model) for _, read_model in BOTH}
        for read_model, documents in right.items():
            assert recorded(folder, read_model).items() <= documents.items(), "what the application wrote is in there"

        discussions = [item["chat_id"] for item in database[CHATS].find({"type": "discussion"})]
        damage_everything(database[CHATS], database[TASKS], discussion_ids=discussions)
        # A repair knows an aggregate by its id; what has none is for a rebuild.
        for collection, key in ((database[CHATS], "chat_id"), (database[TASKS], "task_id")):
            collection.delete_many({key: {"$not": {"$regex": "^[0-9a-f-]{36}$"}}})
        database[CHATS].update_many({"chat_id": {"$in": ids[::2]}}, {"$set": {"participants": [], "title": 7}})
        database[CHATS].delete_many({"chat_id": {"$in": ids[1::2]}})
        database[TASKS].update_many({"task_id": {"$in": ids}}, {"$set": {"version": 0, "status": "Backlog"}})

        database.repair_queue.insert_many(tasks)
        assert verify("--enqueue-repairs").exit_code == 1
        opened = database.readmodel_findings.count_documents({"state": "open"})
        assert opened > 100
        queued = database.repair_queue.count_documents({"status": "pending"})
        assert queued > len(tasks) + 100

    wait_until(lambda: all_done(database, queued))
    wait_until(lambda: daemon.runs(DagsterRunStatus.SUCCESS))
    assert [run.job_name for run in daemon.runs()] == [JOB], "one run for all of them"

    assert {read_model: stored(database, read_model) for _, read_model in BOTH} == right
    of_the_application = database.repair_queue.find({"_id": {"$in": [task["_id"] for task in tasks]}})
    for before, after in zip(tasks, of_the_application.sort("_id"), strict=True):
        assert after["completed_at"] >= after["last_retry_at"] > before["created_at"]
        assert {name: after[name] for name in before if name != "status"} == {
            name: value for name, value in before.items() if name != "status"
        }
    assert list(database[LEASES].find({"_id": {"$regex": "^repair:"}})) == []

    clean = verify()
    assert clean.exit_code == 0, clean.stdout
    assert database.readmodel_findings.count_documents({"state": "open"}) == 0
    assert database.readmodel_findings.count_documents({"state": "closed"}) == opened
