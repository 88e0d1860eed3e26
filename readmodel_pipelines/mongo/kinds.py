"""The kind of a collection: not every one can hold events, a read model or the repair queue.

A view, a capped collection and a time series look like collections, but lack some of their operations. Unsuitable ones
are refused with a sentence before anything is read.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.errors import UnsuitableCollection
from readmodel_pipelines.mongo.driver import DENIED, Collection, Database, OperationFailure, is_there
from readmodel_pipelines.mongo.names import OURS

_OTHER_COLLATION = 167
_IS_A_VIEW = 166
OF_VIEWS = (_OTHER_COLLATION, _IS_A_VIEW)
"""The server's errors for an operation that a view or a time series does not support."""
_NO_WRITES = {
    "view": ("is a view, which cannot be written", "Name its collection."),
    "timeseries": (
        "is a time series collection, in which no document can be replaced",
        "Copy it into an ordinary collection, and name that.",
    ),
}
_CAPPED = (
    "is capped: MongoDB drops its oldest documents when new ones arrive",
    "Copy it into a collection without a limit, and rename that.",
)
_HINT_OF_OURS = "This project stores its own records there. Rename or drop it; it is created again."


def check_kinds(
    database: Database,
    read: Sequence[str] = (),
    written: Sequence[str] = (),
    kept: Sequence[str] = (),
    *,
    to_remember: Sequence[str] = (),
) -> None:
    """Refuse collections that do not support the needed reads or writes, or that drop documents.

    Missing ones pass. This project's own are checked, too. Those `to_remember` are read with them, for a later check.

    Raises:
        UnsuitableCollection: with the name, the reason and the remedy.
    """
    asked_for = [*read, *written, *kept, *OURS]
    found = _found(database, [*asked_for, *to_remember])
    for name in asked_for:
        info = found.get(name, {})
        kind = info.get("type", "")
        if name in written or name in kept or name in OURS:
            why, hint = _NO_WRITES.get(kind, ("", ""))
            if name not in written and info.get("options", {}).get("capped"):
                why, hint = _CAPPED
            if why:
                raise UnsuitableCollection(f"{name} {why}.", hint=_HINT_OF_OURS if name in OURS else hint)
        if kind == "view":
            _check_view(Collection(database, name))


def _found(database: Database, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    remembered = _remembered.get()
    if remembered is None:
        return _asked_for(database, names)
    now = time.monotonic()
    known = {name: remembered.kinds.get(f"{database.name}.{name}", _NEVER) for name in names}
    if unknown := [name for name, (asked, _) in known.items() if now - asked >= _REMEMBERED_SECONDS]:
        found = _asked_for(database, unknown)
        known |= {name: (now, found.get(name)) for name in unknown}
        remembered.kinds.update({f"{database.name}.{name}": known[name] for name in unknown})
    return {name: info for name, (_, info) in known.items() if info is not None}


def _asked_for(database: Database, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
    these = {"name": {"$in": list(names)}}
    try:
        found = list(database.list_collections(filter=these))
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
        # Without the right to list all, a user gets the types of the collections that it may use, without options.
        found = list(database.list_collections(filter=these, nameOnly=True, authorizedCollections=True))
    return {info["name"]: info for info in found}


def _check_view(view: Collection) -> None:
    try:
        is_there(view)
    except OperationFailure as error:
        if error.code != _OTHER_COLLATION:
            raise
        raise UnsuitableCollection(
            f"{view.name} is a view with its own collation, which every query on it uses; keys must be compared by "
            "their bytes.",
            hint="Create the view without a collation, or name its collection.",
        ) from None


_REMEMBERED_SECONDS = 10.0
_NEVER = (-math.inf, None)
_Indexes = list[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class _Remembered:
    """Kinds and indexes by the full names of collections, each with the time at which it was asked for."""

    kinds: dict[str, tuple[float, Mapping[str, Any] | None]] = field(default_factory=dict)
    indexes: dict[str, tuple[float, _Indexes]] = field(default_factory=dict)


_remembered: ContextVar[_Remembered | None] = ContextVar("remembered", default=None)


@contextmanager
def kinds_remembered() -> Iterator[None]:
    """Cache kinds and indexes for some seconds, so that the steps of one piece of work read them once.

    Work inside of other work shares its cache. Code that creates an index calls `forget_indexes`.
    """
    before = _remembered.set(_remembered.get() or _Remembered())
    try:
        yield
    finally:
        _remembered.reset(before)


def forget_indexes(collection: Collection) -> None:
    """Drop its cached indexes, which are about to change."""
    if (remembered := _remembered.get()) is not None:
        remembered.indexes.pop(collection.full_name, None)


def indexes_of(collection: Collection) -> list[Mapping[str, Any]] | None:
    """Its indexes as the server describes them; None for a view, which has none."""
    remembered, now = _remembered.get(), time.monotonic()
    if remembered is None:
        return _indexes_of(collection)
    asked, indexes = remembered.indexes.get(collection.full_name, _NEVER)
    if now - asked >= _REMEMBERED_SECONDS:
        indexes = _indexes_of(collection)
        remembered.indexes[collection.full_name] = now, indexes
    return indexes


def _indexes_of(collection: Collection) -> _Indexes:
    try:
        return list(collection.list_indexes())
    except OperationFailure as error:
        if error.code != _IS_A_VIEW:
            raise
        return None


def expiry_of(collection: Collection) -> str:
    """The name of an index that lets documents of a collection expire; empty if there is none."""
    return next((str(index["name"]) for index in indexes_of(collection) or () if "expireAfterSeconds" in index), "")
