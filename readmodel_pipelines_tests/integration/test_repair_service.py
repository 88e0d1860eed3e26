"""`readmodel repair-queue work` as a service: it is woken by what comes, and others know that it is there."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.int64 import Int64
from pymongo import MongoClient

from readmodel_pipelines.bookkeeping.arrivals import Arrivals
from readmodel_pipelines.bookkeeping.held_leases import each_taken, taken_leases
from readmodel_pipelines.bookkeeping.leases import PRESENCE
from readmodel_pipelines.bookkeeping.presence import is_attended, present
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.driver import ours
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.integration.test_repair_cli import worker
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.standalone import standalone_server
from readmodel_pipelines_tests.support.verbs.repairing import put, task
from readmodel_pipelines_tests.support.waiting import wait_until

QUEUE = "repair_queue"
FOR_EVER = 600.0


def test_a_task_that_comes_is_repaired_at_once_and_presence_ends_with_the_worker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_database(monkeypatch, scene.settings)
    scene.ensure_indexes()
    chats = [scene.chat(f"chat {number}") for number in range(2)]
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    queue = RepairQueue(scene.database, scene.settings)
    with worker("--every", "3600") as process:
        wait_until(lambda: is_attended(scene.database, QUEUE))
        for number, chat_id in enumerate(chats, 1):
            put(scene, task(chat_id))
            wait_until(lambda done=number: queue.stats().completed == done)  # type: ignore[misc]
        assert scene.verify().ok
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=240)
    assert not is_attended(scene.database, QUEUE)
    assert scene.database[LEASES].count_documents({"kind": PRESENCE}) == 0


@contextmanager
def arrivals(scene: Scene) -> Iterator[tuple[Arrivals, list[float], list[str]]]:
    slept: list[float] = []
    told: list[str] = []
    with Arrivals(ours(scene.database), QUEUE, told.append, slept.append) as found:
        yield found, slept, told


def woken(found: Arrivals, seconds: float = FOR_EVER) -> bool:
    started = time.monotonic()
    found.wait(seconds)
    return time.monotonic() - started < seconds


def test_what_comes_together_wakes_once_and_what_is_brought_back_wakes_too(scene: Scene) -> None:
    scene.index()
    with arrivals(scene) as (found, slept, told):
        assert not woken(found, 0.01)
        put(scene, *(task(scene.chat(str(number))) for number in range(50)))
        assert woken(found)
        scene.database[QUEUE].update_many({}, {"$set": {"status": "failed"}})
        while woken(found, 0.2):
            pass
        RepairQueue(scene.database, scene.settings).requeue(all_failed=True)
        assert woken(found)
        assert (slept, told) == ([], [])


def test_after_a_glitch_it_wakes_at_once_for_nobody_knows_what_came_meanwhile(scene: Scene) -> None:
    with arrivals(scene) as (found, slept, told):
        kill: dict[str, Any] = {"killCursors": QUEUE, "cursors": [Int64(found._cursor)]}
        scene.database.command(kill)
        assert woken(found)
        assert (len(slept), told) == (1, [])
        put(scene, task(scene.chat("one")))
        assert woken(found)


@pytest.fixture(scope="module")
def standalone() -> Iterator[str]:
    with standalone_server() as uri:
        yield uri


def test_where_a_server_gives_no_changes_the_time_passes_and_it_is_said_once(standalone: str) -> None:
    slept: list[float] = []
    told: list[str] = []
    with (
        MongoClient[Any](standalone) as client,
        Arrivals(ours(client["any"]), QUEUE, told.append, slept.append) as found,
    ):
        for _ in range(2):
            started = time.monotonic()
            found.wait(5.0)
            assert 5.0 - (time.monotonic() - started) <= slept[-1] <= 5.0
    assert told == ["the server gives no changes of it"]
    assert len(slept) == 2


def test_a_worker_is_there_as_long_as_its_presence_lasts_by_the_clock_of_the_server(scene: Scene) -> None:
    database = ours(scene.database)
    records = database[LEASES]
    with present(database, QUEUE):
        wait_until(lambda: is_attended(database, QUEUE))
        assert not is_attended(database, "another_queue")
        assert (taken_leases(database), each_taken(database, 10)) == ([], [])
        now = datetime.now(UTC)
        for away in (timedelta(seconds=-1), timedelta(days=3)):
            records.update_many({}, {"$set": {"expires_at": now + away}})
            assert not is_attended(database, QUEUE)
    assert records.count_documents({}) == 0
