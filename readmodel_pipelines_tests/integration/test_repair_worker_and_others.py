"""Repair workers beside others, who may die: one at a time repairs an aggregate, and nothing is lost.

Fifty killed workers, and a task that kills each, are in `soak/`.
"""

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from readmodel_pipelines.cli import main as command_line
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import Scene, event, found_in
from readmodel_pipelines_tests.support.trials.killed_workers import broken, kill_at_random_moments
from readmodel_pipelines_tests.support.verbs.repairing import (
    break_all,
    leases,
    lost_lease,
    put,
    queue_of,
    repair,
    stored,
    task,
)


def test_an_aggregate_that_somebody_else_holds_is_left_to_them(scene: Scene, ids: list[str]) -> None:
    lost_lease(scene, ids[0], 1, expired=False)
    put(scene, *(task(chat_id) for chat_id in ids))
    summary = repair(scene)

    assert summary.completed == 5
    assert [item["aggregate_id"] for item in stored(scene, status="pending")] == [ids[0]]


def test_an_aggregate_with_thousands_of_tasks_of_a_dead_worker_stops_no_other(scene: Scene, ids: list[str]) -> None:
    lost_lease(scene, ids[0], 1, expired=False)
    old = datetime.now(UTC) - timedelta(days=1)
    put(scene, *(task(ids[0], created_at=old) for _ in range(3_000)), *(task(chat_id) for chat_id in ids[1:]))
    assert repair(scene, batch_size=10).completed == 5


def test_a_task_added_meanwhile_is_left_to_the_next_one(
    scene: Scene, ids: list[str], other_writer: OtherWriter
) -> None:
    break_all(scene)
    queue = queue_of(scene)
    queue.add(ids[0], "chat", "the first")
    other_writer.once_before("write", "replace", lambda _: queue.add(ids[0], "chat", "the second"))
    summary = repair(scene, limit=1)

    assert summary.completed == 1
    assert [item["error"] for item in stored(scene, status="pending")] == ["the second"]
    assert repair(scene).completed == 1


def take_over(scene: Scene) -> Callable[[Any], None]:
    """Others find the lease run out, and repair."""

    def act(_: Any) -> None:
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        scene.database[LEASES].update_many({}, {"$set": {"expires_at": long_ago}})
        scene.database.repair_queue.update_many({}, {"$set": {"lease_until": long_ago}})
        assert repair(scene, holder="somebody else").completed == 1

    return act


def test_a_worker_that_lost_its_lease_breaks_nothing(scene: Scene, ids: list[str], other_writer: OtherWriter) -> None:
    break_all(scene)
    put(scene, task(ids[0]))
    other_writer.once_before("write", "replace", take_over(scene))
    summary = repair(scene)

    assert (summary.claimed, summary.completed, summary.lost, summary.ok) == (1, 0, 1, False)
    (done,) = stored(scene)
    assert (done["status"], done["claimed_by"]) == ("completed", "somebody else")
    assert scene.verify_one(ids[0]).ok
    assert leases(scene) == []


def test_leases_and_tasks_are_renewed_during_the_work(scene: Scene, ids: list[str], other_writer: OtherWriter) -> None:
    break_all(scene)
    put(scene, task(ids[0]))
    due: list[bool] = []
    # A machine may be slow to renew them.
    life = 3.0

    def slow(_: Any) -> None:
        for _ in range(8):
            time.sleep(life / 6)
            due.append(bool(queue_of(scene).due(10)))
            due.append(repair(scene, holder="somebody else").claimed > 0)

    other_writer.once_before("write", "replace", slow)
    assert repair(scene, lease_seconds=life).completed == 1
    assert not any(due)


