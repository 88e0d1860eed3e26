"""The repair worker: what it mends, what it parks, what it leaves to others, and what an interruption leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from bson import ObjectId
from pymongo.errors import AutoReconnect, OperationFailure

from readmodel_pipelines.mongo.leases import COLLECTION, free_leases
from readmodel_pipelines.mongo.repair_queue import RepairQueue
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.repair import RepairSummary, RepairWorker
from readmodel_pipelines_tests.integration.conftest import FOREIGN, event
from readmodel_pipelines_tests.integration.test_repair_queue import put, stored, task

Document = dict[str, Any]


def longest(low: float, high: float) -> float:
    return high


def repair(scene: Any, **options: Any) -> RepairSummary:
    work = {name: options.pop(name) for name in ("limit", "task_ids") if name in options}
    return RepairWorker(scene.database, scene.settings, **options).work(**work)


def queue_of(scene: Any) -> RepairQueue:
    return RepairQueue(scene.database, scene.settings)


def leases(scene: Any) -> list[Document]:
    return list(scene.database[COLLECTION].find({"_id": {"$regex": "^repair:"}}))


def lost_lease(scene: Any, aggregate_id: str, lost: int, *, expired: bool = True) -> None:
    """As `lost` workers in a row left it that died of this aggregate."""
    moment = datetime.now(UTC) + timedelta(hours=-1 if expired else 1)
    scene.database[COLLECTION].insert_one(
        {"_id": f"repair:chat:{aggregate_id}", "nonce": "dead", "owner": "dead", "token": lost, "lost": lost - 1}
        | {"expires_at": moment}
    )


@pytest.fixture
def ids(scene: Any) -> list[str]:
    """Chats whose documents are right, in order."""
    scene.ensure_indexes()
    made = [scene.chat(f"chat {number}") for number in range(6)]
    assert scene.rebuild().ok
    scene.make_foreign()
    return sorted(made)


def break_all(scene: Any) -> None:
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    scene.tasks.update_many({}, {"$set": {"version": 99}})


# What it mends


@pytest.mark.parametrize("aggregate_type", ["chat", "task", "  Chat\n", "TASK"])
def test_a_task_of_either_name_mends_every_read_model_made_from_the_stream(
    scene: Any, ids: list[str], aggregate_type: str
) -> None:
    right = scene.everything()
    break_all(scene)
    put(scene, *(task(chat_id, aggregate_type=aggregate_type) for chat_id in ids))
    summary = repair(scene)

    assert (summary.completed, summary.aggregates, summary.ok) == (6, 6, True)
    assert scene.everything() == right
    assert scene.chats.count_documents(FOREIGN) == 6
    assert leases(scene) == []


def test_legacy_tasks_are_repaired_from_their_own_streams(legacy_scene: Any) -> None:
    scene = legacy_scene
    scene.ensure_indexes()
    chat_id, task_id = scene.chat("chat"), scene.task("task", str(uuid4()))
    assert scene.rebuild().ok
    break_all(scene)
    put(scene, task(chat_id), task(task_id, aggregate_type="task"))

    assert repair(scene).completed == 2
    assert scene.verify().ok
    put(scene, task(task_id, aggregate_type="chat"))
    assert repair(scene).parked == 1, "there is no chat of that id"


def test_several_tasks_of_one_aggregate_are_one_repair_and_ids_of_any_type_are_taken(
    scene: Any, ids: list[str]
) -> None:
    break_all(scene)
    odd: list[Any] = [ObjectId(), "by hand", 7, {"a": 1}, 3.5, datetime.now(UTC)]
    put(scene, *(task(ids[0], _id=odd_id) for odd_id in odd))
    summary = repair(scene)

    assert (summary.aggregates, summary.completed) == (1, len(odd))
    assert scene.verify_one(ids[0]).ok


def test_a_task_that_the_application_s_own_worker_left_in_work_is_repaired(scene: Any, ids: list[str]) -> None:
    break_all(scene)
    put(scene, task(ids[0], status="processing"))
    assert repair(scene).completed == 1
    assert scene.verify_one(ids[0]).ok


def test_unwanted_documents_are_deleted_however_many(scene: Any) -> None:
    scene.ensure_indexes()
    orphans = [str(uuid4()) for _ in range(150)]
    scene.chats.insert_many({"chat_id": chat_id} for chat_id in orphans)
    put(scene, *(task(chat_id) for chat_id in orphans))

    assert repair(scene).completed == 150
    assert scene.chats.count_documents({}) == 0


def test_a_queue_without_indexes_is_worked_off_too(scene: Any) -> None:
    scene.index()
    chat_id = scene.chat("one")
    put(scene, task(chat_id))
    assert repair(scene).completed == 1
    assert scene.verify().ok


def test_a_thousand_tasks_take_no_more_round_trips_than_ten(scene: Any) -> None:
    scene.ensure_indexes()
    ids = [scene.chat(f"chat {number}") for number in range(300)]
    assert scene.rebuild().ok

    def commands(chats: int) -> int:
        break_all(scene)
        put(scene, *(task(chat_id) for chat_id in ids[:chats]))
        before = _commands(scene)
        assert repair(scene).completed == chats
        return _commands(scene) - before

    assert commands(300) < commands(10) + 20


def _commands(scene: Any) -> int:
    counters = scene.database.command("serverStatus")["opcounters"]
    return int(counters["command"] + counters["query"])


def test_no_more_than_the_limit_and_what_was_named_whether_due_or_not(scene: Any, ids: list[str]) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    put(scene, *(task(chat_id) for chat_id in ids))
    assert repair(scene, limit=4, batch_size=3).completed == 4
    put(scene, task(ids[0], _id="named", next_attempt_at=later), task(ids[0], _id="other", next_attempt_at=later))

    assert repair(scene, task_ids=["named", "no such task"]).completed == 1
    assert queue_of(scene).stats().pending == 3


# What it parks, and what it tries again


def poison(scene: Any) -> dict[str, str]:
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


def test_poison_is_parked_with_its_reason_and_everything_else_goes_on(scene: Any, ids: list[str]) -> None:
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


def test_a_dead_letter_is_repaired_once_its_cause_is_mended_and_it_is_requeued(scene: Any, ids: list[str]) -> None:
    scene.append(ids[0], ("chat.renamed", {"new_title": 7}))
    put(scene, task(ids[0]))
    assert repair(scene).parked == 1
    scene.events.update_one({"aggregate_id": ids[0], "data.new_title": 7}, {"$set": {"data.new_title": "mended"}})

    assert repair(scene).claimed == 0
    assert queue_of(scene).requeue(reason="bad_field") == 1
    assert repair(scene).completed == 1
    assert scene.verify().ok


def test_a_write_that_is_refused_is_tried_again_later_and_parked_after_the_last_attempt(
    scene: Any, ids: list[str]
) -> None:
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


# One at a time


def test_an_aggregate_that_somebody_else_holds_is_left_to_them(scene: Any, ids: list[str]) -> None:
    lost_lease(scene, ids[0], 1, expired=False)
    put(scene, *(task(chat_id) for chat_id in ids))
    summary = repair(scene)

    assert summary.completed == 5
    assert [item["aggregate_id"] for item in stored(scene, status="pending")] == [ids[0]]


def test_an_aggregate_with_thousands_of_tasks_that_a_dead_worker_holds_does_not_stop_others(
    scene: Any, ids: list[str]
) -> None:
    lost_lease(scene, ids[0], 1, expired=False)
    old = datetime.now(UTC) - timedelta(days=1)
    put(scene, *(task(ids[0], created_at=old) for _ in range(3_000)), *(task(chat_id) for chat_id in ids[1:]))
    assert repair(scene, batch_size=10).completed == 5


def test_a_task_added_while_its_aggregate_is_repaired_is_repaired_by_the_next_one(
    scene: Any, ids: list[str], other_writer: Any
) -> None:
    break_all(scene)
    queue = queue_of(scene)
    queue.add(ids[0], "chat", "the first")
    other_writer.once_before("write", "replace", lambda _: queue.add(ids[0], "chat", "the second"))
    summary = repair(scene, limit=1)

    assert summary.completed == 1
    assert [item["error"] for item in stored(scene, status="pending")] == ["the second"]
    assert repair(scene).completed == 1


def take_over(scene: Any) -> Callable[[Any], None]:
    """Others find the lease run out, and repair."""

    def act(_: Any) -> None:
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        scene.database[COLLECTION].update_many({}, {"$set": {"expires_at": long_ago}})
        scene.database.repair_queue.update_many({}, {"$set": {"lease_until": long_ago}})
        assert repair(scene, holder="somebody else").completed == 1

    return act


def test_a_worker_whose_lease_was_taken_over_completes_nothing_and_breaks_nothing(
    scene: Any, ids: list[str], other_writer: Any
) -> None:
    break_all(scene)
    put(scene, task(ids[0]))
    other_writer.once_before("write", "replace", take_over(scene))
    summary = repair(scene)

    assert (summary.claimed, summary.completed, summary.lost, summary.ok) == (1, 0, 1, False)
    (done,) = stored(scene)
    assert (done["status"], done["claimed_by"]) == ("completed", "somebody else")
    assert scene.verify_one(ids[0]).ok
    assert leases(scene) == []


def test_leases_and_tasks_are_renewed_while_the_worker_works(scene: Any, ids: list[str], other_writer: Any) -> None:
    break_all(scene)
    put(scene, task(ids[0]))
    due: list[bool] = []

    def slow(_: Any) -> None:
        for _ in range(12):
            time.sleep(0.1)
            due.append(bool(queue_of(scene).due(10)))
            due.append(repair(scene, holder="somebody else").claimed > 0)

    other_writer.once_before("write", "replace", slow)
    assert repair(scene, lease_seconds=0.5).completed == 1
    assert not any(due)


# How it ends


def interrupted_with(other_writer: Any, error: BaseException) -> None:
    def fails(_: Any) -> None:
        raise error

    other_writer.once_before("write", "replace", fails)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), AutoReconnect("reset"), OperationFailure("no", 13)]
)
def test_an_interruption_and_a_lost_server_give_back_what_was_taken_as_if_it_had_not_been(
    scene: Any, ids: list[str], other_writer: Any, error: BaseException
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
    scene: Any, ids: list[str], other_writer: Any
) -> None:
    break_all(scene)
    put(scene, *(task(chat_id) for chat_id in ids))
    interrupted_with(other_writer, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        repair(scene)

    assert queue_of(scene).stats().due == 6
    assert len(leases(scene)) == 6
    assert repair(scene).completed == 6
    assert all(item["attempts"][0]["reason"] == "lease_lost" for item in stored(scene))
    assert leases(scene) == []


def test_what_lost_its_worker_three_times_is_taken_alone_and_last(scene: Any, ids: list[str]) -> None:
    lost_lease(scene, ids[0], 3)
    lost_lease(scene, ids[1], 2)
    lost_lease(scene, ids[2], 5)
    put(scene, *(task(chat_id) for chat_id in ids))
    batches: list[tuple[int, int]] = []
    summary = repair(scene, on_batch=lambda so_far: batches.append((so_far.batches, so_far.aggregates)))

    assert batches == [(1, 4), (2, 5), (3, 6)]
    assert summary.completed == 6
    assert leases(scene) == []


def test_what_lost_its_worker_twenty_times_is_parked_alone(scene: Any, ids: list[str]) -> None:
    break_all(scene)
    lost_lease(scene, ids[0], 20)
    lost_lease(scene, ids[1], 19)
    put(scene, *(task(chat_id) for chat_id in ids))
    summary = repair(scene)

    assert (summary.completed, summary.parked) == (5, 1)
    (parked,) = stored(scene, status="failed")
    assert (parked["aggregate_id"], parked["reason"]) == (ids[0], "crashes_worker")
    assert scene.chats.find_one({"chat_id": ids[0]})["title"] == "wrong", "it was not touched"
    assert leases(scene) == [], "and begins anew when somebody requeues it"
    queue_of(scene).requeue(reason="crashes_worker")
    assert repair(scene).completed == 1


def test_what_a_dead_run_held_is_free_early(scene: Any, ids: list[str]) -> None:
    put(scene, task(ids[0], status="processing", claimed_by="run 7", lease_until=datetime(2100, 1, 1, tzinfo=UTC)))
    lost_lease(scene, ids[0], 1, expired=False)
    held = {"owner": "Dagster run 7", "given_back": False}
    scene.database[COLLECTION].update_one({"_id": f"repair:chat:{ids[0]}"}, {"$set": held})
    assert repair(scene).claimed == 0

    assert free_leases(scene.database, "Dagster run 7") == 1
    assert queue_of(scene).free("run 7") == 1
    assert repair(scene).completed == 1


# A busy aggregate


@contextmanager
def busy(scene: Any, chat_id: str, project: Callable[[int], object]) -> Iterator[list[int]]:
    """Somebody appends an event every 20 ms, and then does what `project` does with the version."""
    stop = threading.Event()
    versions = [scene.events.find_one({"aggregate_id": chat_id}, sort=[("version", -1)])["version"]]

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
def test_a_busy_aggregate_is_repaired_in_its_first_attempt(scene: Any, ids: list[str], lag: int | None) -> None:
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


def test_a_document_that_others_change_each_time_is_repaired_once_it_has_caught_up(
    scene: Any, ids: list[str], other_writer: Any
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
