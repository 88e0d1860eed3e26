"""Repair workers beside one another, and workers that die: nothing is lost, nothing is done by two at once.

Fifty killed workers are in `soak/`.
"""

import json
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack

import pytest

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.cli import main as command_line
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.trials.killed_workers import broken, kill_at_random_moments, short_lived
from readmodel_pipelines_tests.support.verbs.repairing import stored


def test_eight_processes_repair_five_hundred_tasks_each_by_exactly_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(scene, 300, 500)
    name_database(monkeypatch, scene.settings)
    work = [sys.executable, "-m", command_line.__name__, "repair-queue", "work", "--once", "--batch-size", "15"]
    with scene.database.repair_queue.watch(full_document="updateLookup") as changes, ExitStack() as ends:
        workers = [
            ends.enter_context(subprocess.Popen([*work, "--json"], stdout=subprocess.PIPE, text=True)) for _ in range(8)
        ]
        try:
            done = [json.loads(process.communicate(timeout=120)[0])["completed"] for process in workers]
        finally:
            for process in workers:
                process.kill()
        history = defaultdict(list)
        while (change := changes.try_next()) is not None:
            history[change["documentKey"]["_id"]].append(change["updateDescription"]["updatedFields"].get("status"))

    assert sum(done) == 500
    assert sum(number > 0 for number in done) >= 2, "they worked beside one another"
    assert len(history) == 500
    assert {tuple(item) for item in history.values()} == {("processing", "completed")}, "once each, by one"
    assert scene.verify().ok
    assert scene.database[LEASES].count_documents({"_id": {"$regex": "^repair:"}}) == 0


def test_workers_killed_at_random_moments_lose_nothing_and_leave_nothing_wrong(scene: Scene) -> None:
    kill_at_random_moments(scene, kills=15, seed=20_261_124)


def test_a_task_that_kills_its_worker_every_time_is_parked_alone(scene: Scene) -> None:
    ids = broken(scene, 60, 60)
    told = short_lived(scene, deadly=ids[7], lease=300)

    assert told["killed"] == 20
    (parked,) = stored(scene, status="failed")
    assert (parked["aggregate_id"], parked["reason"]) == (ids[7], "crashes_worker")
    others = stored(scene, status="completed")
    assert len(others) == 59
    assert max(len(item.get("attempts", ())) for item in others) <= 3, "no more workers died with them than it takes"
    assert [finding.aggregate_id for finding in scene.verify("chat").findings] == [ids[7]]

    queue = RepairQueue(scene.database, scene.settings)
    assert queue.requeue(reason="crashes_worker") == 1
    short_lived(scene, kills=0)
    assert queue.stats().completed == 60
    assert scene.verify().ok
