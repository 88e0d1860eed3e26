"""Deletions of a full rebuild wait for the end, are proven again one by one, and are refused together when too many."""

from typing import Any

import pytest
from pymongo.errors import OperationFailure

from readmodel_pipelines.bookkeeping import kept_keys
from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, DeferredInMongo, Owner, Touched
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.cursor import SteadyCursor
from readmodel_pipelines.reconcile.deletions import A_FEW
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import Document, Scene, found_in, in_place_alone

pytestmark = pytest.mark.usefixtures("strategy")

CHATS = "chats_read_model"
TASKS = "tasks_read_model"
SETTLED = {"events", CHATS, TASKS, "readmodel_leases", "readmodel_rebuilds"}


def keys_of(scene: Scene) -> list[dict[str, Any]]:
    """What is put off."""
    return [item["_id"] for item in scene.database.readmodel_deferred.find(sort=[("_id", 1)])]


def put_off(scene: Scene, owner: Owner, kind: str, key: str) -> dict[str, Any]:
    deferred = DeferredInMongo(scene.database, owner)
    deferred.add(kind, [key])
    deferred.write()
    return {"of": owner.of, "run": owner.run, "kind": kind, "key": key}


def orphans(scene: Scene, count: int) -> list[str]:
    """Add documents without events; their keys."""
    keys = [f"dddddddd-0000-4000-a000-{number:012d}" for number in range(count)]
    template = found_in(scene.chats, {}, {"_id": 0})
    scene.chats.insert_many([{**template, "chat_id": key} for key in keys])
    return keys


@pytest.fixture
def filled(scene: Scene) -> Scene:
    scene.index()
    for number in range(10):
        scene.chat(f"chat {number}")
    scene.build()
    return scene


def test_as_many_as_the_floor_are_deleted_however_small_the_read_model(filled: Scene) -> None:
    orphans(filled, A_FEW)
    summary = filled.rebuild("chat")

    assert (summary.read_models[CHATS].deleted, summary.ok, summary.warnings) == (A_FEW, True, [])
    assert filled.verify().ok
    assert keys_of(filled) == [], "what was put off is forgotten"


# A shadow is refused as a whole, and puts no deletion off.
@in_place_alone
def test_more_than_allowed_are_refused_and_everything_else_is_done_until_they_are_allowed(filled: Scene) -> None:
    keys = orphans(filled, A_FEW + 1)
    filled.chats.update_one({"chat_id": filled.chat("new")}, {"$set": {"title": "?"}})
    filled.chats.update_one({"title": "chat 3"}, {"$set": {"title": "damaged"}})
    before = filled.dump()
    predicted = filled.rebuild("chat", dry_run=True)
    assert filled.dump() == before
    summary = filled.rebuild("chat")

    for told in (predicted, summary):
        counts = told.read_models[CHATS]
        assert (counts.inserted, counts.replaced, counts.deleted) == (1, 1, 0)
        assert counts.failed == counts.orphan == A_FEW + 1
        assert not told.ok
        assert {item.reason for item in told.findings if item.outcome == "orphan"} == {"deletions_refused"}
        # Of a rebuild that is refused a second one says how to go on.
        warning, *_ = told.warnings
        assert "4 of about" in warning
        assert "--allow-deletions" in warning
    assert filled.chats.count_documents({}) == 10 + 1 + A_FEW + 1
    assert [item["key"] for item in keys_of(filled)] == keys, "they are kept for whoever resumes"

    assert filled.rebuild("chat", dry_run=True, allow_deletions=True).read_models[CHATS].deleted == A_FEW + 1
    allowed = filled.rebuild("chat", allow_deletions=True)
    assert (allowed.read_models[CHATS].deleted, allowed.ok) == (A_FEW + 1, True)
    assert filled.verify("chat").ok
    assert keys_of(filled) == []


# A shadow is refused as a whole.
@in_place_alone
def test_events_that_are_gone_but_for_a_few_delete_no_read_model(filled: Scene) -> None:
    kept = filled.chats.distinct("chat_id")[0]
    filled.events.delete_many({"aggregate_id": {"$ne": kept}})
    before = filled.dump()
    summary = filled.rebuild()

    assert not summary.ok
    assert filled.dump() == before
    assert [counts.failed for counts in summary.read_models.values()] == [9, 9]


@in_place_alone
def test_rebuilding_one_is_exempt(filled: Scene) -> None:
    keys = orphans(filled, A_FEW + 1)
    summary = filled.projector("chat", max_delete_share=0).rebuild_one(keys[0])

    assert (summary.read_models[CHATS].deleted, summary.ok) == (1, True)
    assert filled.chats.count_documents({"chat_id": {"$in": keys}}) == A_FEW


# A shadow is refused as a whole.
@in_place_alone
def test_a_key_held_by_a_refused_orphan_is_not_freed(filled: Scene) -> None:
    template = found_in(filled.tasks, {"title": "chat 3"}, {"_id": 0})
    wanted = template["task_id"]
    filled.tasks.delete_one({"task_id": wanted})
    keys = [f"dddddddd-0000-4000-a000-{number:012d}" for number in range(A_FEW + 1)]
    filled.tasks.insert_many([{**template, "task_id": key, "chat_id": key} for key in keys])
    filled.tasks.update_one({"task_id": keys[0]}, {"$set": {"chat_id": wanted}})

    before = filled.dump()
    predicted = filled.rebuild("task", dry_run=True)
    done = filled.rebuild("task")
    assert filled.dump() == before
    assert predicted.read_models[TASKS] == done.read_models[TASKS]
    assert done.read_models[TASKS].failed == A_FEW + 2
    assert filled.rebuild("task", allow_deletions=True).ok
    assert filled.verify("task").ok


