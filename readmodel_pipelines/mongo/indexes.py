"""Indexes: those that the application keeps (DATA_CONTRACT.md), made where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.event_store import VERSION_ORDER
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.scan import Document, holds_every_document
from readmodel_pipelines.mongo.server import DENIED
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings

_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its key, whether it is unique, and its name where it is fixed.

    With `expire_seconds` documents that it holds are deleted so long after the date in it; `only` is the filter of the
    documents that it holds, none for all.
    """

    key: tuple[tuple[str, int], ...]
    unique: bool = False
    name: str | None = None
    expire_seconds: int | None = None
    only: Mapping[str, Any] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Besides the key, what MongoDB is told of it and says of it, but for the expiry."""
        named = {"name": self.name, "partialFilterExpression": self.only}
        return {"unique": self.unique, **{option: value for option, value in named.items() if value is not None}}


EVENTS = (
    Index((("aggregate_id", 1), ("version", 1)), unique=True, name="idx_events_aggregate_version_unique"),
    Index((("event_type", 1), ("occurred_at", -1))),
    Index((("aggregate_type", 1), ("occurred_at", -1))),
)
# Ours: a look at presence and versions reads no event for it.
VERSIONS = Index(tuple((name, 1) for name in VERSION_ORDER))
REPAIR_QUEUE = (
    Index((("status", 1), ("created_at", 1))),
    Index((("aggregate_id", 1), ("aggregate_type", 1))),
    Index((("task_type", 1), ("status", 1))),
    Index((("retry_count", 1), ("status", 1))),
    # Ours: what is due, in order, and the open tasks of an aggregate however many it has completed.
    Index((("status", 1), ("next_attempt_at", 1), ("created_at", 1))),
    Index((("aggregate_id", 1), ("status", 1))),
    # Ours: dead letters are counted by reason without being read.
    Index((("status", 1), ("reason", 1)), name="dead_letters_by_reason", only={"status": "failed"}),
)
FINDINGS = (
    Index((("read_model", 1), ("state", 1), ("aggregate_id", 1))),
    # Those that are open are counted, and the oldest is found, without reading them.
    Index((("read_model", 1), ("state", 1), ("outcome", 1), ("first_seen", 1))),
    Index((("closed_at", 1),), name="expiry", expire_seconds=90 * _DAY),
)
VERIFICATIONS = (
    Index((("read_model", 1), ("started_at", -1))),
    # The last one of everything, however many of a part came after it.
    Index((("read_model", 1), ("tier", 1), ("coverage", 1), ("started_at", -1))),
    Index((("started_at", 1),), name="expiry", expire_seconds=400 * _DAY),
)
REBUILDS = (
    Index((("of", 1), ("number", 1))),
    Index((("kind", 1), ("started_at", -1))),
    Index((("ended_at", 1),), name="expiry", expire_seconds=400 * _DAY),
)
# What workers that died left behind, once no takeover is to be expected any more.
LEASES = (Index((("expires_at", 1),), name="expiry", expire_seconds=_DAY),)


def of_repair_queue(settings: Settings) -> tuple[Index, ...]:
    """The indexes of the repair queue; one lets completed tasks expire."""
    retention = Index(
        (("completed_at", 1),),
        name="retention_of_completed",
        expire_seconds=int(settings.repair_retention_days * _DAY),
        only={"status": "completed"},
    )
    return (*REPAIR_QUEUE, retention)


def of_read_model(projection: Projection) -> tuple[Index, ...]:
    """The unique indexes of a read model: its key, and the other unique fields."""
    return tuple(Index(((name, 1),), unique=True) for name in (projection.key, *projection.unique))


def wanted_indexes(
    settings: Settings, projections: Iterable[Projection], *, for_versions: bool = True
) -> Mapping[str, tuple[Index, ...]]:
    """Every index that ought to be there, by collection; that for the tier of versions can be left out."""
    return {
        settings.events_collection: (*EVENTS, VERSIONS) if for_versions else EVENTS,
        settings.repair_queue_collection: of_repair_queue(settings),
        names.LEASES: LEASES,
        names.FINDINGS: FINDINGS,
        names.VERIFICATIONS: VERIFICATIONS,
        names.REBUILDS: REBUILDS,
        **{collection_of(settings, item): of_read_model(item) for item in projections},
    }


def ensure_indexes(
    database: Database[Document], settings: Settings, projections: Iterable[Projection], *, for_versions: bool = True
) -> dict[str, list[str]]:
    """Make the indexes that are missing; gives their names by collection. Those that are there are left alone.

    Raises:
        ReadModelError: an index cannot be made, because documents stand against it or another index is in its place.
    """
    return {
        name: [made for index in indexes if (made := _ensure(database[name], index))]
        for name, indexes in wanted_indexes(settings, projections, for_versions=for_versions).items()
    }


@dataclass(frozen=True, slots=True)
class Flaw:
    """An index that is not as it ought to be: `missing`, or `instead` of it is one with the same key.

    Such a one is of another kind (`other`), or lets documents expire at another time (`expiry`).
    """

    collection: str
    index: Index
    kind: Literal["missing", "other", "expiry"]
    instead: str = ""

    @property
    def in_the_way(self) -> bool:
        """Whether it must be dropped before the right one can be made."""
        return self.kind == "other"


def flaws(database: Database[Document], settings: Settings, projections: Iterable[Projection]) -> list[Flaw]:
    """What `ensure_indexes` would make, change or fail at. Makes nothing."""
    return [
        flaw
        for name, indexes in wanted_indexes(settings, projections).items()
        for there in [list(database[name].list_indexes())]
        for index in indexes
        if (flaw := _flaw(name, index, there))
    ]


def _flaw(collection: str, index: Index, there: Sequence[Mapping[str, Any]]) -> Flaw | None:
    for item in there:
        if _is_as_wanted(index, item):
            of_old = index.expire_seconds is not None and item.get("expireAfterSeconds") != index.expire_seconds
            return Flaw(collection, index, "expiry", str(item["name"])) if of_old else None
    instead = next((str(item["name"]) for item in there if tuple(item["key"].items()) == index.key), "")
    return Flaw(collection, index, "other" if instead else "missing", instead)


def ensure_for_empty(collection: Collection[Document], projection: Projection) -> list[str]:
    """Make an empty read model's indexes, and say what is missing of a filled one's, as warnings.

    A filled production collection gets no index behind its owner's back, and an empty one none that the user may not
    make.
    """
    there = list(collection.list_indexes())
    missing = [index for index in of_read_model(projection) if not _is_among(index, there)]
    if missing and collection.find_one({}, {"_id": 1}) is None:
        try:
            for index in missing:
                _ensure(collection, index)
        except OperationFailure as error:
            if error.code not in DENIED:
                raise
        else:
            return []
    return [
        f"{collection.name} has no unique index on {index.key[0][0]}; two writers can make duplicates. "
        "`readmodel ensure-indexes` makes it."
        for index in missing
    ]


def _is_among(index: Index, there: Iterable[Mapping[str, Any]]) -> bool:
    return any(_is_as_wanted(index, item) for item in there)


def _is_as_wanted(index: Index, item: Mapping[str, Any]) -> bool:
    if tuple(item["key"].items()) != index.key or bool(item.get("unique")) != index.unique:
        return False
    if index.only is not None:
        return item.get("partialFilterExpression") == index.only
    return holds_every_document(item)


def _ensure(collection: Collection[Document], index: Index) -> str | None:
    for item in collection.list_indexes():
        if _is_as_wanted(index, item):
            return _ensure_expiry(collection, index, item)
    options = index.options | ({} if index.expire_seconds is None else {"expireAfterSeconds": index.expire_seconds})
    try:
        return collection.create_index(list(index.key), **options)
    except OperationFailure as error:
        if error.code in DENIED:
            raise
        fields = ", ".join(name for name, _ in index.key)
        raise ReadModelError(
            f"{collection.name}: the index on {fields} cannot be made: {str(error.details or error)[:300]}",
            hint="Mend the documents that stand against it, or drop the index that is in its place, and run it again.",
        ) from None


def _ensure_expiry(collection: Collection[Document], index: Index, item: Mapping[str, Any]) -> str | None:
    """A changed retention: the index is there, and MongoDB refuses to make it again with another one."""
    if index.expire_seconds is None or item.get("expireAfterSeconds") == index.expire_seconds:
        return None
    changed = {"name": item["name"], "expireAfterSeconds": index.expire_seconds}
    collection.database.command("collMod", collection.name, index=changed)
    return f"{item['name']} (expiry changed)"
