"""What an interruption of a repair worker leaves behind, and what the next one does about it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from readmodel_pipelines.bookkeeping.leases import free_leases, lost_leases
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import Scene, found_in
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


def interrupted_with(other_writer: OtherWriter, error: BaseException) -> None:
    def fails(_: Any) -> None:
        raise error

    other_writer.once_before("write", "replace", fails)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), AutoReconnect("reset"), OperationFailure("no", 13)]
)
def test_an_interruption_and_a_lost_server_give_back_what_was_taken_as_if_it_had_not_been(
    scene: Scene, ids: list[str], other_writer: OtherWriter, error: BaseException
) -> None:
    break_all(scene)
    put(scene, *(task(chat_id) for chat_id in ids))
    interrupted_with(other_writer, error)
    with pytest.raises(type(error)):
        repair(scene)

    assert leases(scene) == []
    assert {(item["status"], item["retry_count"], "lease_token" in item) for item in stored(scene)} == {
        ("pending", 0, False)
    }
    assert repair(scene).completed == 6
    assert all("attempts" not in item for item in stored(scene))


def test_an_error_that_nobody_expects_counts_as_a_crash_and_the_tasks_are_due_at_once(
    scene: Scene, ids: list[str], other_writer: OtherWriter
) -> None:
    break_all(scene)
    put(scene, *(task(chat_id) for chat_id in ids))
    interrupted_with(other_writer, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        repair(scene)

    assert queue_of(scene).stats().due == 6
    names = [item["_id"] for item in leases(scene)]
    assert lost_leases(scene.database, names) == dict.fromkeys(names, 1)
    assert len(names) == 6
    assert repair(scene).completed == 6
    assert all(item["attempts"][0]["reason"] == "lease_lost" for item in stored(scene))
    assert leases(scene) == []


def test_what_lost_its_worker_three_times_is_taken_alone_and_last(scene: Scene, ids: list[str]) -> None:
    lost_lease(scene, ids[0], 3)
    lost_lease(scene, ids[1], 2)
    lost_lease(scene, ids[2], 5)
    put(scene, *(task(chat_id) for chat_id in ids))
    batches: list[tuple[int, int]] = []
    summary = repair(scene, on_batch=lambda so_far: batches.append((so_far.batches, so_far.aggregates)))

    assert batches == [(1, 4), (2, 5), (3, 6)]
    assert summary.completed == 6
    assert leases(scene) == []


def test_what_lost_its_worker_twenty_times_is_parked_alone(scene: Scene, ids: list[str]) -> None:
    break_all(scene)
    lost_lease(scene, ids[0], 20)
    lost_lease(scene, ids[1], 19)
    put(scene, *(task(chat_id) for chat_id in ids))
    summary = repair(scene)

    assert (summary.completed, summary.parked) == (5, 1)
    (parked,) = stored(scene, status="failed")
    assert (parked["aggregate_id"], parked["reason"]) == (ids[0], "crashes_worker")
    assert found_in(scene.chats, {"chat_id": ids[0]})["title"] == "wrong", "it was not touched"
    assert leases(scene) == [], "and begins anew when somebody requeues it"
    queue_of(scene).requeue(reason="crashes_worker")
    assert repair(scene).completed == 1


def test_what_a_dead_run_held_is_free_early(scene: Scene, ids: list[str]) -> None:
    put(scene, task(ids[0], status="processing", claimed_by="run 7", lease_until=datetime(2100, 1, 1, tzinfo=UTC)))
    lost_lease(scene, ids[0], 1, expired=False)
    held = {"owner": "Dagster run 7", "given_back": False}
    scene.database[LEASES].update_one({"_id": f"repair:chat:{ids[0]}"}, {"$set": held})
    assert repair(scene).claimed == 0

    assert free_leases(scene.database, "Dagster run 7") == 1
    assert queue_of(scene).free("run 7") == 1
    assert repair(scene).completed == 1
