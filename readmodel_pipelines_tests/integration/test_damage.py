"""Damage breaks what it says it breaks and nothing else, on a real server with the application's unique indexes."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from readmodel_pipelines.demo.damage import (
    CHATS,
    LEGACY_TASKS,
    TASKS,
    Damage,
    OwnedFields,
    Way,
    add_orphan,
    add_unwanted_task,
    applies,
    break_field,
    damage_everything,
    remove_document,
    swap_chat_ids,
)
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines_tests.support.scene import Mongo, uuid

Document = dict[str, Any]

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
DISCUSSION = uuid("a discussion")


def way_of(field: str, name: str) -> Way:
    (found,) = (way for way in TASKS.fields[field] if way.name == name)
    return found


def chat(number: int) -> Document:
    document = {
        "chat_id": uuid(f"chat {number}"),
        "workspace_id": uuid("workspace"),
        "type": ("task", "bug", "discussion")[number % 3],
        "title": f"chat {number}",
        "is_public": number % 2 == 0,
        "created_by": uuid("ann"),
        "created_at": datetime(2026, 3, 1, 12, 30, 15, 123_000, tzinfo=UTC),
        "participants": [uuid("ann"), uuid("bob"), uuid("cid")],
        "not_ours": number,
    }
    if number % 3 != 2:
        document |= {"status": "To Do", "priority": "High", "assigned_to": uuid("bob")}
        document["due_date"] = datetime(1960, 2, 29, 12, 30, 0, 1000, tzinfo=UTC)
    if number % 3 == 1:
        document["severity"] = "Major"
    return document


def task(number: int) -> Document:
    full = number % 2 == 0
    return {
        "task_id": uuid(f"chat {number}"),
        "chat_id": uuid(f"chat {number}"),
        "title": f"task {number}",
        "entity_type": "bug",
        "status": "To Do",
        "priority": "Medium",
        "severity": "Major" if full else None,
        "assigned_to": uuid("bob") if full else None,
        "due_date": datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) if full else None,
        "created_by": uuid("ann"),
        "created_at": datetime(2026, 3, 1, tzinfo=UTC),
        "version": number + 2,
        "attachments": [
            {"file_id": uuid(f"file {file}"), "file_name": "a.txt", "file_size": Int64(file), "mime_type": "text/plain"}
            for file in (1, 2)
        ],
        "not_ours": number,
    }


def filled(database: Mongo, model: OwnedFields, count: int) -> Collection[Document]:
    collection = database[f"{model.name}_read_model"]
    for unique in ("chat_id", "task_id")[: 1 if model is CHATS else 2]:
        collection.create_index(unique, unique=True)
    collection.insert_many([chat(number) if model is CHATS else task(number) for number in range(count)])
    return collection


def stored(collection: Collection[Document]) -> dict[Any, bytes]:
    raw = collection.with_options(codec_options=RAW)
    return {document["_id"]: bytes(document.raw) for document in raw.find()}


@pytest.mark.parametrize("model", [CHATS, TASKS, LEGACY_TASKS])
def test_every_field_can_be_changed_removed_nulled_and_mistyped(database: Mongo, model: OwnedFields) -> None:
    collection = filled(database, model, 6)
    expected = {"changed", "removed", "nulled"}
    for field, ways in model.fields.items():
        names = [way.name for way in ways]
        assert len(names) == len(set(names)), field
        assert expected <= set(names), field
        assert any(name.startswith("as_") for name in names), field
    complete = next(doc for doc in collection.find() if all(doc.get(field) is not None for field in model.fields))
    key = str(complete[model.key])
    for field, ways in model.fields.items():
        for way in (way for way in ways if way.name in expected or way.name.startswith("as_")):
            assert break_field(collection, model, key, field, way)[0].key == key
            collection.replace_one({"_id": complete["_id"]}, complete)


@pytest.mark.parametrize(
    "act",
    [
        lambda tasks: break_field(tasks, TASKS, uuid("chat 1"), "due_date", way_of("due_date", "nulled")),
        lambda tasks: break_field(tasks, TASKS, uuid("chat 0"), "severity", way_of("severity", "filled")),
        lambda tasks: break_field(tasks, TASKS, uuid("nobody"), "title", way_of("title", "changed")),
        lambda tasks: remove_document(tasks, TASKS, uuid("nobody")),
        lambda tasks: swap_chat_ids(tasks, uuid("chat 0"), uuid("nobody")),
    ],
    ids=["null already", "filled already", "no document to break", "no document to remove", "no document to swap"],
)
def test_what_would_change_nothing_or_has_no_document_is_refused_and_writes_nothing(
    database: Mongo, act: Callable[[Collection[Document]], object]
) -> None:
    tasks = filled(database, TASKS, 2)
    before = stored(tasks)
    with pytest.raises(UsageError):
        act(tasks)
    assert stored(tasks) == before


def test_a_removed_document_is_gone_and_the_others_stay(database: Mongo) -> None:
    chats = filled(database, CHATS, 3)
    damage = remove_document(chats, CHATS, uuid("chat 1"))
    assert (damage.outcome, damage.key) == ("missing", uuid("chat 1"))
    assert {doc["chat_id"] for doc in chats.find()} == {uuid("chat 0"), uuid("chat 2")}


@pytest.mark.parametrize("model", [CHATS, TASKS])
def test_an_orphan_looks_like_any_other_document(database: Mongo, model: OwnedFields) -> None:
    collection = filled(database, model, 1)
    damage = add_orphan(collection, model, uuid("nobody"))
    assert (damage.outcome, damage.key) == ("orphan", uuid("nobody"))
    orphan = collection.find_one({model.key: uuid("nobody")}) or {}
    example = chat(0) if model is CHATS else task(0)
    assert set(orphan) - {"_id"} == set(example) - {"not_ours"}


def test_an_unwanted_task_has_the_id_of_its_chat(database: Mongo) -> None:
    tasks = filled(database, TASKS, 1)
    damage = add_unwanted_task(tasks, DISCUSSION)
    assert (damage.outcome, damage.key) == ("unexpected", DISCUSSION)
    assert tasks.count_documents({"task_id": DISCUSSION, "chat_id": DISCUSSION}) == 1


def test_swapped_chat_ids_change_places_under_a_unique_index(database: Mongo) -> None:
    tasks = filled(database, TASKS, 3)
    one, other, third = (uuid(f"chat {number}") for number in range(3))
    damages = swap_chat_ids(tasks, one, other)
    assert {doc["task_id"]: doc["chat_id"] for doc in tasks.find()} == {one: other, other: one, third: third}
    assert [(damage.key, damage.outcome) for damage in damages] == [(one, "different"), (other, "different")]


def both_models(database: Mongo) -> tuple[Collection[Document], Collection[Document]]:
    return filled(database, CHATS, 160), filled(database, TASKS, 160)


def test_everything_is_damaged_once_and_nothing_twice(database: Mongo) -> None:
    chats, tasks = both_models(database)
    before = {CHATS.name: stored(chats), TASKS.name: stored(tasks)}
    damages = damage_everything(chats, tasks, discussion_ids=[DISCUSSION])

    for model, collection in ((CHATS, chats), (TASKS, tasks)):
        mine = [damage for damage in damages if damage.model == model.name]
        every = {(field, way.name) for field, ways in model.fields.items() for way in ways}
        # The unique indexes allow either null or nothing once, not both.
        assert every - {("chat_id", "nulled"), ("task_id", "nulled")} <= {(one.field, one.kind) for one in mine}

        damaged = [one.key for one in mine if one.outcome in ("missing", "different")]
        assert len(set(damaged)) == len(damaged)
        right, now = before[model.name], stored(collection)
        touched = {RawBSONDocument(raw)[model.key] for _id, raw in right.items() if now.get(_id) != raw}
        assert touched == set(damaged)
        assert len(right.keys() - now.keys()) == 1


def test_the_same_seed_breaks_the_same_documents(database: Mongo) -> None:
    def broken_with(seed: int) -> list[Damage]:
        for collection in (database["chats_read_model"], database["tasks_read_model"]):
            collection.drop()
        return damage_everything(*both_models(database), discussion_ids=[DISCUSSION], seed=seed)

    def removed(damages: list[Damage]) -> list[str]:
        return [damage.key for damage in damages if damage.kind == "document_removed"]

    first = broken_with(4)
    assert broken_with(4) == first
    assert removed(broken_with(5)) != removed(first)


@pytest.mark.parametrize(
    ("count", "discussion_ids"),
    [(20, [DISCUSSION]), (160, []), (160, [uuid("chat 3")])],
    ids=["too few documents", "no discussion", "a discussion that is a task"],
)
def test_what_cannot_all_be_damaged_is_refused_at_once(database: Mongo, count: int, discussion_ids: list[str]) -> None:
    chats, tasks = filled(database, CHATS, 160), filled(database, TASKS, count)
    before = stored(chats), stored(tasks)
    with pytest.raises(UsageError):
        damage_everything(chats, tasks, discussion_ids=discussion_ids)
    assert (stored(chats), stored(tasks)) == before


def test_a_way_knows_the_values_that_it_leaves_alone() -> None:
    assert applies(way_of("version", "as_int64"), 3)
    assert not applies(way_of("version", "as_int64"), Int64(3))
    assert not applies(way_of("attachments", "reordered"), [{"file_id": "a"}, {"file_id": "a"}])
