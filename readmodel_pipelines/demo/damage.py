"""Damages documents of the read models on purpose, so that the demo and the tests can find and repair them.

Each function changes exactly one document (a swap: two) of a collection by at least one byte, and returns the outcome
that a verification must report. It writes only that document, and no event.

For each field of each model there is a table of named ways to damage it. A way turns the right value into a wrong one.
It returns `ABSENT` to remove a field, and gets `ABSENT` for a missing field. If it cannot make that value wrong (there
is no int64 of a text), it returns it unchanged. Dates are `bson.DatetimeMS`, so that any BSON date can be damaged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

import bson
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE
from bson.codec_options import CodecOptions, DatetimeConversion

from readmodel_pipelines.demo.sample_stream import uuid_of
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.driver import AnyCollection, Document
from readmodel_pipelines.reconcile.compare import ABSENT

Outcome = Literal["missing", "different", "unexpected", "orphan"]

_AS_STORED: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
_MOST_CANDIDATES = 2000
_HINT = "Take more chats: --chats 300."


@dataclass(frozen=True, slots=True)
class Way:
    """One way to damage a field: `wrong(right value)` is the wrong value."""

    name: str
    wrong: Callable[[Any], Any]


Ways = tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class OwnedFields:
    """The fields that the project owns in one read model; `key` identifies the document."""

    name: Literal["chats", "tasks"]
    key: str
    fields: Mapping[str, Ways]


def _on(kind: type | tuple[type, ...], name: str, wrong: Callable[[Any], Any]) -> Way:
    # In Python bool is an int and Code a str, but BSON has other types for them.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return Way(name, lambda value: wrong(value) if type(value) in kinds else value)


def _present(name: str, wrong: Callable[[Any], Any]) -> Way:
    return Way(name, lambda value: value if value is ABSENT or value is None else wrong(value))


_INTEGERS = (int, Int64)
_ALWAYS: Ways = (_present("removed", lambda _: ABSENT), _present("nulled", lambda _: None))


def _instead_of(nothing: Any, name: str, example: Any) -> Way:
    return Way(name, lambda value: example if value is nothing else value)


def _optional(example: Any) -> Ways:
    return (*_ALWAYS, _instead_of(ABSENT, "added", example), _instead_of(ABSENT, "null_added", None))


def _nullable(example: Any) -> Ways:
    return (*_ALWAYS, _instead_of(None, "filled", example), _instead_of(None, "null_removed", ABSENT))


_TEXT: Ways = (
    _on(str, "changed", lambda text: text + " (changed)"),
    _on(str, "emptied", lambda _: ""),
    _on(str, "as_int32", lambda _: 1),
    _on(str, "as_array", lambda text: [text]),
    _on(str, "as_code", Code),
)


def _other_uuid(text: str) -> str:
    return str(uuid5(NAMESPACE_OID, text))


def _binary_uuid(text: str) -> Binary:
    return Binary(uuid5(NAMESPACE_OID, text).bytes if len(text) != 36 else UUID(text).bytes, UUID_SUBTYPE)


_ID: Ways = (
    _on(str, "changed", _other_uuid),
    _on(str, "upper_cased", str.upper),
    _on(str, "as_binary", _binary_uuid),
    _on(str, "as_document", lambda text: {"id": text}),
)
_BOOL: Ways = (
    _on(bool, "changed", lambda flag: not flag),
    _on(bool, "as_int32", int),
    _on(bool, "as_double", float),
    _on(bool, "as_text", lambda flag: str(flag).lower()),
)
_DATE: Ways = (
    _on(DatetimeMS, "changed", lambda date: DatetimeMS(int(date) + 1)),
    _on(DatetimeMS, "day_changed", lambda date: DatetimeMS(int(date) - 86_400_000)),
    _on(DatetimeMS, "as_text", lambda _: "2026-03-01T08:00:00Z"),
    _on(DatetimeMS, "as_int64", lambda date: Int64(int(date))),
    _on(DatetimeMS, "as_timestamp", lambda date: Timestamp(int(date) // 1000 % 2**32, 1)),
)
_VERSION: Ways = (
    _on(_INTEGERS, "changed", lambda version: version + 1),
    _on(_INTEGERS, "behind", lambda version: version - 1),
    _on(_INTEGERS, "far_ahead", lambda _: 999),
    _on(int, "as_int64", Int64),
    _on(_INTEGERS, "as_double", float),
    _on(_INTEGERS, "as_decimal", lambda version: Decimal128(str(int(version)))),
    _on(_INTEGERS, "as_text", lambda _: "x"),
)


def _reordered(items: list[Any]) -> list[Any]:
    return next((items[-turn:] + items[:-turn] for turn in range(1, len(items)) if items[-turn] != items[0]), items)


_ARRAY: Ways = (
    _on(list, "reordered", _reordered),
    _on(list, "entry_repeated", lambda items: [*items, items[0]] if items else items),
    _on(list, "entry_removed", lambda items: items[:-1]),
    _on(list, "entry_nulled", lambda items: [*items[:-1], None] if items else items),
    _on(list, "emptied", lambda _: []),
    _on(list, "as_document", lambda items: {str(index): item for index, item in enumerate(items)}),
    _on(list, "as_text", str),
)
_PARTICIPANTS: Ways = (
    *_ARRAY,
    _on(list, "changed", lambda users: [*users, "nobody"]),
    _on(list, "entry_as_regex", lambda users: [*users[:-1], Regex(users[-1])] if users else users),
)


def _of_last_file(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Way:
    return _on(list, name, lambda files: [*files[:-1], change(files[-1])] if files else files)


_ATTACHMENTS: Ways = (
    *_ARRAY,
    _of_last_file("changed", lambda file: {**file, "file_name": file["file_name"] + " (changed)"}),
    _of_last_file("file_id_changed", lambda file: {**file, "file_id": _other_uuid(file["file_id"])}),
    _of_last_file("size_changed", lambda file: {**file, "file_size": Int64(file["file_size"] - 1)}),
    _of_last_file("size_as_double", lambda file: {**file, "file_size": float(file["file_size"])}),
    _of_last_file(
        "size_as_int32",
        lambda file: {**file, "file_size": int(file["file_size"])} if file["file_size"] < 2**31 else file,
    ),
    _of_last_file("mime_type_removed", lambda file: {k: v for k, v in file.items() if k != "mime_type"}),
    _of_last_file("field_added", lambda file: {**file, "added_by": "nobody"}),
)

_SOMEBODY = "7a1c6b1e-4f63-4d0a-9a53-3c1f7a2b9e10"
_SOME_DAY = DatetimeMS(1_772_352_000_000)

CHATS: Final = OwnedFields(
    "chats",
    "chat_id",
    {
        "chat_id": (*_ALWAYS, *_ID),
        "workspace_id": (*_ALWAYS, *_ID),
        "type": (*_ALWAYS, *_TEXT),
        "title": (*_ALWAYS, *_TEXT),
        "is_public": (*_ALWAYS, *_BOOL),
        "created_by": (*_ALWAYS, *_ID),
        "created_at": (*_ALWAYS, *_DATE),
        "participants": (*_ALWAYS, *_PARTICIPANTS),
        "status": (*_optional("To Do"), *_TEXT),
        "priority": (*_optional("Low"), *_TEXT),
        "assigned_to": (*_optional(_SOMEBODY), *_ID),
        "due_date": (*_optional(_SOME_DAY), *_DATE),
        "severity": (*_optional("Minor"), *_TEXT),
    },
)
"""The chats read model: status and the fields below it are absent from some documents."""

_LEGACY_TASK_FIELDS = {
    "task_id": (*_ALWAYS, *_ID),
    "chat_id": (*_ALWAYS, *_ID),
    "title": (*_ALWAYS, *_TEXT),
    "entity_type": (*_ALWAYS, *_TEXT),
    "status": (*_ALWAYS, *_TEXT),
    "priority": (*_ALWAYS, *_TEXT),
    "created_by": (*_ALWAYS, *_ID),
    "assigned_to": (*_nullable(_SOMEBODY), *_ID),
    "due_date": (*_nullable(_SOME_DAY), *_DATE),
    "created_at": (*_ALWAYS, *_DATE),
    "version": (*_ALWAYS, *_VERSION),
}

LEGACY_TASKS: Final = OwnedFields("tasks", "task_id", _LEGACY_TASK_FIELDS)
"""The tasks read model made from `Task` streams."""

_MORE_TASK_FIELDS = {"severity": (*_nullable("Minor"), *_TEXT), "attachments": (*_ALWAYS, *_ATTACHMENTS)}

TASKS: Final = OwnedFields("tasks", "task_id", {**_LEGACY_TASK_FIELDS, **_MORE_TASK_FIELDS})
"""The tasks read model made from chat streams: every field always present, some of them null."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage in the read model `chats` or `tasks`, and the `outcome` that a verification must report.

    `kind` is the name of the way, or `document_removed`, `orphan_added`, `unwanted_added`, `chat_ids_swapped`. `key` is
    the chat_id or task_id that a verification reports; it is no string if the key itself was damaged. `field` is None
    if the whole document is wrong.
    """

    model: str
    kind: str
    key: Any
    field: str | None
    outcome: Outcome


def break_field(collection: AnyCollection, model: OwnedFields, key: str, field: str, way: Way) -> list[Damage]:
    """Damage a field of the document with that key in that way.

    Returns:
        One damage; two if the field is the key: the document is missing under the old key, an orphan under the new.

    Raises:
        UsageError: there is no such document, or the way does not change its value.
    """
    document = _document(collection, model, key)
    right = document.get(field, ABSENT)
    if not applies(way, right):
        raise UsageError(f"{way.name!r} does not change {field} of {key!r} in {collection.full_name}: it is {right!r}.")
    wrong = way.wrong(right)
    change = {"$unset": {field: ""}} if wrong is ABSENT else {"$set": {field: wrong}}
    collection.update_one({"_id": document["_id"]}, change)
    if field != model.key:
        return [Damage(model.name, way.name, key, field, "different")]
    stored = None if wrong is ABSENT else wrong
    return [Damage(model.name, way.name, key, field, "missing"), Damage(model.name, way.name, stored, field, "orphan")]


def applies(way: Way, right: Any) -> bool:
    """Whether the way would change that value by at least one byte. A missing field is `ABSENT`."""
    return _bytes(way.wrong(right)) != _bytes(right)


def remove_document(collection: AnyCollection, model: OwnedFields, key: str) -> Damage:
    """Delete the document with that key."""
    collection.delete_one({"_id": _document(collection, model, key)["_id"]})
    return Damage(model.name, "document_removed", key, None, "missing")


def add_orphan(collection: AnyCollection, model: OwnedFields, key: str) -> Damage:
    """Insert a plausible document under a key that no stream has."""
    _insert_like_others(collection, model, key)
    return Damage(model.name, "orphan_added", key, None, "orphan")


def add_unwanted_task(tasks: AnyCollection, chat_id: str) -> Damage:
    """Insert a plausible document for a chat that should have none: a discussion, or a deleted one."""
    _insert_like_others(tasks, TASKS, chat_id)
    return Damage(TASKS.name, "unwanted_added", chat_id, None, "unexpected")


def swap_chat_ids(tasks: AnyCollection, one: str, other: str) -> list[Damage]:
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
    chats: AnyCollection,
    tasks: AnyCollection,
    *,
    discussion_ids: Sequence[str] = (),
    tasks_model: OwnedFields = TASKS,
    seed: int = 0,
) -> list[Damage]:
    """Damage one document for every field and way of both models, and remove, add and swap some; each only once.

    Both read models must be right before. `discussion_ids` are chats that should have no tasks document and have none;
    each gets one. (With `LEGACY_TASKS`, made from legacy task streams, there are none.) Another seed damages other
    documents.

    Raises:
        UsageError: there are too few documents, or none to which some way applies; nothing was written then.
    """
    if tasks_model is TASKS and not discussion_ids:
        raise UsageError("No chats without a tasks document were given.", hint=_HINT)
    if tasks.find_one({"task_id": {"$in": list(discussion_ids)}}) is not None:
        raise UsageError(f"{tasks.full_name} already has documents for chats that should have none.")
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


def _plan(collection: AnyCollection, model: OwnedFields, rng: Random) -> tuple[list[tuple[str, str, Way]], list[str]]:
    """The damages (key, field, way), and the keys of three documents that are still right."""
    stored = collection.with_options(codec_options=_AS_STORED).find({model.key: {"$type": "string"}})
    documents = {document[model.key]: document for document in stored.sort(model.key).limit(_MOST_CANDIDATES)}
    keys = list(documents)
    rng.shuffle(keys)
    wanted = [
        ([key for key in keys if applies(way, documents[key].get(field, ABSENT))], field, way)
        for field, ways in model.fields.items()
        for way in ways
        # A unique index treats a missing field like null, so only one document can have either.
        if not (field in ("chat_id", "task_id") and way.name == "nulled")
    ]
    breaks: list[tuple[str, str, Way]] = []
    free = dict.fromkeys(keys)
    # The ways that fit the fewest documents choose first; otherwise common ways would take these documents.
    for fitting, field, way in sorted(wanted, key=lambda want: len(want[0])):
        key = next((key for key in fitting if key in free), None)
        if key is None:
            raise UsageError(
                f"No undamaged document of {collection.full_name} is left whose {field} can be {way.name!r}: "
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


def _document(collection: AnyCollection, model: OwnedFields, key: str) -> Document:
    document = collection.with_options(codec_options=_AS_STORED).find_one({model.key: key})
    if document is None:
        raise UsageError(f"{collection.full_name} has no document with {model.key} {key!r}, so it cannot be damaged.")
    return document


def _insert_like_others(collection: AnyCollection, model: OwnedFields, key: str) -> None:
    other = collection.with_options(codec_options=_AS_STORED).find_one({}, dict.fromkeys(model.fields, 1)) or {}
    collection.insert_one(other | dict.fromkeys(("chat_id", model.key), key) | {"_id": ObjectId()})


def _bytes(value: Any) -> bytes:
    return b"" if value is ABSENT else bson.encode({"": value})
