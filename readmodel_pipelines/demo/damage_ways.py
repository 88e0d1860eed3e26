"""The ways in which one field of a read model can be wrong: for each field of each model, a table of named ways.

A way turns the field's right value into a wrong one. It says `ABSENT` for a field to take out, is given `ABSENT` for a
field that is absent, and returns what it was given when it cannot make that value wrong (there is no int64 of a text).
Dates come and go as `bson.DatetimeMS`, so that any date of BSON can be damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, Regex, Timestamp
from bson.binary import UUID_SUBTYPE

from readmodel_pipelines.reconcile.compare import ABSENT


@dataclass(frozen=True, slots=True)
class Way:
    """One way to get a field wrong: `wrong(right value)` is the wrong value."""

    name: str
    wrong: Callable[[Any], Any]


Ways = tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class OwnedFields:
    """The fields that the project owns in one read model; `key` is the one that names the document."""

    name: Literal["chats", "tasks"]
    key: str
    fields: Mapping[str, Ways]


def _on(kind: type | tuple[type, ...], name: str, wrong: Callable[[Any], Any]) -> Way:
    # bool is an int to Python and Code is a str, but BSON has other types for them.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return Way(name, lambda value: wrong(value) if type(value) in kinds else value)


def _present(name: str, wrong: Callable[[Any], Any]) -> Way:
    return Way(name, lambda value: value if value is ABSENT or value is None else wrong(value))


_INTEGERS = (int, Int64)
_ALWAYS: Ways = (
    _present("removed", lambda _: ABSENT),
    _present("nulled", lambda _: None),
)


def _optional(example: Any) -> Ways:
    return (
        *_ALWAYS,
        Way("added", lambda value: example if value is ABSENT else value),
        Way("null_added", lambda value: None if value is ABSENT else value),
    )


def _nullable(example: Any) -> Ways:
    return (
        *_ALWAYS,
        Way("filled", lambda value: example if value is None else value),
        Way("null_removed", lambda value: ABSENT if value is None else value),
    )


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
