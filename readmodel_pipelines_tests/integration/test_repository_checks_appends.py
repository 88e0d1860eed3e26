"""Saving looks ahead: what the fold could never take is refused before it is appended, at the price of one read."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from readmodel_pipelines import EventRepository, NewEvent, RepairQueue, RepairWorker
from readmodel_pipelines.errors import ConcurrencyConflict, EventRefused, UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.integration.conftest import scene_of
from readmodel_pipelines_tests.support.at_a_moment import At, once
from readmodel_pipelines_tests.support.scene import Mongo, Scene, found_in

SOME_ID = "c1ff5917-b7aa-4647-93c3-49dc8f855d04"
CREATED = NewEvent("chat.created", {"workspace_id": "w", "type": "task", "is_public": True, "created_by": "u"})
TAKES_NOTHING = """
from readmodel_pipelines import CHAT_FOLD, Projection

def fails(chat_id, chat):
    raise KeyError(chat_id)

READ_MODELS = (Projection("picky", "picky_read_model", CHAT_FOLD, "chat_id", ("chat_id",), fails),)
"""


def renamed(title: Any) -> NewEvent:
    return NewEvent("chat.renamed", {"new_title": title})


def other(value: Any) -> NewEvent:
    """In a field that no fold reads."""
    return NewEvent("chat.renamed", {"old_title": value})


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


def failing(_: str) -> None:
    raise RuntimeError


@pytest.fixture
def ready(scene: Scene) -> Scene:
    scene.index()
    return scene


@pytest.fixture(scope="module")
def refusing(opened: Mongo, read_once: Settings) -> Iterator[Scene]:
    """One for all that is refused: each test looks whether nothing was saved."""
    for scene in scene_of(opened, read_once.model_copy(update={"database": "repository_foresees"})):
        scene.ensure_indexes()
        yield scene


def repository(scene: Scene, **changed: Any) -> EventRepository:
    return EventRepository(scene.database, scene.settings.model_copy(update=changed))


JOINS = NewEvent("chat.participant_added", {"user_id": "x" * 9_000_000})
REFUSED: dict[str, list[NewEvent]] = {
    "a field of another type": [CREATED, renamed(5)],
    "one that is sound, and one that is not": [CREATED, renamed("a"), NewEvent("chat.closed"), renamed([])],
    "no created event": [renamed("tea")],
    "a time that is none": [NewEvent("chat.created", {**CREATED.data, "created_at": "yesterday"})],
    "a part of a number": [CREATED, NewEvent("chat.attachment_added", {"file_size": 1.5})],
    "no number": [CREATED, NewEvent("chat.attachment_added", {"file_size": float("nan")})],
    "a number that no double holds": [CREATED, other(10**400)],
    "a type that is not BSON's": [CREATED, other({1, 2})],
    "an id of Python's": [CREATED, other(uuid4())],
    "a text that is no UTF-8": [CREATED, other("\ud83d")],
    "a name that is no text": [CREATED, other({1: 2})],
    "data that is no document": [NewEvent("chat.created", cast(Any, 5))],
    "an event of more than 16 MiB": [CREATED, other("x" * 17_000_000)],
    "a document of more than 16 MiB": [CREATED, JOINS, JOINS],
    "nested too deep": [CREATED, other(nested(300))],
    "an unknown type": [CREATED, NewEvent("chat.exploded")],
    "a type that is no text": [CREATED, NewEvent(cast(Any, ["chat.renamed"]))],
}


@pytest.mark.each_once
@pytest.mark.parametrize("project", [None, failing], ids=["our projector", "its own"])
@pytest.mark.parametrize("events", REFUSED.values(), ids=REFUSED)
def test_an_event_that_no_fold_can_take_is_refused_and_nothing_is_saved(
    refusing: Scene, events: list[NewEvent], project: Callable[[str], object] | None
) -> None:
    with pytest.raises(EventRefused) as refused:
        EventRepository(refusing.database, refusing.settings, project=project).save(
            SOME_ID, "chat", events, expected_version=0
        )

    assert refused.value.hint
    for name in ("events", "repair_queue", "chats_read_model"):
        assert refusing.database[name].count_documents({}) == 0


def test_nothing_is_appended_to_a_stream_that_is_malformed(ready: Scene) -> None:
    chat_id = ready.chat("one", ("chat.exploded", {}))
    with pytest.raises(EventRefused):
        repository(ready).save(chat_id, "chat", [renamed("tea")], expected_version=3)

    lets_pass = repository(ready, allow_malformed=frozenset({"unknown_event_type"}))
    assert lets_pass.save(chat_id, "chat", [renamed("tea")], expected_version=3).projected


@pytest.mark.parametrize("version", [-1, 1.0, "0", None, True], ids=repr)
def test_a_version_that_no_stream_can_be_at_is_refused(ready: Scene, version: Any) -> None:
    with pytest.raises(UsageError):
        repository(ready).save(SOME_ID, "chat", [CREATED], expected_version=version)
    assert ready.events.count_documents({}) == 0


def test_a_claim_on_a_key_that_is_taken_is_refused_and_stops_no_stream_that_is_there(legacy_scene: Scene) -> None:
    legacy_scene.ensure_indexes()
    saver, first = repository(legacy_scene), str(uuid4())
    created = NewEvent("task.created", {"ChatID": "c", "Title": "tea"})
    assert saver.save(first, "task", [created], expected_version=0).projected
    with pytest.raises(EventRefused):
        saver.save(str(uuid4()), "task", [created], expected_version=0)

    legacy_scene.task("another", "c")
    assert not saver.save(first, "task", [NewEvent("task.updated")], expected_version=1).projected
    RepairWorker(legacy_scene.database, legacy_scene.settings).work()
    assert RepairQueue(legacy_scene.database, legacy_scene.settings).stats().dead_letters == {"key_conflict": 1}


def test_an_added_read_model_that_cannot_take_an_event_stops_nobody(ready: Scene, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(TAKES_NOTHING)
    saver = repository(ready, projections=(str(tmp_path / "picky.py"),))
    assert not saver.save(SOME_ID, "chat", [CREATED], expected_version=0).projected

    assert found_in(ready.chats)["chat_id"] == SOME_ID
    assert RepairQueue(ready.database, ready.settings).stats().pending == 1


def test_a_stream_is_read_once_by_who_saves_to_it(ready: Scene, at: At) -> None:
    chat_id, read = ready.chat("one"), list[Any]()
    at(Moment.EVENTS, lambda ids: read.append(ids))
    assert repository(ready).save(chat_id, "chat", [renamed("tea")], expected_version=2).projected
    assert read == [[chat_id]]


@pytest.mark.parametrize("moment", [Moment.DOCUMENTS, Moment.EVENTS])
def test_what_others_append_while_it_looks_is_a_conflict(ready: Scene, at: At, moment: Moment) -> None:
    chat_id = ready.chat("one")
    at(moment, once(lambda: ready.append(chat_id, ("chat.renamed", {"new_title": "theirs"}))))
    with pytest.raises(ConcurrencyConflict):
        repository(ready).save(chat_id, "chat", [renamed("ours")], expected_version=2)
    assert ready.events.count_documents({}) == 3


EAST, WEST = timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=5))
TIMES: dict[str, tuple[datetime, str]] = {
    "the year 1": (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    "without a zone": (datetime(999, 12, 31, 23, 59, 59, 999_999), "0999-12-31T23:59:59.999999Z"),  # noqa: DTZ001
    "an offset": (datetime(2026, 3, 1, 1, 2, 3, 4, tzinfo=EAST), "2026-02-28T19:32:03.000004Z"),
    "before the year 1 in UTC": (datetime(1, 1, 1, tzinfo=EAST), "0001-01-01T00:00:00.000000+05:30"),
    "the last moment": (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    "behind it in UTC": (datetime.max.replace(tzinfo=WEST), "9999-12-31T23:59:59.999999-05:00"),
}


@pytest.mark.parametrize(("moment", "text"), TIMES.values(), ids=TIMES)
def test_every_datetime_is_a_time_that_the_fold_takes(ready: Scene, moment: datetime, text: str) -> None:
    due = NewEvent("chat.due_date_set", {"new_due_date": moment})
    assert repository(ready).save(SOME_ID, "chat", [CREATED, due], expected_version=0).projected

    assert found_in(ready.events, {"version": 2})["data"]["new_due_date"] == text
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since_1970 = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert int(found_in(ready.chats)["due_date"]) == since_1970


def test_what_is_looked_at_behind_the_append_is_what_a_majority_has(ready: Scene, at: At) -> None:
    chat_id = str(uuid4())
    repository(ready).save(chat_id, "chat", [CREATED, renamed("tea")], expected_version=0)
    # One read model is right already, the document of the other one is late.
    at(Moment.APPEND, once(lambda: ready.tasks.update_one({}, {"$set": {"version": 1}})))
    with ready.profiled() as work:
        assert repository(ready).save(chat_id, "chat", [other("x")], expected_version=2).projected

    asked = [item for item in work if item["ns"] == ready.events.full_name and item["op"] in ("query", "command")]
    appended = next(item["ts"] for item in work if item["op"] == "insert")
    behind = [item["command"]["readConcern"]["level"] for item in asked if item["ts"] >= appended]
    assert behind
    assert set(behind) == {"majority"}
    assert ready.verify().ok
