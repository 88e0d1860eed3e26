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
from bson import ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion

from readmodel_pipelines.demo.damage_ways import CHATS, TASKS, OwnedFields, Way
from readmodel_pipelines.demo.sample_stream import uuid_of
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.reconcile.compare import ABSENT

Outcome = Literal["missing", "different", "unexpected", "orphan"]

_AS_STORED: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
_MOST_CANDIDATES = 2000
_HINT = "Take more chats: --chats 300."


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that was done to the read model `chats` or `tasks`, and the `outcome` that a verification must find.

    `kind` is the way of `damage_ways`, or `document_removed`, `orphan_added`, `unwanted_added`, `chat_ids_swapped`.
    `key` is the chat_id or task_id that a verification reports, no string when the key itself was broken; `field` is
    None when the whole document is wrong.
    """

    model: str
    kind: str
    key: Any
    field: str | None
    outcome: Outcome


def break_field(collection: Collection, model: OwnedFields, key: str, field: str, way: Way) -> list[Damage]:
    """Make the field of the document with that key wrong in that way.

    Returns:
        One damage; two when the field is the key: the document is missing under the old one, an orphan under the new.

    Raises:
        UsageError: there is no such document, or the way does not apply to the value that it holds.
    """
    document = _document(collection, model, key)
    right = document.get(field, ABSENT)
    if not applies(way, right):
        raise UsageError(f"{field} of {key!r} in {collection.full_name} is {right!r}: {way.name!r} leaves it as it is.")
    wrong = way.wrong(right)
    change = {"$unset": {field: ""}} if wrong is ABSENT else {"$set": {field: wrong}}
    collection.update_one({"_id": document["_id"]}, change)
    if field != model.key:
        return [Damage(model.name, way.name, key, field, "different")]
    stored = None if wrong is ABSENT else wrong
    return [
        Damage(model.name, way.name, key, field, "missing"),
        Damage(model.name, way.name, stored, field, "orphan"),
    ]


def applies(way: Way, right: Any) -> bool:
    """Whether the way would change that value by at least one byte. An absent field is `ABSENT`."""
    return _bytes(way.wrong(right)) != _bytes(right)


def remove_document(collection: Collection, model: OwnedFields, key: str) -> Damage:
    """Delete the document with that key."""
    collection.delete_one({"_id": _document(collection, model, key)["_id"]})
    return Damage(model.name, "document_removed", key, None, "missing")


def add_orphan(collection: Collection, model: OwnedFields, key: str) -> Damage:
    """Insert a document that looks like the others under a key that no stream has."""
    _insert_like_others(collection, model, key)
    return Damage(model.name, "orphan_added", key, None, "orphan")


def add_unwanted_task(tasks: Collection, chat_id: str) -> Damage:
    """Insert a document that looks like the others for a chat that should have none: a discussion, or a deleted one."""
    _insert_like_others(tasks, TASKS, chat_id)
    return Damage(TASKS.name, "unwanted_added", chat_id, None, "unexpected")


def swap_chat_ids(tasks: Collection, one: str, other: str) -> list[Damage]:
    """Exchange the chat_ids of two tasks documents, which the unique index on chat_id allows only step by step."""
    first, second = (_document(tasks, TASKS, key) for key in (one, other))
    for document_id, chat_id in (
        (first["_id"], f"parked {first['chat_id']}"),
        (second["_id"], first["chat_id"]),
        (first["_id"], second["chat_id"]),
    ):
        tasks.update_one({"_id": document_id}, {"$set": {"chat_id": chat_id}})
    return [Damage(TASKS.name, "chat_ids_swapped", key, "chat_id", "different") for key in (one, other)]


def damage_everything(
    chats: Collection,
    tasks: Collection,
    *,
    discussion_ids: Sequence[str] = (),
    tasks_model: OwnedFields = TASKS,
    seed: int = 0,
) -> list[Damage]:
    """Break one document for every field and way of both models, and remove, add and swap some; none is broken twice.

    Both read models are right so far. `discussion_ids` are chats that should have no tasks document and have none; each
    gets one (with `LEGACY_TASKS`, made from legacy task streams, there are none). Another seed breaks other documents.

    Raises:
        UsageError: too few documents, or none to which some way applies; nothing was written then.
    """
    if tasks_model is TASKS and not discussion_ids:
        raise UsageError("No chat was given that should have no tasks document.", hint=_HINT)
    if tasks.find_one({"task_id": {"$in": list(discussion_ids)}}) is not None:
        raise UsageError(f"{tasks.full_name} has documents already for chats that should have none.")
    rng = Random(seed)
    places = (CHATS, chats), (tasks_model, tasks)
    plans = [_plan(collection, model, rng) for model, collection in places]
    done: list[Damage] = []
    for (model, collection), (breaks, (removed, *_)) in zip(places, plans, strict=True):
        for key, field, way in breaks:
            done += break_field(collection, model, key, field, way)
        done.append(remove_document(collection, model, removed))
        done.append(add_orphan(collection, model, uuid_of(rng.getrandbits(128))))
    one, other = plans[1][1][1:]
    done += swap_chat_ids(tasks, one, other)
    done += [add_unwanted_task(tasks, chat_id) for chat_id in discussion_ids]
    return done


def _plan(collection: Collection, model: OwnedFields, rng: Random) -> tuple[list[tuple[str, str, Way]], list[str]]:
    """What to break (key, field, way), and the keys of three documents that stay whole so far."""
    stored = collection.with_options(codec_options=_AS_STORED).find({model.key: {"$type": "string"}})
    documents = {document[model.key]: document for document in stored.sort(model.key).limit(_MOST_CANDIDATES)}
    keys = list(documents)
    rng.shuffle(keys)
    wanted = [
        ([key for key in keys if applies(way, documents[key].get(field, ABSENT))], field, way)
        for field, ways in model.fields.items()
        for way in ways
        # A unique index takes an absent field for a null one: only one document can have either.
        if not (field in ("chat_id", "task_id") and way.name == "nulled")
    ]
    breaks: list[tuple[str, str, Way]] = []
    free = dict.fromkeys(keys)
    # The ways that fit the fewest documents choose first, or commoner ways would take these from them.
    for fitting, field, way in sorted(wanted, key=lambda want: len(want[0])):
        key = next((key for key in fitting if key in free), None)
        if key is None:
            raise UsageError(
                f"No document of {collection.full_name} is left whose {field} can be {way.name!r}: "
                f"{len(keys)} documents for {len(wanted)} ways, {len(fitting)} of them fit this one.",
                hint=_HINT,
            )
        del free[key]
        breaks.append((key, field, way))
    if len(free) < 3:
        raise UsageError(
            f"{collection.full_name} has only {len(keys)} documents, but {len(wanted) + 3} are needed.", hint=_HINT
        )
    return breaks, list(free)[:3]


def _document(collection: Collection, model: OwnedFields, key: str) -> Document:
    document = collection.with_options(codec_options=_AS_STORED).find_one({model.key: key})
    if document is None:
        raise UsageError(f"{collection.full_name} has no document with {model.key} {key!r}, so nothing to break.")
    return document


def _insert_like_others(collection: Collection, model: OwnedFields, key: str) -> None:
    other = collection.with_options(codec_options=_AS_STORED).find_one({}, dict.fromkeys(model.fields, 1)) or {}
    collection.insert_one(other | dict.fromkeys(("chat_id", model.key), key) | {"_id": ObjectId()})


def _bytes(value: Any) -> bytes:
    return b"" if value is ABSENT else bson.encode({"": value})
