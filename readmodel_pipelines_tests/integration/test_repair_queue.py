"""The repair queue: what producers write is taken as it is, what is added is in their form, and ends are kept."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from bson import Int64, ObjectId
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.bookkeeping.repair_queue import Failure, RepairQueue
from readmodel_pipelines.bookkeeping.repair_task import pending_until, under
from readmodel_pipelines.errors import RepairQueueFull, UsageError
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.repairing import put, stored, task

SOME_ID = "c1ff5917-b7aa-4647-93c3-49dc8f855d04"
PRODUCERS = {*("_id", "aggregate_id", "aggregate_type", "task_type", "error"), *("created_at", "retry_count", "status")}


@pytest.fixture
def queue(scene: Scene) -> RepairQueue:
    scene.ensure_indexes()
    return RepairQueue(scene.database, scene.settings)


def test_a_task_that_is_added_has_the_producers_fields_and_types_and_no_other(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    assert queue.add(chat_id, " Chat ", "what went wrong")
    (added,) = scene.raw("repair_queue").find()
    document = found_in(scene.database.repair_queue)

    assert set(document) == PRODUCERS
    assert type(document["_id"]) is ObjectId
    assert type(document["retry_count"]) is int, "int32; an int64 comes as Int64"
    assert (document["aggregate_id"], document["aggregate_type"], document["status"]) == (chat_id, "chat", "pending")
    assert (document["task_type"], document["error"]) == ("readmodel_sync", "what went wrong")
    assert abs(document["created_at"].replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert added["retry_count"] == 0


@pytest.mark.parametrize("there", ["chat", " Chat ", "TASK\n", "task"])
def test_adding_coalesces_with_a_pending_task_of_the_same_stream(scene: Scene, queue: RepairQueue, there: str) -> None:
    chat_id = str(uuid4())
    put(scene, task(chat_id, aggregate_type=there, error="the first"))
    assert not queue.add(chat_id, "chat", "the second")

    (only,) = stored(scene)
    assert (only["aggregate_type"], only["error"]) == (there, "the second")


@pytest.mark.parametrize("status", ["processing", "completed", "failed"])
def test_adding_never_coalesces_with_a_task_in_work_or_ended(scene: Scene, queue: RepairQueue, status: str) -> None:
    chat_id = str(uuid4())
    put(scene, task(chat_id, status=status))
    assert queue.add(chat_id, "chat")
    assert queue.stats().pending == 1
    assert len(stored(scene)) == 2


def test_adding_does_not_coalesce_with_another_aggregate_or_kind_of_task(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    put(scene, task(str(uuid4())), task(chat_id, task_type="mail"), task(chat_id, aggregate_type="user"))
    assert queue.add(chat_id, "chat")
    assert len(stored(scene)) == 4


def test_legacy_tasks_and_chats_are_streams_of_their_own(legacy_scene: Scene) -> None:
    queue = RepairQueue(legacy_scene.database, legacy_scene.settings)
    one = str(uuid4())
    assert queue.add(one, "chat")
    assert queue.add(one, "task")
    assert queue.due(10).aggregates == {"chat": [one], "task": [one]}


def test_one_who_adds_much_at_once_leaves_few_tasks(queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    with ThreadPoolExecutor(8) as pool:
        added = sum(pool.map(lambda _: queue.add(chat_id, "chat"), range(80)))
    assert 1 <= added <= 8, "those that looked before the first one was there"
    assert queue.stats().pending == added


def test_a_full_queue_takes_no_more_and_says_what_to_do(scene: Scene) -> None:
    queue = RepairQueue(scene.database, scene.settings.model_copy(update={"repair_queue_limit": 3}))
    ids = [str(uuid4()) for _ in range(4)]
    for chat_id in ids[:3]:
        queue.add(chat_id, "chat")
    with pytest.raises(RepairQueueFull) as full:
        queue.add(ids[3], "chat")

    assert "READMODEL_REPAIR_QUEUE_LIMIT" in full.value.hint
    assert queue.stats().pending == 3
    assert not queue.add(ids[0], "chat"), "it only joins one that waits"
    scene.database.repair_queue.update_one({}, {"$set": {"status": "completed"}})
    assert queue.add(ids[3], "chat")


@pytest.mark.parametrize(("aggregate_id", "name"), [("x", "chat"), (SOME_ID.upper(), "chat"), (SOME_ID, "u")])
def test_what_no_repair_could_work_on_is_not_added(queue: RepairQueue, aggregate_id: str, name: str) -> None:
    with pytest.raises(UsageError):
        queue.add(aggregate_id, name)
    assert queue.stats().open == 0


def test_due_is_what_waits_for_nothing_the_oldest_first_each_aggregate_once(scene: Scene, queue: RepairQueue) -> None:
    now = datetime.now(UTC)
    old, new, waiting, held, lost = (str(uuid4()) for _ in range(5))
    put(
        scene,
        task(new, created_at=now),
        task(old, created_at=now - timedelta(hours=1)),
        task(new, aggregate_type="TASK ", created_at=now),
        task(waiting, next_attempt_at=now + timedelta(hours=1)),
        task(held, status="processing", lease_until=now + timedelta(seconds=200)),
        task(lost, status="processing", lease_until=now - timedelta(hours=1)),
        task(str(uuid4()), status="completed"),
        task(str(uuid4()), status="failed"),
        task(str(uuid4()), status="Pending"),
    )
    assert queue.due(10).aggregates == {"chat": [old, new, lost]}
    assert queue.due(1).aggregates == {"chat": [old]}
    assert queue.due(10, without=[old, lost]).aggregates == {"chat": [new]}
    assert queue.stats().due == 4


def test_what_names_no_aggregate_is_told_apart_by_its_reason(scene: Scene, queue: RepairQueue) -> None:
    good = str(uuid4())
    bad_ids: list[Any] = ["", "x", good.upper(), f" {good}", 7, None, ObjectId(), [good], {"id": good}]
    bad_types: list[Any] = ["", "user", "chats", "chat task", 7, None, ["chat"], "\u00a0chat"]
    put(scene, *(task(item) for item in bad_ids), *(task(good, aggregate_type=item) for item in bad_types))
    put(scene, *(task(good, task_type=item) for item in ("mail", "", None, "Readmodel_Sync", 7)))
    due = queue.due(100)

    assert due.aggregates == {}
    assert {reason: len(tasks) for reason, tasks in due.poison.items()} == {
        "bad_aggregate_id": len(bad_ids),
        "unknown_aggregate_type": len(bad_types),
        "unknown_task_type": 5,
    }
    for reason, tasks in due.poison.items():
        queue.make_dead_letters(tasks, reason, "in words", "a run")
    assert not queue.due(100)
    assert queue.stats().failed == len(bad_ids) + len(bad_types) + 5


def test_taking_takes_every_due_task_of_the_aggregate_and_no_other(scene: Scene, queue: RepairQueue) -> None:
    one, other = str(uuid4()), str(uuid4())
    later = datetime.now(UTC) + timedelta(hours=1)
    put(scene, task(one), task(one, _id="by hand", aggregate_type=" TASK"), task(one, status="processing"))
    put(scene, task(one, next_attempt_at=later), task(other), task(one, task_type="mail"), task(one, status="failed"))

    assert queue.claim("chat", [one], "token", "a run", 60) == 3
    taken = stored(scene, lease_token="token")  # noqa: S106 - no password
    assert {item["status"] for item in taken} == {"processing"}
    assert {item["claimed_by"] for item in taken} == {"a run"}
    assert all(item["lease_until"] > item["last_retry_at"] for item in taken)
    assert [item["attempts"][0]["reason"] for item in taken if "attempts" in item] == ["lease_lost"]
    assert queue.due(10).aggregates == {"chat": [other]}


def test_nothing_ends_but_under_the_token_it_was_taken_with(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    put(scene, task(chat_id))
    queue.claim("chat", [chat_id], "mine", "run 1", 60)
    queue.claim("chat", [chat_id], "theirs", "run 2", 60)

    assert queue.complete([chat_id], "mine") == 0
    assert queue.give_back([chat_id], "mine") == 0
    failed = queue.fail([Failure(chat_id, "key_held", "", [1.0])], "mine")
    assert (failed.retried, failed.dead_letters, failed.dead_ids) == (0, 0, set())
    assert stored(scene)[0]["status"] == "processing"
    assert queue.complete([chat_id], "theirs") == 1
    (done,) = stored(scene)
    assert done["status"] == "completed"
    assert done["completed_at"] >= done["last_retry_at"]
    assert not {"lease_token", "lease_until", "next_attempt_at"} & set(done)


def test_a_failure_waits_as_its_attempts_say_and_is_parked_after_the_last(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    put(scene, task(chat_id))
    for attempt, wait in enumerate((10.0, 20.0, 30.0), 1):
        scene.database.repair_queue.update_many({}, {"$unset": {"next_attempt_at": ""}})
        assert queue.claim("chat", [chat_id], f"token {attempt}", "a run", 60) == 1
        failed = queue.fail([Failure(chat_id, "key_held", "by another", [10.0, 20.0, 30.0])], f"token {attempt}")
        assert (failed.retried, failed.dead_letters) == (1, 0)
        (waiting,) = stored(scene)
        left = (waiting["next_attempt_at"].replace(tzinfo=UTC) - queue.now()).total_seconds()
        assert wait - 5 < left <= wait
        assert (waiting["status"], waiting["retry_count"], waiting["reason"]) == ("pending", attempt, "key_held")
        assert type(waiting["retry_count"]) is int
        assert not queue.due(10)
    scene.database.repair_queue.update_many({}, {"$unset": {"next_attempt_at": ""}})
    queue.claim("chat", [chat_id], "last", "a run", 60)
    failed = queue.fail([Failure(chat_id, "key_held", "by another", [10.0, 20.0, 30.0])], "last")

    assert (failed.retried, failed.dead_letters, failed.dead_ids) == (0, 1, {chat_id})
    (parked,) = stored(scene)
    assert (parked["status"], parked["retry_count"], len(parked["attempts"])) == ("failed", 4, 4)
    assert parked["attempts"][-1]["detail"] == "by another"
    assert "next_attempt_at" not in parked


def test_the_tasks_of_one_aggregate_spend_their_own_attempts(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    counts: list[Any] = [0, 1, 7, Int64(1), 1.0, None, "many", -3]
    put(scene, *(task(chat_id, _id=position, retry_count=count) for position, count in enumerate(counts)))
    queue.claim("chat", [chat_id], "token", "a run", 60)
    failed = queue.fail([Failure(chat_id, "key_held", "", [1.0, 2.0])], "token")

    assert (failed.retried, failed.dead_letters, failed.dead_ids) == (7, 1, {chat_id})
    after = {item["_id"]: item["retry_count"] for item in stored(scene)}
    assert after == {0: 1, 1: 2, 2: 8, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1}


def test_the_history_of_attempts_is_bounded(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    put(scene, task(chat_id, attempts="no list"))
    for attempt in range(14):
        queue.claim("chat", [chat_id], str(attempt), "a run", 60)
        queue.fail([Failure(chat_id, "key_held", f"{attempt} {'x' * 2_000}", [0.0] * 20)], str(attempt))
    (waiting,) = stored(scene)
    assert [item["detail"][:2].strip() for item in waiting["attempts"]] == [str(number) for number in range(4, 14)]
    assert max(len(item["detail"]) for item in waiting["attempts"]) <= 500


def test_dead_letters_come_back_one_by_reason_or_all(scene: Scene, queue: RepairQueue) -> None:
    put(scene, task("x", _id="text"), task("y"), task(str(uuid4()), aggregate_type="user"))
    for reason, tasks in queue.due(10).poison.items():
        queue.make_dead_letters(tasks, reason, "", "a run")
    by_object_id = next(item for item in stored(scene) if isinstance(item["_id"], ObjectId))

    assert queue.requeue(task_id="text") == 1
    assert queue.requeue(reason="bad_aggregate_id") == 1
    assert queue.requeue(reason="no such reason") == 0
    assert queue.requeue(all_failed=True) == 1
    assert queue.requeue(task_id=str(by_object_id["_id"])) == 1, "one that waits already: at once, then"
    # One that was completed comes back, too, and does not expire.
    ended = {"_id": "done", "status": "completed", "completed_at": datetime.now(UTC), "attempts": ["the first"]}
    put(scene, task(str(uuid4()), **ended))
    assert queue.requeue(task_id="done") == 1
    for item in stored(scene):
        assert (item["status"], item["retry_count"]) == ("pending", 0)
        assert not {"reason", "next_attempt_at", "completed_at"} & set(item)
        assert item["attempts"], "what was tried is not forgotten"


def test_what_is_in_work_or_not_there_is_not_requeued(scene: Scene, queue: RepairQueue) -> None:
    put(scene, task(str(uuid4()), _id="in work", status="processing"))
    wrong: list[dict[str, Any]] = [{"task_id": "in work"}, {"task_id": "gone"}, {}, {"all_failed": True, "reason": "x"}]
    for asked in wrong:
        with pytest.raises(UsageError):
            queue.requeue(**asked)


def test_purging_deletes_what_ended_so_long_ago_and_nothing_else(scene: Scene, queue: RepairQueue) -> None:
    now = datetime.now(UTC)
    for status in ("pending", "processing", "completed", "failed"):
        for days in (1, 3):
            ended = now - timedelta(days=days)
            put(scene, task(str(uuid4()), status=status, completed_at=ended, last_retry_at=ended))
    assert queue.purge("completed", 2) == 1
    assert queue.purge("failed", 2) == 1
    assert queue.purge("completed") == queue.purge("failed") == 1
    assert queue.stats().open == 4


def test_the_numbers_are_those_of_the_tasks(scene: Scene, queue: RepairQueue) -> None:
    assert queue.stats().as_json() == {
        **dict.fromkeys(("pending", "processing", "completed", "failed", "other", "due"), 0),
        "oldest_pending_seconds": 0.0,
        "repairs_per_minute": 0.0,
        "dead_letters": {},
    }
    now = datetime.now(UTC)
    put(scene, task("a", created_at=now - timedelta(hours=2)), task("b"), task("c", status="processing"))
    put(scene, *(task(str(n), status="completed", completed_at=now) for n in range(10)))
    put(scene, task("d", status="completed", completed_at=now - timedelta(hours=1)))
    put(scene, task("e", status="failed", reason="bad_field"), task("f", status="failed"), task("g", status="lost"))
    stats = queue.stats()
    assert (stats.pending, stats.processing, stats.completed, stats.failed, stats.other) == (2, 1, 11, 2, 1)
    assert (stats.due, stats.open) == (3, 3)
    assert 7_190 < stats.oldest_pending_seconds < 7_260
    assert stats.repairs_per_minute == 2.0
    assert stats.dead_letters == {"bad_field": 1, "unknown": 1}


def index(scene: Scene, name: str) -> dict[str, Any]:
    return dict(next(item for item in scene.database.repair_queue.list_indexes() if item["name"] == name))


def test_completed_tasks_expire_and_only_those_and_a_changed_setting_is_put_in_force(scene: Scene) -> None:
    scene.ensure_indexes()
    made = index(scene, "retention_of_completed")
    assert made["expireAfterSeconds"] == 14 * 86_400
    assert made["partialFilterExpression"] == {"status": "completed"}

    scene.settings = scene.settings.model_copy(update={"repair_retention_days": 1.5})
    scene.ensure_indexes()
    scene.ensure_indexes()
    assert index(scene, "retention_of_completed")["expireAfterSeconds"] == 129_600


def test_producers_may_insert_the_same_task_again_and_again(scene: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    put(scene, *(task(chat_id) for _ in range(3)))
    unique = [item["name"] for item in scene.database.repair_queue.list_indexes() if item.get("unique")]
    assert unique == []
    with pytest.raises(DuplicateKeyError):
        scene.database.repair_queue.insert_one(stored(scene)[0])


def test_looking_for_what_is_due_and_taking_it_read_the_indexes_made_for_them(scene: Scene, queue: RepairQueue) -> None:
    ids = [str(uuid4()) for _ in range(20)]
    put(scene, *(task(ids[n % 20], status="completed", completed_at=datetime.now(UTC)) for n in range(2_000)))
    put(scene, *(task(chat_id) for chat_id in ids))
    tasks = scene.database.repair_queue
    due = tasks.find(pending_until(queue.now())).sort([("next_attempt_at", 1), ("created_at", 1)]).explain()
    assert due["executionStats"]["totalDocsExamined"] == 20
    assert "SORT" not in str(due["queryPlanner"]["winningPlan"])

    queue.claim("chat", ids[:5], "token", "a run", 60)
    ended = tasks.find(under("token", ids[:5])).explain()
    assert ended["executionStats"]["totalDocsExamined"] == 5


def test_the_newest_of_its_tasks_tells_if_an_aggregate_waits_for_a_person(scene: Scene, queue: RepairQueue) -> None:
    then, now = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    waits, repaired, dead, other = (str(uuid4()) for _ in range(4))
    put(scene, task(waits, created_at=then), task(waits, created_at=now, status="failed"))
    put(scene, task(repaired, created_at=then, status="failed"), task(repaired, created_at=now, status="completed"))
    put(scene, task(dead, created_at=then, status="completed"), task(dead, created_at=now, status="failed"))
    put(scene, task([other], status="failed"))
    assert queue.known([waits, repaired, dead, other], "task") == ({waits}, {dead})