@contextmanager
def busy(scene: Scene, chat_id: str, project: Callable[[int], object]) -> Iterator[list[int]]:
    """Somebody appends an event every 20 ms, and then does what `project` does with the version."""
    stop = threading.Event()
    versions = [found_in(scene.events, {"aggregate_id": chat_id}, sort=[("version", -1)])["version"]]

    def go_on() -> None:
        while not stop.wait(0.02):
            version = versions[-1] + 1
            scene.events.insert_one(event(chat_id, "Chat", version, "chat.renamed", {"new_title": f"{version}"}))
            versions.append(version)
            project(version)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield versions
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("lag", [0, 1, 3, None], ids=["at once", "one behind", "three behind", "never"])
def test_a_busy_aggregate_is_repaired_in_its_first_attempt(scene: Scene, ids: list[str], lag: int | None) -> None:
    chat_id = ids[0]
    chats = built_in("chat")[0]

    def project(version: int) -> None:
        if lag is not None and version - lag >= 2:
            # As the application does: from what it knows, over whatever is there.
            scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": f"{version - lag}"}})

    for _ in range(5):
        break_all(scene)
        put(scene, task(chat_id))
        with busy(scene, chat_id, project) as versions:
            while len(versions) < 3:
                time.sleep(0.01)
            summary = repair(scene)
        assert (summary.completed, summary.retried) == (1, 0), chats.read_model
        assert {item["retry_count"] for item in stored(scene)} == {0}
    ReadModelProjector(scene.database, scene.settings).rebuild_one(chat_id)


def test_what_others_change_is_repaired_once_it_caught_up(
    scene: Scene, ids: list[str], other_writer: OtherWriter
) -> None:
    chat_id = ids[0]
    break_all(scene)
    put(scene, task(chat_id))
    versions = [0, 1, 2]

    def faster(_: Any) -> None:
        # The stream goes on, and the document follows it two events behind: never what we have just folded.
        versions.append(versions[-1] + 1)
        scene.append(chat_id, ("chat.renamed", {"new_title": f"{versions[-1]}"}))
        scene.tasks.delete_one({"task_id": chat_id})
        ReadModelProjector(scene.database, scene.settings, "task").rebuild_one(chat_id)
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": f"{versions[-3]}"}})

    other_writer.before("write", faster, when=lambda changes: "participants" in changes[0].expected)
    summary = repair(scene)
    assert (summary.completed, summary.retried) == (1, 0)
    assert summary.read_models["chats_read_model"].superseded >= 6


def test_what_others_never_let_catch_up_is_not_repaired(
    scene: Scene, ids: list[str], other_writer: OtherWriter
) -> None:
    chat_id = ids[0]
    scene.append(chat_id, *(("chat.renamed", {"new_title": f"old {number}"}) for number in range(2)))
    break_all(scene)
    put(scene, task(chat_id))
    times = [0]

    def writes_an_old_state(_: Any) -> None:
        times[0] += 1
        scene.append(chat_id, ("chat.renamed", {"new_title": f"new {times[0]}"}))
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": f"old {(times[0] + 1) % 2}"}})

    other_writer.before("write", writes_an_old_state, when=lambda changes: "participants" in changes[0].expected)
    summary = repair(scene)
    assert (summary.completed, summary.retried) == (0, 1)
    assert {item["retry_count"] for item in stored(scene)} == {0}, "being busy spends no attempt"


# In processes


def test_processes_repair_five_hundred_tasks_each_by_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(scene, 300, 500)
    name_database(monkeypatch, scene.settings)
    work = [sys.executable, "-m", command_line.__name__, "repair-queue", "work", "--once", "--batch-size", "15"]
    with scene.database.repair_queue.watch(full_document="updateLookup") as changes, ExitStack() as ends:
        workers = [
            ends.enter_context(subprocess.Popen([*work, "--json"], stdout=subprocess.PIPE, text=True)) for _ in range(4)
        ]
        try:
            done = [json.loads(process.communicate(timeout=240)[0])["completed"] for process in workers]
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
    kill_at_random_moments(scene, kills=9, seed=20_261_124)
