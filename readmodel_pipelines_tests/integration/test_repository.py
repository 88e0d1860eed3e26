"""What applications call: saving events with their read models, and queueing a repair where the update fails."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from pymongo.errors import AutoReconnect

from readmodel_pipelines import EventRepository, NewEvent, RepairQueue, RepairWorker, repair_on_failure
from readmodel_pipelines.errors import ConcurrencyConflict, RepairNotQueued, RepairQueueFull, UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines_tests.support.at_a_moment import At
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.faulty_read_models import HALF, Mute
from readmodel_pipelines_tests.support.pages.blocks import PAGES, blocks_of
from readmodel_pipelines_tests.support.scene import Scene, found_in, typed

SOME_ID = "c1ff5917-b7aa-4647-93c3-49dc8f855d04"
CREATED = NewEvent(
    "chat.created",
    {
        "workspace_id": "w",
        "type": "task",
        "is_public": True,
        "created_by": "u",
        "created_at": datetime(2026, 11, 24, tzinfo=UTC),
    },
)


def renamed(title: str) -> NewEvent:
    return NewEvent("chat.renamed", {"old_title": "", "new_title": title, "renamed_by": "u"})


def failing(_: str) -> None:
    raise AutoReconnect("the socket was closed")


@pytest.fixture
def ready(scene: Scene) -> Scene:
    scene.index()
    return scene


@pytest.fixture
def queue(ready: Scene) -> RepairQueue:
    return RepairQueue(ready.database, ready.settings)


def repository(scene: Scene, project: Callable[[str], object] | None = None) -> EventRepository:
    return EventRepository(scene.database, scene.settings, project=project)


def test_saved_events_are_projected_at_once(ready: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    saved = repository(ready).save(chat_id, "chat", [CREATED, renamed("tea")], expected_version=0)
    assert (saved.version, saved.projected) == (2, True)
    again = repository(ready).save(chat_id, "chat", [renamed("coffee")], expected_version=2)

    assert (again.version, again.projected) == (3, True)
    assert found_in(ready.chats, {"chat_id": chat_id})["title"] == "coffee"
    assert found_in(ready.tasks, {"task_id": chat_id})["version"] == 3
    assert ready.verify().ok
    assert queue.stats().open == 0


def test_saved_events_have_the_form_and_the_types_of_the_application_s_own(ready: Scene) -> None:
    chat_id = str(uuid4())
    attached = NewEvent(
        "chat.attachment_added",
        {"file_id": "f", "file_name": "a", "file_size": 7, "mime_type": "text/plain", "added_by": "u"},
        traces={"user_id": "u", "correlation_id": "c"},
    )
    repository(ready).save(chat_id, "chat", [CREATED, attached], expected_version=0)
    event = found_in(ready.events, {"version": 2})

    assert typed(event["version"]) == typed(2)
    assert event["aggregate_type"] == "Chat"
    assert typed(event["data"]["file_size"]) == typed(7.0)
    assert typed(event["data"]["version"]) == typed(2.0)
    assert event["data"]["occurred_at"].endswith("Z")
    assert event["metadata"]["correlation_id"] == "c"
    assert event["metadata"]["user_id"] == event["data"]["metadata"]["user_id"] == "u"
    assert set(event) == {
        *("_id", "aggregate_id", "aggregate_type", "event_type", "version"),
        *("data", "metadata", "occurred_at", "created_at"),
    }


def test_legacy_streams_of_tasks_are_saved_and_projected_by_their_own_name(legacy_scene: Scene) -> None:
    legacy_scene.ensure_indexes()
    task_id = str(uuid4())
    created = NewEvent("task.created", {"ChatID": str(uuid4()), "Title": "tea", "EntityType": "task", "DueDate": None})
    assert repository(legacy_scene).save(task_id, "task", [created], expected_version=0).projected

    assert found_in(legacy_scene.events)["aggregate_type"] == "Task"
    assert found_in(legacy_scene.tasks)["title"] == "tea"
    assert legacy_scene.verify().ok


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_stream_that_moved_on_is_a_conflict_and_nothing_is_saved(ready: Scene, expected: int) -> None:
    chat_id = str(uuid4())
    repository(ready).save(chat_id, "chat", [CREATED, renamed("tea")], expected_version=0)
    before = ready.dump()

    with pytest.raises(ConcurrencyConflict) as conflict:
        repository(ready).save(chat_id, "chat", [renamed("a"), renamed("b")], expected_version=expected)
    assert "save again" in conflict.value.hint
    assert ready.dump() == before


def test_of_writers_at_once_one_wins_each_version_and_no_stream_has_a_hole(ready: Scene) -> None:
    chat_id = str(uuid4())
    repository(ready).save(chat_id, "chat", [CREATED], expected_version=0)

    def write(name: int) -> int:
        wins = 0
        for version in range(1, 9):
            try:
                repository(ready).save(chat_id, "chat", [renamed(f"{name}")], expected_version=version)
                wins += 1
            except ConcurrencyConflict:
                pass
        return wins

    with ThreadPoolExecutor(6) as pool:
        wins = sum(pool.map(write, range(6)))
    versions = [event["version"] for event in ready.events.find({"aggregate_id": chat_id}, sort=[("version", 1)])]
    assert versions == list(range(1, wins + 2))
    assert wins >= 1
    RepairWorker(ready.database, ready.settings).work()
    assert ready.verify().ok


def test_an_earlier_write_that_lands_before_the_append_is_put_right(ready: Scene, at: At) -> None:
    chat_id = str(uuid4())
    repository(ready).save(chat_id, "chat", [CREATED, renamed("tea")], expected_version=0)

    def write_late(**_: object) -> None:
        ready.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "coffee"}})

    # The last event but one has no effect that the last one leaves, and its writer is late.
    repository(ready).save(chat_id, "chat", [renamed("coffee")], expected_version=2)
    ready.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "tea"}})
    at(Moment.APPEND, write_late)
    assert repository(ready).save(chat_id, "chat", [renamed("tea")], expected_version=3).projected
    assert found_in(ready.chats)["title"] == "tea"


def test_an_earlier_write_that_is_late_for_a_deletion_is_taken_back(ready: Scene, at: At) -> None:
    chat_id = str(uuid4())
    repository(ready).save(chat_id, "chat", [CREATED], expected_version=0)
    document = found_in(ready.tasks)
    ready.tasks.delete_one({})
    at(Moment.APPEND, lambda **_: ready.tasks.insert_one(document))
    deleted = NewEvent("chat.deleted", {"deleted_by": "u", "reason": ""})
    assert repository(ready).save(chat_id, "chat", [deleted], expected_version=1).projected
    assert ready.tasks.count_documents({}) == 0


@pytest.mark.parametrize(
    ("aggregate_id", "aggregate_type", "events"),
    [
        ("nobody", "chat", [CREATED]),
        (SOME_ID.upper(), "chat", [CREATED]),
        (SOME_ID, "task", [CREATED]),
        (SOME_ID, "Chat", [CREATED]),
        (SOME_ID, "chat", []),
        (SOME_ID, "chat", [CREATED, NewEvent("chat.exploded")]),
        (SOME_ID, "chat", [NewEvent("task.created")]),
    ],
)
def test_what_would_make_a_malformed_stream_is_refused(
    ready: Scene, aggregate_id: str, aggregate_type: str, events: list[NewEvent]
) -> None:
    with pytest.raises(UsageError):
        repository(ready).save(aggregate_id, aggregate_type, events, expected_version=0)
    assert ready.events.count_documents({}) == 0


def test_a_failed_update_is_queued_and_told_and_the_worker_mends_it(ready: Scene, queue: RepairQueue) -> None:
    chat_id = str(uuid4())
    saved = repository(ready, failing).save(chat_id, "chat", [CREATED], expected_version=0)
    again = repository(ready, failing).save(chat_id, "chat", [renamed("tea")], expected_version=1)

    assert (saved.version, saved.projected, again.projected) == (1, False, False)
    (task,) = queue.tasks()
    assert (task["aggregate_id"], task["aggregate_type"], task["status"]) == (chat_id, "chat", "pending")
    assert task["error"] == "AutoReconnect: the socket was closed"
    assert not ready.verify().ok
    assert RepairWorker(ready.database, ready.settings).work().completed == 1
    assert ready.verify().ok


def test_a_full_queue_is_told_to_the_producer_with_what_was_saved(ready: Scene) -> None:
    settings = ready.settings.model_copy(update={"repair_queue_limit": 1})
    first, second = str(uuid4()), str(uuid4())
    saver = EventRepository(ready.database, settings, project=failing)
    assert not saver.save(first, "chat", [CREATED], expected_version=0).projected
    with pytest.raises(RepairNotQueued) as told:
        saver.save(second, "chat", [CREATED], expected_version=0)

    assert isinstance(told.value.__cause__, AutoReconnect)
    assert "1 open tasks" in told.value.message
    assert "rebuild-readmodel" in told.value.hint
    assert ready.events.count_documents({"aggregate_id": second}) == 1
    with pytest.raises(RepairQueueFull):
        RepairQueue(ready.database, settings).add(second, "chat")
    # One that waits already takes the failure in, however full the queue is.
    assert not saver.save(first, "chat", [renamed("tea")], expected_version=1).projected


def test_a_write_path_of_its_own_is_wrapped(ready: Scene, queue: RepairQueue) -> None:
    chat_id = ready.chat("one")
    with repair_on_failure(queue, chat_id, "task") as good:
        pass
    assert not good.failed
    assert queue.stats().open == 0

    with repair_on_failure(queue, chat_id, "task") as bad:
        raise ValueError("what a read model can fail with")
    assert bad.failed
    (task,) = queue.tasks()
    assert (task["aggregate_type"], task["error"]) == ("task", "ValueError: what a read model can fail with")


@pytest.mark.parametrize("error", [ValueError(HALF), Mute(), UnicodeEncodeError("utf-8", HALF, 0, 1, HALF)], ids=ascii)
def test_a_repair_is_queued_in_whatever_words_an_update_fails(
    ready: Scene, queue: RepairQueue, error: Exception
) -> None:
    chat_id, other = str(uuid4()), ready.chat("one")

    def fail(_: str) -> None:
        raise error

    assert not repository(ready, fail).save(chat_id, "chat", [CREATED], expected_version=0).projected
    with repair_on_failure(queue, other, "chat") as update:
        raise error
    assert update.error is error
    assert queue.add_many([ready.chat("two")], "chat", HALF) == (1, 0)

    tasks = list(queue.tasks())
    assert [task["error"].split(":")[0] for task in tasks[:2]] == [type(error).__name__] * 2
    assert len(tasks) == 3


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_meanwhile_is_queued(ready: Scene, queue: RepairQueue, ending: type[BaseException]) -> None:
    chat_id = ready.chat("one")
    with pytest.raises(ending), repair_on_failure(queue, chat_id, "chat"):
        raise ending
    assert queue.stats().pending == 1


@pytest.mark.parametrize(("aggregate_id", "aggregate_type"), [("x", "chat"), (SOME_ID, "chart")])
def test_a_wrong_name_is_told_before_the_update(queue: RepairQueue, aggregate_id: str, aggregate_type: str) -> None:
    updated = False
    with pytest.raises(UsageError), repair_on_failure(queue, aggregate_id, aggregate_type):
        updated = True
    assert not updated


def run_example(containing: str, **names: Any) -> dict[str, Any]:
    """Run the example of repairing.md that has this in it, as it stands."""
    page = next(page for page in PAGES if page.name == "repairing.md")
    (example,) = (block.code for block in blocks_of(page, "python") if containing in block.code)
    exec(compile(example, page.name, "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_example_of_saving_in_the_documents_works(ready: Scene) -> None:
    chat_id = ready.chat("one")
    ready.append(chat_id, *[("chat.renamed", {"new_title": f"{number}"}) for number in range(5)])
    about = {"database": ready.database, "settings": ready.settings, "chat_id": chat_id}
    names = run_example("EventRepository", **about, your_own_update=failing)

    assert names["saved"].version == 8
    assert found_in(ready.chats, {"chat_id": chat_id})["title"] == "Tea"
    assert RepairQueue(ready.database, ready.settings).stats().pending == 1


def test_the_example_of_projecting_in_the_documents_works(ready: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    chat_id = ready.chat("one")
    name_database(monkeypatch, ready.settings)
    run_example("rebuild_all", aggregate_id=chat_id, event=found_in(ready.database.events, {"aggregate_id": chat_id}))

    assert found_in(ready.chats, {"chat_id": chat_id})["title"] == "one"
