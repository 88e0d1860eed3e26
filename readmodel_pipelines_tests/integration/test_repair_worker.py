"""The repair worker: what it mends, parks and tries again, and what an interruption leaves for the next one."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from bson import ObjectId
from pymongo.errors import AutoReconnect, OperationFailure

from readmodel_pipelines.bookkeeping.leases import free_leases, lost_leases
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import FOREIGN, Scene, found_in
from readmodel_pipelines_tests.support.verbs.repairing import (
    break_all,
    leases,
    longest,
    lost_lease,
    put,
    queue_of,
    repair,
    stored,
    task,
)
from readmodel_pipelines_tests.support.waiting import wait_until

# What it mends


@pytest.mark.parametrize("aggregate_type", ["chat", "task", "  Chat\n", "TASK"])
def test_a_task_of_either_name_mends_all_of_the_stream(scene: Scene, ids: list[str], aggregate_type: str) -> None:
    right = scene.everything()
    break_all(scene)
    put(scene, *(task(chat_id, aggregate_type=aggregate_type) for chat_id in ids))
    summary = repair(scene)

    assert (summary.completed, summary.aggregates, summary.ok) == (6, 6, True)
    assert scene.everything() == right
    assert scene.chats.count_documents(FOREIGN) == 6
    assert leases(scene) == []


def test_legacy_tasks_are_repaired_from_their_own_streams(legacy_scene: Scene) -> None:
    scene = legacy_scene
    scene.ensure_indexes()
    chat_id, task_id = scene.chat("chat"), scene.task("task", str(uuid4()))
    scene.build()
    break_all(scene)
    put(scene, task(chat_id), task(task_id, aggregate_type="task"))

    assert repair(scene).completed == 2
    assert scene.verify().ok
    put(scene, task(task_id, aggregate_type="chat"))
    assert repair(scene).parked == 1, "there is no chat of that id"


def test_several_tasks_of_one_aggregate_are_one_repair_whatever_their_ids_are(scene: Scene, ids: list[str]) -> None:
    break_all(scene)
    odd: list[Any] = [ObjectId(), "by hand", 7, {"a": 1}, 3.5, datetime.now(UTC)]
    put(scene, *(task(ids[0], _id=odd_id) for odd_id in odd))
    summary = repair(scene)

    assert (summary.aggregates, summary.completed) == (1, len(odd))
    assert scene.verify_one(ids[0]).ok


def test_a_task_that_the_application_s_own_worker_left_in_work_is_repaired(scene: Scene, ids: list[str]) -> None:
    break_all(scene)
    put(scene, task(ids[0], status="processing"))
    assert repair(scene).completed == 1
    assert scene.verify_one(ids[0]).ok


def test_unwanted_documents_are_deleted_however_many(scene: Scene) -> None:
    scene.ensure_indexes()
    scene.chat("one that has events, or a queue that asks for deletions is not believed")
    orphans = [str(uuid4()) for _ in range(150)]
    scene.chats.insert_many({"chat_id": chat_id} for chat_id in orphans)
    put(scene, *(task(chat_id) for chat_id in orphans))

    assert repair(scene).completed == 150
    assert scene.chats.count_documents({}) == 0


def test_a_queue_without_indexes_is_worked_off_too(scene: Scene) -> None:
    scene.index()
    chat_id = scene.chat("one")
    put(scene, task(chat_id))
    assert repair(scene).completed == 1
    assert scene.verify().ok


def test_a_thousand_tasks_take_no_more_round_trips_than_ten(scene: Scene) -> None:
    scene.ensure_indexes()
    ids = [scene.chat(f"chat {number}") for number in range(300)]
    scene.build()

    def commands(chats: int) -> int:
        break_all(scene)
        put(scene, *(task(chat_id) for chat_id in ids[:chats]))
        before = _commands(scene)
        assert repair(scene).completed == chats
        return _commands(scene) - before

    assert commands(300) < commands(10) + 20


def _commands(scene: Scene) -> int:
    counters = scene.database.command("serverStatus")["opcounters"]
    return int(counters["command"] + counters["query"])


def test_no_more_than_the_limit_and_what_was_named_whether_due_or_not(scene: Scene, ids: list[str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    put(scene, *(task(chat_id) for chat_id in ids))
    assert repair(scene, limit=4, batch_size=3).completed == 4
    put(scene, task(ids[0], _id="named", next_attempt_at=later), task(ids[0], _id="other", next_attempt_at=later))

    assert repair(scene, task_ids=["named", "no such task"]).completed == 1
    assert queue_of(scene).stats().pending == 3


# What it parks, and what it tries again


def poison(scene: Scene) -> dict[str, str]:
    """Aggregates that no retry can mend, by the reason; documents that stand beside them stay as they are."""
    version_gap = scene.chat("gap")
    scene.put((9, "chat.renamed", {"new_title": "x"}), aggregate_id=version_gap)
    unknown = scene.chat("unknown")
    scene.append(unknown, ("chat.exploded", {}))
    bad_field = scene.chat("field")
    scene.append(bad_field, ("chat.renamed", {"new_title": 7}))
    bad_data = scene.chat("data")
    scene.put((3, "chat.renamed", None), aggregate_id=bad_data)
    headless = str(uuid4())
    scene.put((1, "chat.renamed", {"new_title": "x"}), aggregate_id=headless)
    return {
        "version_gap": version_gap,
        "unknown_event_type": unknown,
        "bad_field": bad_field,
        "bad_data": bad_data,
        "no_created_event": headless,
        "aggregate_not_found": str(uuid4()),
    }


def test_poison_is_parked_with_its_reason_and_everything_else_goes_on(scene: Scene, ids: list[str]) -> None:
    break_all(scene)
    poisonous = poison(scene)
    scene.chats.insert_one({"chat_id": poisonous["bad_field"], "title": "old"})
    put(scene, *(task(aggregate_id, _id=reason) for reason, aggregate_id in poisonous.items()))
    put(scene, task("no id", _id="bad_aggregate_id"), task(ids[0], _id="unknown_task_type", task_type="mail"))
    put(scene, task(ids[0], _id="unknown_aggregate_type", aggregate_type="user"))
    put(scene, *(task(chat_id) for chat_id in ids))
    summary = repair(scene)

    parked = stored(scene, status="failed")
    assert len(parked) == summary.parked == len(poisonous) + 3
    assert all(item["reason"] == item["_id"] for item in parked)
    assert all(item["attempts"][-1]["detail"] for item in parked)
    assert {letter.reason for letter in summary.dead_letters} == {item["_id"] for item in parked}
    assert summary.completed == len(ids)
    assert all(scene.verify_one(chat_id).ok for chat_id in ids)
    assert scene.chats.find_one({"chat_id": poisonous["bad_field"]}, {"_id": 0, "title": 1}) == {"title": "old"}
    assert repair(scene).claimed == 0


def test_a_write_that_is_refused_is_tried_later_and_parked_after_the_last_attempt(scene: Scene, ids: list[str]) -> None:
    scene.settings = scene.settings.model_copy(update={"repair_attempts": 3})
    break_all(scene)
    scene.database.command("collMod", "chats_read_model", validator={"title": "wrong"})
    put(scene, task(ids[0]), task(ids[1]))
    for failures, wait in ((1, 30), (2, 60)):
        summary = repair(scene, draw=longest)
        assert (summary.retried, summary.parked, summary.ok) == (2, 0, False)
        for item in stored(scene):
            assert (item["status"], item["retry_count"], item["reason"]) == ("pending", failures, "write_refused")
            left = (item["next_attempt_at"].replace(tzinfo=UTC) - queue_of(scene).now()).total_seconds()
            assert wait - 10 < left <= wait
        assert repair(scene).claimed == 0, "nothing is due"
        scene.database.repair_queue.update_many({}, {"$unset": {"next_attempt_at": ""}})
    summary = repair(scene)
    assert (summary.retried, summary.parked) == (0, 2)
    assert {letter.aggregate_id for letter in summary.dead_letters} == set(ids[:2])

    scene.database.command("collMod", "chats_read_model", validator={})
    queue_of(scene).requeue(all_failed=True)
    assert repair(scene).completed == 2
    assert scene.verify_one(ids[0]).ok


# What an interruption leaves behind, and what the next one does about it


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


def test_a_bug_counts_as_a_crash_and_the_tasks_are_due(scene: Scene, ids: list[str], other_writer: OtherWriter) -> None:
    break_all(scene)
    put(scene, *(task(chat_id) for chat_id in ids))
    interrupted_with(other_writer, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        repair(scene)

    assert queue_of(scene).stats().due == 6
    names = [item["_id"] for item in leases(scene)]
    assert lost_leases(scene.database, 1) == dict.fromkeys(names, 1)
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


def test_tasks_of_a_dead_worker_are_repaired_although_the_server_s_clock_stood_ahead(
    scene: Scene, ids: list[str]
) -> None:
    break_all(scene)
    put(scene, *(task(chat_id) for chat_id in ids))
    with killed_at(Moment.REPAIR):
        repair(scene)
    ahead = timedelta(hours=2)
    scene.database.repair_queue.update_many({}, {"$set": {"lease_until": datetime.now(UTC) + ahead}})
    scene.database[LEASES].update_many({}, {"$set": {"expires_at": datetime.now(UTC) + ahead, "seconds": 0.3}})

    assert queue_of(scene).stats().due == 6
    # The first look brings the leases to what they can be.
    wait_until(lambda: repair(scene).completed == 6, every=0.05)
    assert leases(scene) == []


def test_what_a_dead_run_held_is_free_early(scene: Scene, ids: list[str]) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=200)
    put(scene, task(ids[0], status="processing", claimed_by="run 7", lease_until=soon))
    lost_lease(scene, ids[0], 1, expired=False)
    held = {"owner": "Dagster run 7", "given_back": False}
    scene.database[LEASES].update_one({"_id": f"repair:chat:{ids[0]}"}, {"$set": held})
    assert repair(scene).claimed == 0

    assert free_leases(scene.database, "Dagster run 7") == 1
    assert queue_of(scene).free("run 7") == 1
    assert repair(scene).completed == 1
