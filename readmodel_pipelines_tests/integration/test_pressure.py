"""The server's load on a real server: a quiet one is no reason to wait, operations that really queue are."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines_tests.support.scene import Mongo

Document = dict[str, Any]


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_a_quiet_server_is_no_reason_to_wait(database: Mongo) -> None:
    load = Pressure(database, max_queued=50, max_lag_seconds=10)
    assert (load.reason_to_wait(), load.warning) == ("", "")


@pytest.mark.parametrize(("max_queued", "waits"), [(1, True), (0, False), (1_000, False)])
def test_writes_that_queue_are_a_reason_until_they_are_through(database: Mongo, max_queued: int, waits: bool) -> None:
    load = Pressure(database, max_queued=max_queued, max_lag_seconds=10)
    watch = Pressure(database, max_queued=1, max_lag_seconds=0)
    admin = database.client.admin
    database["queued"].insert_one({})
    with ThreadPoolExecutor(4) as writers:
        # Until it is unlocked, no write gets through.
        admin.command("fsync", lock=True)
        try:
            for number in range(4):
                writers.submit(database["queued"].insert_one, {"number": number})
            assert until(lambda: watch.reason_to_wait() != "")
            reason = load.reason_to_wait()
        finally:
            admin.command("fsyncUnlock")
    assert ("operations are queued on the server (limit 1)" in reason) is waits
    assert (reason != "") is waits
    assert until(lambda: watch.reason_to_wait() == "")
    assert load.warning == ""
