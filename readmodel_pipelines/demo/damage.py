"""Breaks documents of the read models on purpose, so that a demo and the tests can see them found and mended.

Each function breaks exactly one document (a swap: two) of a collection, so that it differs by at least one byte
from what it was, and says what a verification must call it. It writes nothing but that document and touches no event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import bson
from bson import DatetimeMS, Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.collection import Collection

from readmodel_pipelines.demo.damage_ways import CHATS, TASKS, UNSET, OwnedFields, Way
from readmodel_pipelines.errors import UsageError

Document = dict[str, Any]
Outcome = Literal["missing", "different", "unexpected", "orphan"]

_AS_STORED: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
_MOST_CANDIDATES = 2000
_SOME_TIME = DatetimeMS(1_772_352_000_123)


class DamageError(UsageError):
    """The document is not there, or already as wrong as asked for; or there are too few documents."""

    code = "damage"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that was done to a read model.

    Attributes:
        model: `chats` or `tasks`.
        kind: the way of `damage_ways`, or `document_removed`, `orphan_added`, `unwanted_added`, `chat_ids_swapped`.
        key: the chat_id or task_id that a verification reports; not a string when the key itself was broken.
        field: the field that is wrong; None when it is the whole document.
        outcome: what a verification must say. `missing`: events, but no document. `different`: a field is wrong.
            `unexpected`: a document for a stream that should have none. `orphan`: a document without events.
        description: a sentence for people.
    """

    model: str
    kind: str
    key: Any
    field: str | None
    outcome: Outcome
    description: str


def change_field(collection: Collection[Document], model: OwnedFields, key: str, field: str) -> list[Damage]:
    """Give the field another value of its own type."""
    return break_field(collection, model, key, field, model.way(field, "changed"))


def remove_field(collection: Collection[Document], model: OwnedFields, key: str, field: str) -> list[Damage]:
    """Take the field out of the document."""
    return break_field(collection, model, key, field, model.way(field, "removed"))


def null_field(collection: Collection[Document], model: OwnedFields, key: str, field: str) -> list[Damage]:
    """Set the field to null."""
    return break_field(collection, model, key, field, model.way(field, "nulled"))


def mistype_field(collection: Collection[Document], model: OwnedFields, key: str, field: str) -> list[Damage]:
    """Give the field a value of a BSON type that it never has; the nearest in value where there is one."""
    way = next(way for way in model.fields[field] if way.name.startswith("as_"))
    return break_field(collection, model, key, field, way)


def break_field(collection: Collection[Document], model: OwnedFields, key: str, field: str, way: Way) -> list[Damage]:
    """Make the field of the document with that key wrong in that way.

    Returns:
        One damage; two when the field is the key: the document is missing under the old one, an orphan under the new.

    Raises:
        DamageError: there is no such document, or the way does not apply to the value that it holds.
    """
    document = collection.with_options(codec_options=_AS_STORED).find_one({model.key: key})
    if document is None:
        raise _no_document(collection, model, key)
    right = document.get(field, UNSET)
    if not applies(way, right):
        raise DamageError(
            f"{field} of {key!r} in {collection.full_name} is {right!r}, which {way.name!r} leaves as it is.",
            hint="Choose another way or another document.",
        )
    wrong = way.wrong(right)
    change = {"$unset": {field: ""}} if wrong is UNSET else {"$set": {field: wrong}}
    collection.update_one({"_id": document["_id"]}, change)
    what = f"{field} {way.name.replace('_', ' ')}: {right!r} became {wrong!r}"
    if field != model.key:
        return [Damage(model.name, way.name, key, field, "different", what)]
    stored = None if wrong is UNSET else wrong
    return [
        Damage(model.name, way.name, key, field, "missing", what),
        Damage(model.name, way.name, stored, field, "orphan", what),
    ]


def applies(way: Way, right: Any) -> bool:
    """Whether the way would change that value by at least one byte. An absent field is `damage_ways.UNSET`."""
    return _bytes(way.wrong(right)) != _bytes(right)


def remove_document(collection: Collection[Document], model: OwnedFields, key: str) -> Damage:
    """Delete the document with that key."""
    if collection.delete_one({model.key: key}).deleted_count == 0:
        raise _no_document(collection, model, key)
    return Damage(model.name, "document_removed", key, None, "missing", "document deleted")


def add_orphan(collection: Collection[Document], model: OwnedFields, key: str) -> Damage:
    """Insert a plausible document under a key that no stream has."""
    collection.insert_one(_plausible_chat(key) if model.name == "chats" else _plausible_task(key))
    return Damage(model.name, "orphan_added", key, None, "orphan", "document added for which there are no events")


def add_unwanted_task(tasks: Collection[Document], chat_id: str) -> Damage:
    """Insert a plausible tasks document for a chat that should have none: a discussion, or a deleted chat."""
    tasks.insert_one(_plausible_task(chat_id))
    what = "document added for a chat that is no task"
    return Damage(TASKS.name, "unwanted_added", chat_id, None, "unexpected", what)


def swap_chat_ids(tasks: Collection[Document], one: str, other: str) -> list[Damage]:
    """Exchange the chat_ids of two tasks documents, which the unique index on chat_id allows only step by step."""
    found = {document["task_id"]: document for document in tasks.find({"task_id": {"$in": [one, other]}})}
    if len(found) != 2:
        raise DamageError(
            f"{tasks.full_name} does not hold both {one!r} and {other!r}, so their chat_ids cannot be swapped.",
            hint="Give the task_ids of two documents that it holds.",
        )
    first, second = found[one], found[other]
    for document_id, chat_id in (
        (first["_id"], f"parked {first['chat_id']}"),
        (second["_id"], first["chat_id"]),
        (first["_id"], second["chat_id"]),
    ):
        tasks.update_one({"_id": document_id}, {"$set": {"chat_id": chat_id}})
    return [
        Damage(TASKS.name, "chat_ids_swapped", key, "chat_id", "different", f"chat_id exchanged with that of {partner}")
        for key, partner in ((one, other), (other, one))
    ]


