"""The repair loop where daemon or run are killed, or much else is to be done. `e2e/test_repair_daemon.py` is short."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.e2e.test_repair_daemon import all_done, healthy
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Mongo, Scene
from readmodel_pipelines_tests.support.servers.dagster_daemon import running
from readmodel_pipelines_tests.support.trials.killed_workers import broken
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS
from readmodel_pipelines_tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    name_database(monkeypatch, settings)


def test_a_daemon_that_is_killed_again_and_again_loses_nothing_and_repairs_nothing_twice(
    database: Mongo, settings: Settings, tmp_path: Path
) -> None:
    tasks = len(broken(Scene(database, settings), 40, 40))
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    with running(tmp_path) as daemon:
        for _ in range(3):
            # Its first tick comes some two seconds after its start: these fall before, into and behind it.
            time.sleep(moments.uniform(1.0, 6.0))
            daemon.kill()
            daemon.start()
        wait_until(lambda: all_done(database, tasks))
        wait_until(lambda: not database[LEASES].find_one({"_id": {"$regex": "^repair:"}}))

    assert healthy(database, settings), f"seed {seed}"
    assert database.repair_queue.count_documents({"attempts": {"$exists": True}}) == 0, "no lease was lost"


@pytest.mark.parametrize("before_it_wrote", [True, False], ids=["before it wrote", "after it wrote"])
def test_a_run_that_is_killed_is_followed_by_one_that_ends_its_work(
    database: Mongo, settings: Settings, tmp_path: Path, before_it_wrote: bool
) -> None:
    with running(tmp_path) as daemon:
        with daemon.paused():
            tasks = len(broken(Scene(database, settings), 1_500, 1_500))
        pid = daemon.process_of_the_run()
        if before_it_wrote:
            wait_until(lambda: database[LEASES].find_one({"_id": {"$regex": "^repair:"}}), every=0.001)
        else:
            wait_until(lambda: database[CHATS].find_one({"title": {"$ne": "wrong"}}), every=0.001)
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        assert not all_done(database, tasks)

        # Its lease lasts five minutes; the sensor of failed runs does not wait for that.
        wait_until(lambda: all_done(database, tasks))
        assert time.monotonic() - killed_at < settings.repair_lease_seconds / 2
        assert daemon.runs(DagsterRunStatus.FAILURE)
        assert healthy(database, settings)
        assert database.repair_queue.count_documents({"attempts.reason": "lease_lost"}) < tasks
        assert database.repair_queue.count_documents({"retry_count": {"$ne": 0}}) == 0, "no attempt was spent"


def test_repairs_do_not_wait_until_a_backfill_is_over(database: Mongo, settings: Settings, tmp_path: Path) -> None:
    slices = [f"chat_{number:02d}_of_16" for number in range(1, 17)]
    tasks = 20
    broken(Scene(database, settings), tasks, tasks)
    database.repair_queue.update_many({}, [{"$set": {"next_attempt_at": {"$add": ["$$NOW", 3_600_000]}}}])
    with running(tmp_path) as daemon:
        daemon.backfill("rebuild_slices", slices, {})
        wait_until(lambda: daemon.runs(DagsterRunStatus.STARTED))
        began = time.monotonic()
        database.repair_queue.update_many({}, {"$unset": {"next_attempt_at": ""}})
        wait_until(lambda: all_done(database, tasks))
        waiting = [run.job_name for run in daemon.runs(DagsterRunStatus.QUEUED)]
        print(f"{tasks} repairs took {time.monotonic() - began:.0f} s beside a backfill, {len(waiting)} slices to come")
        assert "rebuild_slices" in waiting
