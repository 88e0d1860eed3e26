"""The repair loop beside a daemon that is killed again and again: `e2e/test_repair_daemon.py` has the shorter tests."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from readmodel_pipelines.mongo.leases import COLLECTION
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.e2e.daemon import running, wait_until
from readmodel_pipelines_tests.e2e.runs import Mongo
from readmodel_pipelines_tests.e2e.test_repair_daemon import all_done, broken, healthy, kill_a_run


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.mongodb_uri is not None
    monkeypatch.setenv("READMODEL_MONGODB_URI", settings.mongodb_uri.get_secret_value())
    monkeypatch.setenv("READMODEL_DATABASE", settings.database)


def test_a_daemon_that_is_killed_again_and_again_loses_nothing_and_repairs_nothing_twice(
    database: Mongo, settings: Settings, tmp_path: Path
) -> None:
    tasks = broken(database, settings, 40)
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    with running(tmp_path) as daemon:
        for _ in range(3):
            # Its first tick comes some two seconds after its start: these fall before, into and behind it.
            time.sleep(moments.uniform(1.0, 6.0))
            daemon.kill()
            daemon.start()
        wait_until(lambda: all_done(database, tasks))
        wait_until(lambda: not database[COLLECTION].find_one({"_id": {"$regex": "^repair:"}}))

    assert healthy(database, settings), f"seed {seed}"
    assert database.repair_queue.count_documents({"attempts": {"$exists": True}}) == 0, "no lease was lost"


def test_a_run_that_is_killed_before_it_wrote_is_followed_by_one_that_ends_its_work(
    database: Mongo, settings: Settings, tmp_path: Path
) -> None:
    with running(tmp_path) as daemon:
        kill_a_run(database, settings, daemon, before_it_wrote=True)
