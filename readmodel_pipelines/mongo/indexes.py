"""Indexes: those that the application keeps (DATA_CONTRACT.md), made where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.connection import DENIED
from readmodel_pipelines.mongo.scan import Document, holds_every_document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its key, whether it is unique, and its name where the application fixed one."""

    key: tuple[tuple[str, int], ...]
    unique: bool = False
    name: str | None = None


EVENTS = (
    Index((("aggregate_id", 1), ("version", 1)), unique=True, name="idx_events_aggregate_version_unique"),
    Index((("event_type", 1), ("occurred_at", -1))),
    Index((("aggregate_type", 1), ("occurred_at", -1))),
)
REPAIR_QUEUE = (
    Index((("status", 1), ("created_at", 1))),
    Index((("aggregate_id", 1), ("aggregate_type", 1))),
    Index((("task_type", 1), ("status", 1))),
    Index((("retry_count", 1), ("status", 1))),
)


def of_read_model(projection: Projection) -> tuple[Index, ...]:
    """The unique indexes of a read model: its key, and the other unique fields."""
    return tuple(Index(((name, 1),), unique=True) for name in (projection.key, *projection.unique))


def wanted_indexes(settings: Settings, projections: Iterable[Projection]) -> Mapping[str, tuple[Index, ...]]:
    """Every index that ought to be there, by collection."""
    return {
        settings.events_collection: EVENTS,
        settings.repair_queue_collection: REPAIR_QUEUE,
        **{collection_of(settings, item): of_read_model(item) for item in projections},
    }


def collection_of(settings: Settings, projection: Projection) -> str:
    """The collection that a read model lies in."""
    named = {"chats_read_model": settings.chats_collection, "tasks_read_model": settings.tasks_collection}
    return named.get(projection.read_model, projection.read_model)


def ensure_indexes(
    database: Database[Document], settings: Settings, projections: Iterable[Projection]
) -> dict[str, list[str]]:
    """Make the indexes that are missing; gives their names by collection. Those that are there are left alone.

    Raises:
        ReadModelError: an index cannot be made, because documents stand against it or another index is in its place.
    """
    return {
        name: [made for index in indexes if (made := _ensure(database[name], index))]
        for name, indexes in wanted_indexes(settings, projections).items()
    }


def ensure_for_empty(collection: Collection[Document], projection: Projection) -> list[str]:
    """Make an empty read model's indexes, and say what is missing of a filled one's, as warnings.

    A filled production collection gets no index behind its owner's back.
    """
    there = list(collection.list_indexes())
    missing = [index for index in of_read_model(projection) if not _is_among(index, there)]
    if missing and collection.find_one({}, {"_id": 1}) is None:
        for index in missing:
            _ensure(collection, index)
        return []
    return [
        f"{collection.name} has no unique index on {index.key[0][0]}; two writers can make duplicates. "
        "`readmodel ensure-indexes` makes it."
        for index in missing
    ]


def _is_among(index: Index, there: Iterable[Mapping[str, Any]]) -> bool:
    return any(
        tuple(item["key"].items()) == index.key
        and bool(item.get("unique")) == index.unique
        and holds_every_document(item)
        for item in there
    )


def _ensure(collection: Collection[Document], index: Index) -> str | None:
    if _is_among(index, collection.list_indexes()):
        return None
    options: dict[str, Any] = {"name": index.name} if index.name else {}
    try:
        return collection.create_index(list(index.key), unique=index.unique, **options)
    except OperationFailure as error:
        if error.code in DENIED:
            raise
        fields = ", ".join(name for name, _ in index.key)
        raise ReadModelError(
            f"{collection.name}: the index on {fields} cannot be made: {str(error.details or error)[:300]}",
            hint="Mend the documents that stand against it, or drop the index that is in its place, and run it again.",
        ) from None