def damage_everything(
    chats: Collection[Document],
    tasks: Collection[Document],
    *,
    discussion_ids: Sequence[str] = (),
    tasks_model: OwnedFields = TASKS,
    seed: int = 0,
) -> list[Damage]:
    """Break one document for every field and way of both models, and remove, add and swap some; none is broken twice.

    Args:
        chats: the chats read model, right so far.
        tasks: the tasks read model, right so far.
        discussion_ids: chats that should have no tasks document and have none; each gets one. Every legacy task has a
            document, so there are none for these.
        tasks_model: what `tasks` is made from: `TASKS` for chat streams, `LEGACY_TASKS` for legacy task streams.
        seed: another seed breaks other documents.

    Returns:
        What was done, in the order in which it was done.

    Raises:
        DamageError: too few documents, or none to which some way applies; nothing was written then.
    """
    if tasks_model is TASKS:
        _check_unwanted(tasks, discussion_ids)
    rng = Random(seed)
    chats_plan, tasks_plan = _plan(chats, CHATS, rng), _plan(tasks, tasks_model, rng)
    done: list[Damage] = []
    for model, collection, plan in ((CHATS, chats, chats_plan), (tasks_model, tasks, tasks_plan)):
        for key, field, way in plan.breaks:
            done += break_field(collection, model, key, field, way)
        done.append(remove_document(collection, model, plan.removed))
        done.append(add_orphan(collection, model, _uuid(rng)))
    done += swap_chat_ids(tasks, *tasks_plan.swapped)
    done += [add_unwanted_task(tasks, chat_id) for chat_id in discussion_ids]
    return done


@dataclass(frozen=True, slots=True)
class _Plan:
    breaks: list[tuple[str, str, Way]]
    removed: str
    swapped: tuple[str, str]


def _plan(collection: Collection[Document], model: OwnedFields, rng: Random) -> _Plan:
    documents = _candidates(collection, model)
    keys = list(documents)
    rng.shuffle(keys)
    wanted = [
        ([key for key in keys if applies(way, documents[key].get(field, UNSET))], field, way)
        for field, ways in model.fields.items()
        for way in ways
        if not (_is_unique(field) and way.name == "nulled")
    ]
    breaks: list[tuple[str, str, Way]] = []
    free = dict.fromkeys(keys)
    # The ways that fit the fewest documents choose first, or commoner ways would take these from them.
    for fitting, field, way in sorted(wanted, key=lambda want: len(want[0])):
        key = next((key for key in fitting if key in free), None)
        if key is None:
            raise DamageError(
                f"No document of {collection.full_name} is left whose {field} can be {way.name!r}: "
                f"{len(keys)} documents for {len(wanted)} ways, {len(fitting)} of them fit this one.",
                hint="Fill the read model from more sample streams.",
            )
        del free[key]
        breaks.append((key, field, way))
    if len(free) < 3:
        raise DamageError(
            f"{collection.full_name} has only {len(keys)} documents, but {len(wanted) + 3} are needed.",
            hint="Fill the read model from more sample streams.",
        )
    removed, one, other = list(free)[:3]
    return _Plan(breaks, removed, (one, other))


def _candidates(collection: Collection[Document], model: OwnedFields) -> dict[str, Document]:
    stored = collection.with_options(codec_options=_AS_STORED)
    found = stored.find({model.key: {"$type": "string"}}).sort(model.key).limit(_MOST_CANDIDATES)
    return {document[model.key]: document for document in found}


def _check_unwanted(tasks: Collection[Document], discussion_ids: Sequence[str]) -> None:
    if not discussion_ids:
        raise DamageError(
            "No chat was given that should have no tasks document.",
            hint="Give the id of a discussion or a deleted chat.",
        )
    present = tasks.find_one({"task_id": {"$in": list(discussion_ids)}})
    if present is not None:
        raise DamageError(
            f"{tasks.full_name} has a document for {present['task_id']!r} already, so it cannot be added as unwanted.",
            hint="Give the ids of discussions or deleted chats.",
        )


def _is_unique(field: str) -> bool:
    # A unique index takes an absent field for a null one: only one document can have either.
    return field in ("chat_id", "task_id")


def _no_document(collection: Collection[Document], model: OwnedFields, key: str) -> DamageError:
    return DamageError(
        f"{collection.full_name} has no document with {model.key} {key!r}, so there is nothing to break.",
        hint="Give the key of a document that it holds.",
    )


def _bytes(value: Any) -> bytes:
    return b"" if value is UNSET else bson.encode({"": value})


def _uuid(rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _plausible_chat(chat_id: str) -> Document:
    return {
        "chat_id": chat_id,
        "workspace_id": chat_id,
        "type": "discussion",
        "title": "nobody wrote this",
        "is_public": True,
        "created_by": chat_id,
        "created_at": _SOME_TIME,
        "participants": [chat_id],
    }


def _plausible_task(task_id: str) -> Document:
    return {
        "task_id": task_id,
        "chat_id": task_id,
        "title": "nobody wrote this",
        "entity_type": "task",
        "status": "To Do",
        "priority": "Medium",
        "severity": None,
        "assigned_to": None,
        "due_date": None,
        "created_by": task_id,
        "created_at": _SOME_TIME,
        "version": 3,
        "attachments": [
            {"file_id": task_id, "file_name": "a.txt", "file_size": Int64(1), "mime_type": "text/plain; charset=utf-8"}
        ],
    }
