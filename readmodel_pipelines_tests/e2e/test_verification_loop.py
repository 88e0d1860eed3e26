"""The loop: what a verification finds is queued, the sensor has it repaired, and the same look is clean."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.damage import damage_everything
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.sensors import repair_queue_sensor
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.e2e.runs import CHATS, TASKS, Mongo, with_events

VERIFY = [sys.executable, "-m", "readmodel_pipelines.cli.main", "verify-consistency", "--type", "all", "--all"]


def verify(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VERIFY, *options], capture_output=True, text=True, check=False, timeout=60)


def test_what_a_verification_queues_is_repaired_by_one_run_of_the_sensor_and_its_findings_close(
    database: Mongo, settings: Settings, instance: dg.DagsterInstance
) -> None:
    with_events(database, settings, list(chat_events(300, seed=11)))
    assert ReadModelProjector(database, settings).rebuild_all().ok
    discussions = [item["chat_id"] for item in database[CHATS].find({"type": "discussion"})]
    damage_everything(database[CHATS], database[TASKS], discussion_ids=discussions)
    # A repair knows an aggregate by its id; what has none is for a rebuild.
    for collection, key in ((database[CHATS], "chat_id"), (database[TASKS], "task_id")):
        collection.delete_many({key: {"$not": {"$regex": "^[0-9a-f-]{36}$"}}})

    found = verify("--enqueue-repairs")
    assert found.returncode == 1
    opened = database.readmodel_findings.count_documents({"state": "open"})
    assert opened > 100
    queued = database.repair_queue.count_documents({"status": "pending"})
    assert queued > 100

    with dg.build_sensor_context(instance=instance, resources={"mongo": MongoResource()}) as context:
        (request,) = repair_queue_sensor(context).run_requests
    job = defs.resolve_job_def("repair_read_models")
    assert job.execute_in_process(instance=instance, run_config=request.run_config, tags=request.tags).success
    assert database.repair_queue.count_documents({"status": "completed"}) == queued

    clean = verify()
    assert clean.returncode == 0, clean.stdout
    assert database.readmodel_findings.count_documents({"state": "open"}) == 0
    assert database.readmodel_findings.count_documents({"state": "closed"}) == opened
