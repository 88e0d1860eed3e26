"""The repair loop in the real daemon: its sensor sees what is due, its runs repair it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster import DagsterRunStatus, RunsFilter

from readmodel_pipelines.mongo.leases import COLLECTION
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.conftest import read_documents
from readmodel_pipelines_tests.e2e.daemon import Daemon, running, wait_until
from readmodel_pipelines_tests.e2e.runs import BOTH, CHATS, Mongo, recorded, stored, with_events

JOB = "repair_read_models"


def repairs(daemon: Daemon, *statuses: DagsterRunStatus) -> list[Any]:
    return list(daemon.instance.get_runs(RunsFilter(job_name=JOB, statuses=list(statuses) or None)))


def all_done(database: Mongo, tasks: int) -> bool:
    return bool(database.repair_queue.count_documents({"status": "completed"}) == tasks)


def healthy(database: Mongo, settings: Settings) -> bool:
    return ReadModelProjector(database, settings).verify_all().ok


def test_the_application_s_own_tasks_are_repaired_through_the_daemon_and_its_sensor(
    database: Mongo, settings: Settings, corpus: Path, tmp_path: Path
) -> None:
    folder = corpus / "small"
    with_events(database, settings, read_documents(folder / "events.jsonl.gz"))
    for _, read_model in BOTH:
        database[read_model].insert_many(read_documents(folder / f"{read_model}.jsonl.gz"))
    tasks = read_documents(folder / "repair_queue.jsonl.gz")
    ids = [task["aggregate_id"] for task in tasks]
    database[CHATS].update_many({"chat_id": {"$in": ids[::2]}}, {"$set": {"participants": [], "title": 7}})
    database[CHATS].delete_many({"chat_id": {"$in": ids[1::2]}})
    database.tasks_read_model.update_many({"task_id": {"$in": ids}}, {"$set": {"version": 0, "status": "Backlog"}})
    assert not healthy(database, settings)
    database.repair_queue.insert_many(tasks)

    with running(tmp_path) as daemon:
        wait_until(lambda: all_done(database, len(tasks)))
        assert len(repairs(daemon)) == 1, "one run for all of them"
        wait_until(lambda: repairs(daemon, DagsterRunStatus.SUCCESS))

    for _, read_model in BOTH:
        assert stored(database, read_model) == recorded(folder, read_model)
    for before, after in zip(tasks, database.repair_queue.find().sort("_id"), strict=True):
        assert after["completed_at"] >= after["last_retry_at"] > before["created_at"]
        assert {name: after[name] for name in before if name != "status"} == {
            name: value for name, value in before.items() if name != "status"
        }
    assert list(database[COLLECTION].find({"_id": {"$regex": "^repair:"}})) == []
