"""The public API: what each method refuses, and what an event handler gets."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from bson import Int64, ObjectId
from pymongo.write_concern import WriteConcern

from readmodel_pipelines.errors import AggregateNotFound, UsageError, WrongAggregateType
from readmodel_pipelines.mongo import arrival
from readmodel_pipelines_tests.support.scene import Scene, event, found_in

NOBODY = "00000000-0000-4000-a000-000000000000"
CHATS, TASKS = "chats_read_model", "tasks_read_model"


@pytest.fixture
def chat_id(scene: Scene) -> str:
    scene.index()
    return str(scene.chat("one"))


@pytest.mark.each_once
@pytest.mark.parametrize(
    "wrong",
    [
        *("", "nobody", "6f1c", NOBODY[:-1], NOBODY + "0", NOBODY.replace("-", ""), "*", "a\0"),
        *(None, 7, ObjectId("6b04ac7488e4dd37f7169d64"), b"x", ["x"], {"$ne": None}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["rebuild_one", "verify_consistency"])
def test_an_id_that_is_no_text_or_no_uuid_is_refused(scene: Scene, chat_id: str, method: str, wrong: Any) -> None:
    before = scene.dump()
    with pytest.raises(UsageError):
        getattr(scene.projector(), method)(wrong)
    assert scene.dump() == before


def test_an_id_may_be_padded_and_in_capitals(scene: Scene, chat_id: str) -> None:
    assert scene.rebuild_one(f" {chat_id.upper()}\n").read_models[CHATS].inserted == 1
    assert scene.verify_one(chat_id.upper()).ok


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_id_with_neither_event_nor_document_is_not_found(scene: Scene, chat_id: str, dry_run: bool) -> None:
    with pytest.raises(AggregateNotFound):
        scene.rebuild_one(NOBODY, dry_run=dry_run)
    with pytest.raises(AggregateNotFound):
        scene.verify_one(NOBODY)


def test_an_id_with_a_document_alone_is_an_orphan(scene: Scene, chat_id: str) -> None:
    scene.build()
    scene.chats.insert_one({**found_in(scene.chats, {}, {"_id": 0}), "chat_id": NOBODY})

    assert [item.outcome for item in scene.verify_one(NOBODY).findings] == ["orphan"]
    assert scene.rebuild_one(NOBODY, dry_run=True).read_models[CHATS].deleted == 1
    assert scene.rebuild_one(NOBODY).read_models[CHATS].deleted == 1
    with pytest.raises(AggregateNotFound):
        scene.rebuild_one(NOBODY)


def test_the_events_of_another_read_model_are_no_events(legacy_scene: Scene) -> None:
    legacy_scene.index()
    task, chat = legacy_scene.task("task", "chat"), legacy_scene.chat("chat")

    with pytest.raises(AggregateNotFound):
        legacy_scene.rebuild_one(task, "chat")
    with pytest.raises(AggregateNotFound):
        legacy_scene.rebuild_one(chat, "task")
    assert legacy_scene.rebuild_one(task).read_models[TASKS].inserted == 1


def test_an_unknown_read_model_is_refused(scene: Scene) -> None:
    with pytest.raises(UsageError):
        scene.projector("chat", "nobody")


@pytest.mark.parametrize("spelling", ["Chat", "chat"])
def test_an_event_brings_the_documents_of_its_aggregate_up_to_date(scene: Scene, chat_id: str, spelling: str) -> None:
    scene.append(chat_id, ("chat.renamed", {"new_title": "newer"}))
    summary = scene.projector().process_event({"aggregate_id": chat_id, "aggregate_type": spelling})

    assert summary.ok
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "newer"
    assert found_in(scene.tasks, {"task_id": chat_id})["version"] == 3
    # A second delivery, and one of an older event, change nothing.
    before = scene.dump()
    scene.projector().process_event(dict(found_in(scene.events, {"aggregate_id": chat_id, "version": 1})))
    assert scene.dump() == before


def test_an_event_that_no_majority_has_yet_is_waited_for(scene: Scene, chat_id: str) -> None:
    unwaited = scene.events.with_options(write_concern=WriteConcern(w=1))
    for version in range(3, 15):
        appended = event(chat_id, "Chat", version, "chat.renamed", {"new_title": f"{version}"})
        unwaited.insert_one(appended)
        assert scene.projector().process_event(appended).ok
        assert found_in(scene.chats, {"chat_id": chat_id})["title"] == f"{version}"


def test_an_event_that_comes_late_is_waited_for_and_no_longer(
    scene: Scene, chat_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 3:
            scene.append(chat_id, ("chat.renamed", {"new_title": "late"}))

    monkeypatch.setattr(arrival, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
    late = {"aggregate_id": chat_id, "aggregate_type": "Chat", "version": 3.0}
    assert scene.projector().process_event(late).ok
    assert paused == sorted(set(paused))
    assert len(paused) == 3
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "late"


NEVER: dict[str, tuple[Any, str]] = {
    "one that never comes": (4, "event_not_there"),
    "as int64": (Int64(4), "event_not_there"),
    "as a double": (4.0, "event_not_there"),
    **{f"version {odd!r}": (odd, "bad_version") for odd in ("3", 1.5, 0, -1, True, float("nan"), 2**64, [3])},
}


@pytest.mark.parametrize(("version", "reason"), NEVER.values(), ids=NEVER)
def test_an_event_that_is_not_there_is_no_success(scene: Scene, chat_id: str, version: Any, reason: str) -> None:
    scene.append(chat_id, ("chat.renamed", {"new_title": "newer"}))
    given = {"aggregate_id": chat_id, "aggregate_type": "Chat", "version": version}
    summary = scene.projector().process_event(given, wait_seconds=0)

    assert not summary.ok
    assert {(item.read_model, item.reason, item.failed) for item in summary.findings} == {
        (CHATS, reason, True),
        (TASKS, reason, True),
    }
    # What is there of the stream is in its documents all the same.
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "newer"
    assert not scene.projector().process_event(given, wait_seconds=0).ok


def test_an_event_of_an_aggregate_that_never_comes_is_told(scene: Scene, chat_id: str) -> None:
    with pytest.raises(AggregateNotFound):
        scene.projector().process_event(
            {"aggregate_id": NOBODY, "aggregate_type": "Chat", "version": 1}, wait_seconds=0
        )
    scene.append(chat_id, ("chat.exploded", {}))
    exploded = {"aggregate_id": chat_id, "aggregate_type": "Chat", "version": 7}
    summary = scene.projector("chat").process_event(exploded, wait_seconds=0)
    assert [item.reason for item in summary.findings] == ["unknown_event_type"]


def test_an_event_that_is_not_there_is_missing_in_what_is_made_of_its_streams_alone(legacy_scene: Scene) -> None:
    legacy_scene.index()
    chat_id = legacy_scene.chat("chat")
    given = {"aggregate_id": chat_id, "aggregate_type": "Chat", "version": 9}
    summary = legacy_scene.projector().process_event(given, wait_seconds=0)
    assert [counts.failed for counts in summary.read_models.values()] == [1, 0]


@pytest.mark.parametrize("wrong", ["Task", "task", "User", "", None, "CHAT", ["Chat"]], ids=repr)
def test_an_event_of_another_aggregate_type_is_refused(scene: Scene, chat_id: str, wrong: Any) -> None:
    before = scene.dump()
    with pytest.raises(WrongAggregateType):
        scene.projector().process_event({"aggregate_id": chat_id, "aggregate_type": wrong})
    assert scene.dump() == before


def test_a_chat_event_is_no_event_of_legacy_tasks(legacy_scene: Scene) -> None:
    legacy_scene.index()
    chat_id, task_id = legacy_scene.chat("chat"), legacy_scene.task("task", "chat")
    with pytest.raises(WrongAggregateType):
        legacy_scene.projector("task").process_event({"aggregate_id": chat_id, "aggregate_type": "Chat"})
    with pytest.raises(WrongAggregateType):
        legacy_scene.projector("chat").process_event({"aggregate_id": task_id, "aggregate_type": "Task"})
    for aggregate_id, kind in ((chat_id, "Chat"), (task_id, "Task")):
        legacy_scene.projector().process_event({"aggregate_id": aggregate_id, "aggregate_type": kind})
    assert legacy_scene.verify().ok


@pytest.mark.parametrize("wrong", [None, ObjectId("6b04ac7488e4dd37f7169d64"), 7, "nobody"], ids=repr)
def test_an_event_with_an_odd_id_is_refused(scene: Scene, chat_id: str, wrong: Any) -> None:
    with pytest.raises(UsageError):
        scene.projector().process_event({"aggregate_id": wrong, "aggregate_type": "Chat"})


def test_an_event_of_an_id_in_capitals_does_not_pass_for_one_in_small_letters(scene: Scene, chat_id: str) -> None:
    scene.stream(chat_id.upper(), "Chat", ("chat.created", {"type": "bug"}))
    with pytest.raises(UsageError):
        scene.projector().process_event(dict(found_in(scene.events, {"aggregate_id": chat_id.upper()})))


def test_an_empty_database_is_no_error_where_that_is_meant(scene: Scene) -> None:
    looked = scene.projector().verify_all(allow_no_events=True)
    rebuilt = [scene.rebuild(dry_run=dry_run, allow_no_events=True) for dry_run in (True, False)]
    for summary in (looked, *rebuilt):
        assert summary.ok
        assert summary.events == 0
        assert [counts.checked for counts in summary.read_models.values()] == [0, 0]


def test_progress_is_told_up_to_the_last_event(scene: Scene) -> None:
    from readmodel_pipelines.projector import ReadModelProjector

    scene.fill(20)
    told: list[Any] = []
    projector = ReadModelProjector(scene.database, scene.settings, on_progress=lambda *told_now: told.append(told_now))
    summary = projector.rebuild_all()
    assert told[-1] == (summary.events, summary.events, summary.read_models)


def test_collections_may_be_named_otherwise(scene: Scene) -> None:
    scene.fill(5)
    names: dict[str, Any] = {"chats_collection": "chat_read_model", "tasks_collection": "task_read_model"}
    summary = scene.projector(**names).rebuild_all()

    assert summary.ok
    assert set(summary.read_models) == {CHATS, TASKS}
    assert scene.database["chat_read_model"].count_documents({}) == 5
    assert scene.projector(**names).verify_all().ok
