"""Races: another writer changes a document between our read and our write, at each write that there is.

Its change is never lost, losing is an outcome (`superseded`) and no error, and the document ends as its events say.
"""

from __future__ import annotations

from typing import Any

import pytest

from readmodel_pipelines.reconcile.in_place import ATTEMPTS
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import Scene, found_in, taken_from

CHATS = "chats_read_model"
TASKS = "tasks_read_model"


@pytest.fixture(params=["rebuild_all", "rebuild_one"])
def rebuild(request: Any, scene: Scene) -> Any:
    """Both ways to write one chat's document: a full rebuild, and one aggregate."""
    if request.param == "rebuild_all":
        return lambda chat_id: scene.rebuild("chat")
    return lambda chat_id: scene.rebuild_one(chat_id, "chat")


def renamed(title: str) -> tuple[str, dict[str, Any]]:
    return "chat.renamed", {"new_title": title}


@pytest.fixture
def chat_id(scene: Scene) -> str:
    scene.index()
    scene.chat("bystander")
    chat_id = scene.chat("contended")
    assert scene.rebuild().ok
    return str(chat_id)


def test_a_replace_does_not_overwrite_what_the_application_wrote_meanwhile(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})

    def appends_and_projects(_: Any) -> None:
        scene.append(chat_id, renamed("newer"))
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "newer"}})

    other_writer.once_before("write", "replace", appends_and_projects)
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert other_writer.times == 1
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 0, 0)
    assert summary.ok
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "newer"
    assert scene.verify("chat").ok


def test_a_replace_that_lost_is_compared_again_and_written(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    other_writer.once_before(
        "write",
        "replace",
        lambda _: scene.chats.update_one({"chat_id": chat_id}, {"$set": {"is_public": False}}),
    )
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 1, 0)
    assert found_in(scene.chats, {"chat_id": chat_id})["is_public"] is True
    assert scene.verify().ok


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"status": "Closed"}},
        {"$unset": {"status": ""}},
        {"$set": {"due_date": None}},
        {"$push": {"participants": "late"}},
        {"$set": {"chat_id": "moved away"}},
    ],
    ids=["another_field", "field_removed", "absent_field_set_to_null", "array_grown", "key_changed"],
)
def test_any_change_of_an_owned_field_is_a_race(
    scene: Scene, chat_id: str, other_writer: OtherWriter, change: dict[str, Any]
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    seen: list[Any] = []

    def writes(_: Any) -> None:
        scene.chats.update_one({"chat_id": chat_id}, change)
        seen.append(scene.dump()[CHATS])

    other_writer.once_before("write", "replace", writes)
    scene_before_retry: list[Any] = []
    other_writer.before(
        "write", lambda _: scene_before_retry.append(scene.dump()[CHATS]), when=lambda _: other_writer.times == 1
    )
    summary = scene.rebuild("chat")

    assert summary.read_models[CHATS].superseded == 1
    assert scene_before_retry[0] == seen[0], "the write that lost must have written nothing"
    # A document that moved away from its key is an orphan, which the next full rebuild takes.
    scene.rebuild("chat")
    assert scene.verify().ok


def test_a_change_of_foreign_fields_alone_is_no_race(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    other_writer.once_before(
        "write", "replace", lambda _: scene.chats.update_one({"chat_id": chat_id}, {"$set": {"not_ours": [1]}})
    )
    counts = rebuild(chat_id).read_models[CHATS]

    assert (counts.superseded, counts.replaced) == (0, 1)
    assert found_in(scene.chats, {"chat_id": chat_id})["not_ours"] == [1]
    assert scene.verify().ok


def test_the_other_writer_wrote_exactly_what_we_wanted(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    other_writer.once_before(
        "write", "replace", lambda _: scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "contended"}})
    )
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 0, 0)
    assert summary.ok
    assert scene.verify().ok


