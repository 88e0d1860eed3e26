"""Compares the existing indexes with the required ones, and creates missing ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.driver import DENIED, Collection, Database, OperationFailure, is_there
from readmodel_pipelines.mongo.failures import is_the_servers
from readmodel_pipelines.mongo.kinds import forget_indexes, indexes_of
from readmodel_pipelines.mongo.scan import holds_every_document
from readmodel_pipelines.mongo.wanted_indexes import Index, of_read_model, wanted_indexes
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings


def ensure_indexes(database: Database, settings: Settings) -> dict[str, list[str]]:
    """Create the missing indexes; returns their names by collection. Existing ones stay unchanged.

    Raises:
        ReadModelError: an index cannot be created, because documents violate it or another index is in its place.
    """
    wanted = wanted_indexes(settings)
    return {
        name: [_mend(Collection(database, name), flaw) for flaw in _flaws(Collection(database, name), indexes)]
        for name, indexes in wanted.items()
    }


@dataclass(frozen=True, slots=True)
class Flaw:
    """An index that is `missing`, or replaced by `instead`, another one with the same key.

    That one may be of another kind (`other`), to be dropped first, or let documents expire at another time (`expiry`).
    Or it has its own collation (`collation`), which does not order texts by bytes; it stays beside ours.
    """

    collection: str
    index: Index
    kind: Literal["missing", "other", "expiry", "collation"]
    instead: str = ""
    name: str = ""
    """Its name beside another index."""


def flaws(database: Database, settings: Settings) -> list[Flaw]:
    """The indexes that `ensure_indexes` would create, change or fail at. Creates nothing."""
    wanted = wanted_indexes(settings)
    return [flaw for name, indexes in wanted.items() for flaw in _flaws(Collection(database, name), indexes)]


def _flaws(collection: Collection, indexes: Iterable[Index]) -> list[Flaw]:
    there = indexes_of(collection)
    if there is None:
        # A view has those of its collection.
        return []
    return [flaw for index in indexes if (flaw := _flaw(collection.name, index, there))]


def _flaw(collection: str, index: Index, there: Sequence[Mapping[str, Any]]) -> Flaw | None:
    for item in there:
        if _is_as_wanted(index, item):
            of_old = index.expire_seconds is not None and item.get("expireAfterSeconds") != index.expire_seconds
            return Flaw(collection, index, "expiry", str(item["name"])) if of_old else None
    alike = [item for item in there if tuple(item["key"].items()) == index.key]
    collated = [str(item["name"]) for item in alike if "collation" in item]
    # Only one with the same collation conflicts.
    in_the_way = next((str(item["name"]) for item in alike if "collation" not in item), "")
    if collated and not in_the_way:
        return Flaw(collection, index, "collation", collated[0], index.name_beside(collated))
    return Flaw(collection, index, "other" if in_the_way else "missing", in_the_way)


def ensure_for_empty(collection: Collection, projection: Projection) -> list[str]:
    """Create the indexes of an empty read model, and return warnings for missing ones of a filled one.

    A filled production collection gets no index without its owner's consent. An empty one gets none that the user may
    not create.
    """
    missing = _flaws(collection, of_read_model(projection))
    if missing and not is_there(collection):
        try:
            for flaw in missing:
                _mend(collection, flaw)
        except OperationFailure as error:
            if error.code not in DENIED:
                raise
        else:
            return []
    return [f"{collection.name} {_lacks(flaw)} `readmodel ensure-indexes` creates it." for flaw in missing]


def _lacks(flaw: Flaw) -> str:
    field = flaw.index.key[0][0]
    if flaw.kind == "collation":
        return f"is sorted again for each pass: {flaw.instead} on {field} has a collation, and no index compares bytes."
    return f"has no unique index on {field}; two writers can make duplicates."


def _is_as_wanted(index: Index, item: Mapping[str, Any]) -> bool:
    if tuple(item["key"].items()) != index.key or bool(item.get("unique")) != index.unique:
        return False
    if index.only is not None:
        return item.get("partialFilterExpression") == index.only
    return holds_every_document(item)


def _mend(collection: Collection, flaw: Flaw) -> str:
    index = flaw.index
    forget_indexes(collection)
    if flaw.kind == "expiry":
        # MongoDB refuses to create it again with another one.
        changed = {"name": flaw.instead, "expireAfterSeconds": index.expire_seconds}
        collection.database.command("collMod", collection.name, index=changed)
        return f"{flaw.instead} (expiry changed)"
    try:
        made = collection.create_index(list(index.key), name=flaw.name or index.name_beside(()), **index.options)
        return f"{made} (beside {flaw.instead}, which has a collation)" if flaw.kind == "collation" else made
    except OperationFailure as error:
        if is_the_servers(error.code):
            raise
        fields = ", ".join(name for name, _ in index.key)
        raise ReadModelError(
            f"{collection.name}: the index on {fields} cannot be created: {str(error.details or error)[:300]}",
            hint="Correct the documents that violate it, or drop the index in its place. Then run it again.",
        ) from None
