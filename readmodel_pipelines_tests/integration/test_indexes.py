"""Indexes: everything works without them; an empty read model gets its own, a filled one a warning."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.scene import Scene, found_in


def keys(collection: Any) -> dict[str, bool]:
    return {
        ",".join(index["key"]): bool(index.get("unique"))
        for index in collection.list_indexes()
        if index["name"] != "_id_"
    }


@pytest.fixture
def bare(scene: Scene) -> Scene:
    """Streams and right read models without any index."""
    scene.fill(20)
    for collection in (scene.events, scene.chats, scene.tasks):
        collection.drop_indexes()
    return scene


def test_an_empty_read_model_gets_its_unique_indexes_without_a_warning(scene: Scene) -> None:
    scene.chat("one")
    summary = scene.rebuild()

    assert (summary.ok, summary.warnings) == (True, [])
    assert keys(scene.chats) == {"chat_id": True}
    assert keys(scene.tasks) == {"task_id": True, "chat_id": True}
    assert keys(scene.events) == {}


def test_a_filled_read_model_gets_a_warning_and_no_index(bare: Scene) -> None:
    summary = bare.rebuild()

    assert summary.ok
    assert len(summary.warnings) == 3
    assert all("ensure-indexes" in warning for warning in summary.warnings)
    assert keys(bare.chats) == keys(bare.tasks) == {}


def test_a_dry_run_and_a_verification_make_no_index(scene: Scene) -> None:
    scene.chat("one")
    scene.rebuild(dry_run=True)
    scene.verify()
    assert scene.database.list_collection_names() == ["events"]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_damage_is_repaired_without_any_index(bare: Scene, one_by_one: bool) -> None:
    right = bare.everything()
    assert bare.verify().ok
    bare.tasks.update_many({}, {"$set": {"title": 7}})
    bare.chats.update_many({}, {"$set": {"participants": None}})
    if one_by_one:
        for aggregate_id in bare.events.distinct("aggregate_id"):
            assert bare.rebuild_one(aggregate_id).ok
    else:
        assert bare.rebuild().ok
    assert bare.everything() == right
    assert keys(bare.chats) == keys(bare.tasks) == keys(bare.events) == {}


@pytest.mark.parametrize("one_by_one", [True, False])
def test_duplicates_in_a_read_model_without_its_index_are_found_and_deleted(bare: Scene, one_by_one: bool) -> None:
    chat = found_in(bare.chats, {}, {"_id": 0})
    bare.chats.insert_many([{**chat}, {**chat, "title": "another"}, {**chat, "title": 7}])
    run: Callable[..., Summary] = partial(bare.rebuild_one, chat["chat_id"]) if one_by_one else bare.rebuild

    assert bare.verify("chat").read_models["chats_read_model"].unexpected == 3
    predicted, done = run("chat", dry_run=True), run("chat")
    assert predicted.read_models == done.read_models
    assert done.read_models["chats_read_model"].deleted == 3
    assert bare.chats.count_documents({"chat_id": chat["chat_id"]}) == 1
    assert bare.verify().ok


def test_duplicates_of_a_malformed_stream_stay(bare: Scene) -> None:
    chat = found_in(bare.chats, {}, {"_id": 0})
    bare.chats.insert_one({**chat})
    bare.append(chat["chat_id"], ("chat.exploded", {}))
    before = bare.dump()

    counts = bare.rebuild("chat").read_models["chats_read_model"]
    assert (counts.malformed, counts.deleted) == (1, 0)
    assert bare.dump() == before


@pytest.mark.parametrize(
    "options",
    [{"sparse": True}, {"partialFilterExpression": {"title": "x"}}, {"collation": {"locale": "en", "strength": 1}}],
    ids=["sparse", "partial", "collation"],
)
def test_an_index_that_does_not_hold_every_document_is_not_relied_on(bare: Scene, options: dict[str, Any]) -> None:
    bare.events.create_index([("aggregate_id", 1), ("version", 1)], **options)
    bare.chats.create_index("chat_id", **options)
    bare.tasks.create_index("task_id", **options)

    assert bare.verify().ok
    bare.chats.update_many({}, {"$set": {"title": "damaged"}})
    assert bare.rebuild().ok
    assert bare.verify().ok


@pytest.mark.parametrize("options", [{"sparse": True}, {"partialFilterExpression": {"title": "x"}}], ids=str)
def test_a_unique_index_over_some_documents_alone_is_warned_of(bare: Scene, options: dict[str, Any]) -> None:
    bare.chats.create_index("chat_id", unique=True, **options)
    assert any("chats_read_model" in warning for warning in bare.rebuild("chat").warnings)


def test_an_index_made_with_doubles_as_the_shell_makes_it_counts(scene: Scene) -> None:
    scene.database.command(
        "createIndexes", "chats_read_model", indexes=[{"key": {"chat_id": 1.0}, "name": "by_shell", "unique": True}]
    )
    scene.chat("one")
    assert scene.rebuild("chat").warnings == []
    assert [index["name"] for index in scene.chats.list_indexes()] == ["_id_", "by_shell"]


def test_indexes_are_made_once_and_named_as_the_application_does(scene: Scene) -> None:
    scene.ensure_indexes()
    assert keys(scene.events) == {
        "aggregate_id,version": True,
        "event_type,occurred_at": False,
        "aggregate_type,occurred_at": False,
    }
    assert "idx_events_aggregate_version_unique" in scene.events.index_information()
    before = scene.events.index_information()
    scene.ensure_indexes()
    assert scene.events.index_information() == before


def test_documents_that_stand_against_an_index_are_an_error_that_says_so(bare: Scene) -> None:
    chat = found_in(bare.chats, {}, {"_id": 0})
    bare.chats.insert_one({**chat})
    with pytest.raises(ReadModelError, match="chats_read_model: the index on chat_id") as refused:
        bare.ensure_indexes()
    assert "duplicate key" in refused.value.message