# A shadow leaves a copy of what was.
@in_place_alone
def test_who_puts_nothing_off_makes_no_collection_for_it(filled: Scene) -> None:
    filled.chats.update_one({"title": "chat 3"}, {"$set": {"title": "damaged"}})
    assert filled.rebuild().ok
    assert set(filled.database.list_collection_names()) == SETTLED


# A shadow is written otherwise.
@in_place_alone
@pytest.mark.parametrize("failing", ["delete", "replace"])
def test_a_run_that_dies_deletes_nothing_and_the_next_one_takes_nothing_over(filled: Scene, failing: str) -> None:
    keys = orphans(filled, 3)
    filled.chats.update_one({"title": "chat 3"}, {"$set": {"title": "damaged"}})

    def dies(changes: Any) -> None:
        if any((change.expected is None) == (failing == "delete") for change in changes):
            raise OperationFailure("the disk is full", code=14031)

    with listening(Moment.WRITE, dies), pytest.raises(OperationFailure):
        filled.rebuild()
    assert filled.chats.count_documents({"chat_id": {"$in": keys}}) == 3
    assert filled.rebuild().ok
    assert keys_of(filled) == []
    assert filled.verify().ok


def test_a_rebuild_forgets_what_every_other_run_over_its_read_models_left(filled: Scene) -> None:
    for owner in (Owner(CHATS, "0123456789ab"), Owner(CHATS, "ffffffffffff")):
        put_off(filled, owner, "delete", found_in(filled.chats)["chat_id"])
        Touched(filled.database, owner).add(EVENTS, ["noticed"])
    theirs = put_off(filled, Owner(TASKS, "0123456789ab"), "delete", "of a rebuild that is at work")
    Touched(filled.database, Owner(TASKS, "0123456789ab")).add(EVENTS, ["noticed"])
    orphans(filled, 1)
    summary = filled.rebuild("chat")
    assert (summary.ok, summary.read_models[CHATS].deleted) == (True, 1)
    assert filled.verify().ok
    assert keys_of(filled) == [theirs]
    assert [item["_id"]["of"] for item in filled.database.readmodel_touched.find()] == [TASKS]


# A shadow is written otherwise.
@in_place_alone
def test_deletions_come_after_every_other_write(filled: Scene, other_writer: OtherWriter) -> None:
    orphans(filled, 3)
    filled.chats.update_many({"title": "chat 3"}, {"$set": {"title": "damaged"}})
    kinds: list[str] = []
    other_writer.before(
        "write",
        lambda changes: kinds.extend("delete" if change.expected is None else "write" for change in changes),
        when=bool,
    )
    filled.rebuild("chat")
    assert kinds == ["write", "delete", "delete", "delete"]


# A shadow is written otherwise.
@in_place_alone
def test_an_orphan_that_gets_its_events_after_the_pass_is_not_deleted(filled: Scene, other_writer: OtherWriter) -> None:
    chat_id = found_in(filled.chats, {"title": "chat 3"})["chat_id"]
    events = list(filled.events.find({"aggregate_id": chat_id}))
    filled.events.delete_many({"aggregate_id": chat_id})
    filled.chats.update_one({"title": "chat 4"}, {"$set": {"title": "damaged"}})
    other_writer.once_before("write", "replace", lambda _: filled.events.insert_many(events))
    summary = filled.rebuild("chat")

    counts = summary.read_models[CHATS]
    assert other_writer.times == 1
    assert (counts.orphan, counts.deleted, counts.failed) == (1, 0, 0)
    assert filled.verify().ok


def test_unwanted_documents_of_discussions_and_deleted_chats_are_deleted(filled: Scene) -> None:
    talk = filled.chat("talk", kind="discussion")
    gone = filled.chat("gone", ("chat.deleted", {}))
    template = found_in(filled.tasks, {}, {"_id": 0})
    filled.tasks.insert_many([{**template, "task_id": key, "chat_id": key} for key in (talk, gone)])
    summary = filled.rebuild("task")

    counts = summary.read_models[TASKS]
    assert (counts.unexpected, counts.deleted) == (2, 2)
    assert filled.tasks.count_documents({}) == 10
    filled.rebuild("chat")
    assert filled.chats.find_one({"chat_id": gone}) is not None, "a deleted chat keeps its chats document"


def test_several_hundred_deletions_are_all_done(filled: Scene) -> None:
    orphans(filled, 1_203)
    assert filled.rebuild("chat", allow_deletions=True).read_models[CHATS].deleted == 1_203
    assert filled.verify().ok


def test_keys_that_were_put_off_are_read_by_pages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_keys, "KEYS_AT_ONCE", 10)
    deferred = DeferredInMongo(scene.database, Owner(CHATS, "one"))
    deferred.add("delete", [f"{number:03}" for number in range(35)])
    remembered: list[int] = []
    told_apart = SteadyCursor.next

    def next_one(cursor: SteadyCursor) -> Document:
        remembered.append(len(cursor._given))
        return told_apart(cursor)

    monkeypatch.setattr(SteadyCursor, "next", next_one)

    pages = list(deferred.batches("delete"))

    assert [len(page) for page in pages] == [10, 10, 10, 5]
    assert sorted(key for page in pages for key in page) == [f"{number:03}" for number in range(35)]
    assert max(remembered) <= 10
