"""Unique indexes of somebody else's on a read model: who stands in the way is found, named, and waited for or not."""

from typing import Any

import pytest
from bson import ObjectId

from readmodel_pipelines.cutover.definition import ShadowFailed
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, each, raises
from readmodel_pipelines_tests.support.index_trials import CASELESS, fill_beside
from readmodel_pipelines_tests.support.index_trials import INDEXES as OF_TRIALS
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow
from readmodel_pipelines_tests.support.verbs.repairing import put, repair, stored, task

CHATS = "chats_read_model"
INDEXES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a field": ("title", {}),
    "two fields": ([("workspace_id", 1), ("title", 1)], {}),
    "a foreign field": ("slug", {}),
    "with a foreign one": ([("title", 1), ("slug", 1)], {}),
    "caseless": ("title", {"collation": CASELESS}),
    "some of them": ("title", {"partialFilterExpression": {"title": {"$gt": ""}}}),
    "sparse": ("title", {"sparse": True}),
}


def written(summary: Summary) -> tuple[int, int, int, int]:
    counts = summary.read_models[CHATS]
    return counts.inserted, counts.replaced, counts.deleted, counts.failed


def failed(summary: Summary) -> dict[Any, str]:
    return {item.aggregate_id: str(item.reason) for item in summary.findings if item.failed}


@pytest.fixture(params=INDEXES)
def indexed(request: pytest.FixtureRequest, scene: Scene) -> Scene:
    """Read models that are empty, with a unique index that somebody else made."""
    scene.index()
    keys, options = INDEXES[request.param]
    scene.chats.create_index(keys, unique=True, name="theirs", **options)
    return scene


def test_of_several_that_want_the_same_one_comes_and_the_others_are_conflicts(indexed: Scene, at: At) -> None:
    # Nothing is exchanged, so that a server without transactions can do it.
    at(Moment.TRANSACTION, each(raises(Killed())))
    ids = sorted(indexed.chat("Tea", id=f"{number:08}-0000-4000-8000-000000000000") for number in range(5))
    predicted, done = indexed.rebuild("chat", dry_run=True), indexed.rebuild("chat")
    assert written(predicted) == written(done) == (1, 0, 0, 4)
    assert failed(predicted) == failed(done) == dict.fromkeys(ids[1:], "key_conflict")
    field = next(iter(dict(indexed.chats.index_information()["theirs"]["key"])))
    assert all(field in item.detail for item in done.findings if item.failed)
    again = indexed.rebuild("chat")
    assert written(again) == (0, 0, 0, 4)


def test_one_that_is_there_keeps_what_it_holds_and_a_repair_parks_the_other(indexed: Scene) -> None:
    first = indexed.chat("Tea")
    assert indexed.rebuild("chat").ok
    second = indexed.chat("Coffee", ("chat.renamed", {"new_title": "Tea"}))
    one, all_of_them = indexed.rebuild_one(second, "chat", dry_run=True), indexed.rebuild("chat", dry_run=True)
    assert written(one) == written(all_of_them) == (0, 0, 0, 1)
    assert written(indexed.rebuild_one(second, "chat")) == (0, 0, 0, 1)
    put(indexed, task(first), task(second))
    assert repair(indexed).parked == 1
    assert [(item["aggregate_id"], item["reason"]) for item in stored(indexed, status="failed")] == [
        (second, "key_conflict")
    ]


def test_what_differs_by_case_alone_is_the_same_where_the_index_says_so(scene: Scene) -> None:
    scene.index()
    scene.chats.create_index("title", unique=True, collation=CASELESS)
    ids = sorted((scene.chat("tea", id="0" * 8 + "-0000-4000-8000-" + "0" * 12), scene.chat("TEA")))
    predicted, done = scene.rebuild("chat", dry_run=True), scene.rebuild("chat")
    assert written(predicted) == written(done) == (1, 0, 0, 1)
    assert failed(predicted) == failed(done) == {ids[1]: "key_conflict"}


def test_what_holds_no_key_is_no_conflict(scene: Scene) -> None:
    scene.index()
    scene.chats.create_index("severity", unique=True, sparse=True)
    scene.chats.create_index("slug", unique=True, partialFilterExpression={"slug": {"$exists": True}})
    scene.chats.create_index("status", unique=True, partialFilterExpression={"type": "bug"})
    for name in ("one", "two", "three"):
        scene.chat(name)
    assert written(scene.rebuild("chat", dry_run=True)) == written(scene.rebuild("chat")) == (3, 0, 0, 0)


def test_documents_that_exchange_what_an_index_keeps_unique_are_written_together(scene: Scene) -> None:
    scene.index()
    scene.chats.create_index("title", unique=True)
    ids = [scene.chat(name) for name in ("one", "two", "three")]
    assert scene.rebuild("chat").ok
    scene.make_foreign()
    titles = ["two", "three", "one"]
    for aside in (True, False):
        for chat_id, title in zip(ids, titles, strict=True):
            scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": f"{title}{'!' * aside}"}})
    scene.chats.insert_one({"chat_id": str(ObjectId()), "title": "four"})
    scene.chat("four")
    assert written(scene.rebuild("chat", dry_run=True)) == written(scene.rebuild("chat")) == (1, 3, 1, 0)
    assert scene.verify("chat").ok
    assert all("not_ours" in found_in(scene.chats, {"chat_id": chat_id}) for chat_id in ids)


def test_a_shadow_that_cannot_have_the_index_says_which(indexed: Scene) -> None:
    indexed.chat("Tea")
    indexed.chat("Tea", id="0" * 8 + "-0000-4000-8000-" + "0" * 12)
    with pytest.raises(ShadowFailed) as refused:
        in_shadow(indexed, "chat")
    assert "theirs" in str(refused.value)
    assert indexed.chats.count_documents({}) == 0


@pytest.mark.each_once
@pytest.mark.parametrize("descending", [False, True])
def test_duplicates_of_a_key_without_an_index_leave_the_right_one(
    scene: Scene, strategy: Strategy, descending: bool
) -> None:
    ids = [scene.chat(f"chat {number}") for number in range(40)]
    scene.build()
    scene.chats.drop_indexes()
    right = scene.contents(CHATS)
    wrong = [{**item, "_id": ObjectId(), "title": "a duplicate"} for item in scene.chats.find()]
    if descending:
        # The wrong ones come first.
        kept = list(scene.chats.find())
        scene.chats.delete_many({})
        scene.chats.insert_many([*wrong, *({**item, "_id": ObjectId()} for item in kept)])
    else:
        scene.chats.insert_many(wrong)

    found = scene.verify("chat")
    assert sum(item.outcome is Outcome.UNEXPECTED for item in found.findings) == len(ids)
    predicted = scene.rebuild("chat", dry_run=True, allow_deletions=True)
    assert predicted.read_models == scene.rebuild("chat", allow_deletions=True).read_models
    assert scene.contents(CHATS) == right
    assert scene.verify("chat").ok


@pytest.mark.each_once
@pytest.mark.parametrize("seed", [*range(7), *(pytest.param(seed, marks=pytest.mark.whole) for seed in range(7, 60))])
@pytest.mark.parametrize("index", OF_TRIALS)
def test_a_dry_run_predicts_what_a_rebuild_does_among_rivals(scene: Scene, index: str, seed: int) -> None:
    fill_beside(scene, index, seed)

    predicted = scene.rebuild("chat", dry_run=True)

    assert written(predicted) == written(scene.rebuild("chat", allow_deletions=True))