def test_a_document_that_vanished_before_its_replace_is_inserted(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    other_writer.once_before("write", "replace", lambda _: scene.chats.delete_one({"chat_id": chat_id}))
    counts = rebuild(chat_id).read_models[CHATS]

    assert (counts.superseded, counts.replaced, counts.inserted) == (1, 0, 1)
    assert scene.verify().ok


def test_an_insert_that_another_writer_was_faster_with_keeps_its_document(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    right = taken_from(scene.chats, {"chat_id": chat_id})
    other_writer.once_before("write", "insert", lambda _: scene.chats.insert_one({**right, "not_ours": "kept"}))
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.inserted, counts.failed) == (1, 0, 0)
    assert summary.ok
    assert found_in(scene.chats, {"chat_id": chat_id})["not_ours"] == "kept"
    assert scene.verify().ok


def test_an_insert_that_lost_to_a_wrong_document_mends_it(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    right = taken_from(scene.chats, {"chat_id": chat_id})
    other_writer.once_before("write", "insert", lambda _: scene.chats.insert_one({**right, "title": 5}))
    counts = rebuild(chat_id).read_models[CHATS]

    assert (counts.superseded, counts.inserted, counts.replaced) == (1, 0, 1)
    assert scene.verify().ok


def test_an_insert_of_a_task_whose_chat_was_deleted_meanwhile_is_taken_back(
    scene: Scene, chat_id: str, other_writer: OtherWriter
) -> None:
    scene.append(chat_id, ("chat.type_changed", {"new_type": "task", "title": "t"}))
    scene.tasks.delete_many({})

    # The application finds no document to delete, so nothing in the read model tells that it was there.
    other_writer.once_before("write", "insert", lambda _: scene.append(chat_id, ("chat.deleted", {})))
    summary = scene.rebuild("task")

    assert other_writer.times == 1
    assert summary.read_models[TASKS].superseded == 1
    assert scene.tasks.find_one({"task_id": chat_id}) is None
    assert scene.verify("task").ok


def test_an_insert_that_lost_to_a_newer_document_leaves_it(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    right = taken_from(scene.chats, {"chat_id": chat_id})

    def appends_and_projects(_: Any) -> None:
        scene.append(chat_id, renamed("newer"))
        scene.chats.insert_one({**right, "title": "newer"})

    other_writer.once_before("write", "insert", appends_and_projects)
    before = rebuild(chat_id).read_models[CHATS]

    assert (before.superseded, before.inserted, before.replaced) == (1, 0, 0)
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "newer"


@pytest.mark.parametrize("full", [True, False], ids=["deferred", "rebuild_one"])
def test_a_delete_does_not_take_a_document_that_changed(
    scene: Scene, chat_id: str, other_writer: OtherWriter, full: bool
) -> None:
    chat = scene.chat("talk", kind="discussion")
    task = found_in(scene.tasks, {"task_id": chat_id}, {"_id": 0})
    scene.rebuild("chat")
    scene.tasks.insert_one({**task, "task_id": chat, "chat_id": chat})

    def becomes_a_task(_: Any) -> None:
        scene.append(chat, ("chat.type_changed", {"new_type": "bug", "title": "a bug"}))
        change = {"entity_type": "bug", "title": "a bug", "version": 3, "priority": "Medium"}
        scene.tasks.update_one({"task_id": chat}, {"$set": change})

    other_writer.once_before("write", "delete", becomes_a_task)
    counts = (scene.rebuild("task") if full else scene.rebuild_one(chat, "task")).read_models[TASKS]

    assert other_writer.times == 1
    assert (counts.superseded, counts.deleted, counts.failed) == (1, 0, 0)
    assert found_in(scene.tasks, {"task_id": chat})["title"] == "a bug"
    assert scene.verify("task").ok


@pytest.mark.parametrize("full", [True, False], ids=["deferred", "rebuild_one"])
def test_a_delete_that_lost_is_compared_again_and_done(
    scene: Scene, chat_id: str, other_writer: OtherWriter, full: bool
) -> None:
    orphan = found_in(scene.tasks, {"task_id": chat_id}, {"_id": 0})
    key = orphan["chat_id"] = orphan["task_id"] = "00000000-0000-4000-a000-000000000000"
    scene.tasks.insert_one(orphan)
    other_writer.once_before(
        "write", "delete", lambda _: scene.tasks.update_one({"task_id": key}, {"$set": {"title": "touched"}})
    )
    counts = (scene.rebuild("task") if full else scene.rebuild_one(key, "task")).read_models[TASKS]

    assert (counts.superseded, counts.deleted, counts.failed) == (1, 1, 0)
    assert scene.verify("task").ok


@pytest.mark.parametrize(
    "key",
    [None, {"a": 1}, ["x"], b"bytes", 5, 2.5, True],
    ids=["null", "document", "array", "binary", "number", "double", "bool"],
)
def test_a_delete_of_a_document_with_an_odd_key_that_lost_is_compared_again_and_done(
    scene: Scene, chat_id: str, other_writer: OtherWriter, key: Any
) -> None:
    orphan = {**found_in(scene.chats, {"chat_id": chat_id}, {"_id": 0}), "chat_id": key}
    stored = scene.chats.insert_one(orphan).inserted_id
    other_writer.once_before(
        "write", "delete", lambda _: scene.chats.update_one({"_id": stored}, {"$set": {"title": "touched"}})
    )
    counts = scene.rebuild("chat").read_models[CHATS]

    assert other_writer.times == 1
    assert (counts.superseded, counts.deleted, counts.failed) == (1, 1, 0)
    assert scene.verify("chat").ok


@pytest.mark.parametrize("full", [True, False], ids=["deferred", "rebuild_one"])
def test_an_orphan_that_vanished_before_its_deletion_is_well(
    scene: Scene, chat_id: str, other_writer: OtherWriter, full: bool
) -> None:
    key = "00000000-0000-4000-a000-000000000000"
    scene.chats.insert_one({**found_in(scene.chats, {"chat_id": chat_id}, {"_id": 0}), "chat_id": key})
    other_writer.once_before("write", "delete", lambda _: scene.chats.delete_one({"chat_id": key}))
    summary = scene.rebuild("chat") if full else scene.rebuild_one(key, "chat")

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.deleted, counts.failed) == (1, 0, 0)
    assert summary.ok


def test_another_writer_who_is_always_faster_wins_in_the_end(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    written: list[str] = []

    def writes_again(_: Any) -> None:
        written.append(f"damaged {len(written)}")
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": written[-1]}})

    other_writer.before("write", writes_again, when=bool)
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert len(written) == ATTEMPTS
    assert (counts.superseded, counts.replaced, counts.failed) == (ATTEMPTS, 0, 1)
    assert not summary.ok
    assert [item.reason for item in summary.findings] == ["busy"]
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == written[-1]


def test_only_the_contended_document_of_a_batch_is_done_again(scene: Scene, other_writer: OtherWriter) -> None:
    ids = scene.fill(20)
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    other_writer.once_before(
        "write", "replace", lambda _: scene.chats.update_one({"chat_id": ids[3]}, {"$set": {"is_public": "?"}})
    )
    counts = scene.rebuild("chat").read_models[CHATS]

    assert (counts.superseded, counts.replaced, counts.failed) == (1, 20, 0)
    assert scene.verify().ok


@pytest.mark.parametrize("full", [True, False], ids=["full", "rebuild_one"])
def test_a_swap_does_not_overwrite_what_another_writer_changed(
    scene: Scene, other_writer: OtherWriter, full: bool
) -> None:
    scene.index()
    one, two = scene.chat("one"), scene.chat("two")
    scene.rebuild()
    for key, chat_id in ((one, "parked"), (two, one), (one, two)):
        scene.tasks.update_one({"task_id": key}, {"$set": {"chat_id": chat_id}})

    def appends_and_projects(_: Any) -> None:
        scene.append(two, renamed("newer"))
        scene.tasks.update_one({"task_id": two}, {"$set": {"title": "newer", "version": 3}})

    other_writer.once_before("swap", "replace", appends_and_projects)
    counts = (scene.rebuild("task") if full else scene.rebuild_one(one, "task")).read_models[TASKS]

    assert other_writer.times == 1
    assert (counts.superseded, counts.failed) == (1, 0)
    assert counts.replaced == 2
    assert found_in(scene.tasks, {"task_id": two})["title"] == "newer"
    assert scene.verify("task").ok


@pytest.mark.parametrize("odd", [None, {"a": 1}, ["x", "y"], 7], ids=["null", "document", "array", "number"])
def test_a_swap_with_a_document_of_an_odd_key_that_lost_is_done_again(
    scene: Scene, chat_id: str, other_writer: OtherWriter, odd: Any
) -> None:
    stored = found_in(scene.tasks, {"task_id": chat_id})["_id"]
    scene.tasks.update_one({"_id": stored}, {"$set": {"task_id": odd}})
    other_writer.once_before(
        "swap", "delete", lambda _: scene.tasks.update_one({"_id": stored}, {"$set": {"title": "touched"}})
    )
    counts = scene.rebuild_one(chat_id, "task").read_models[TASKS]

    assert other_writer.times == 1
    assert (counts.superseded, counts.inserted, counts.deleted, counts.failed) == (1, 1, 1, 0)
    assert scene.verify("task").ok


def test_a_stream_that_became_malformed_meanwhile_leaves_the_document_alone(
    scene: Scene, chat_id: str, other_writer: OtherWriter, rebuild: Any
) -> None:
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})

    def breaks_the_stream(_: Any) -> None:
        scene.append(chat_id, ("chat.exploded", {}))
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "another"}})

    other_writer.once_before("write", "replace", breaks_the_stream)
    summary = rebuild(chat_id)

    counts = summary.read_models[CHATS]
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 0, 1)
    assert not summary.ok
    assert [item.reason for item in summary.findings] == ["unknown_event_type"]
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "another"
