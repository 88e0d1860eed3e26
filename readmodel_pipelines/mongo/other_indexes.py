"""Foreign unique indexes on a read model: finds the documents that would conflict with a change.

Such an index may cover any fields, owned or foreign, only some documents, and have a collation. Only the server knows
which values it treats as equal, so it is asked, for all changes at once.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import bson
from pymongo.database import Database

from readmodel_pipelines.mongo.collection import BY_BYTES, Collection
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.outcome import Verdict

_NO_CASE = 2


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index: its fields, its partial filter, its collation."""

    fields: tuple[str, ...]
    only: Mapping[str, Any]
    collation: Mapping[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether it holds one field of every document and compares bytes."""
        return len(self.fields) == 1 and not self.only and self.collation == BY_BYTES

    @property
    def tops(self) -> list[str]:
        """The top-level fields of a document that it depends on."""
        return list(dict.fromkeys(name.partition(".")[0] for name in (*self.fields, *_named(self.only))))


def unique_indexes(collection: Collection) -> list[UniqueIndex]:
    """The unique indexes of a collection, without that on `_id`."""
    return [
        UniqueIndex(tuple(item["key"]), _held_by(item), item.get("collation", BY_BYTES))
        for item in collection.list_indexes()
        if item.get("unique") and "_id" not in item["key"]
    ]


def _held_by(item: Mapping[str, Any]) -> Document:
    if item.get("sparse"):
        return {"$or": [{name: {"$exists": True}} for name in item["key"]]}
    return dict(item.get("partialFilterExpression", {}))


def _named(only: Any) -> Iterator[str]:
    """The fields that a filter names."""
    for name, condition in only.items():
        if name.startswith("$"):
            for part in condition:
                yield from _named(part)
        else:
            yield name


def held(
    collection: Collection, index: UniqueIndex, projection: Projection, changes: Sequence[Verdict]
) -> list[tuple[Verdict, Document]]:
    """(a change, another document that holds the values of the change in this index)."""
    first, *others = index.fields
    same = [
        {"$ne": [{"$setIntersection": [_keys(f"${name}"), f"$$of_{place}"]}, []]} for place, name in enumerate(others)
    ]
    within: list[Document] = [{"$match": {"$and": [{"$expr": {"$and": same}}, *([index.only] if index.only else [])]}}]
    lookup = {
        "from": collection.name,
        "let": {f"of_{place}": _keys(f"${name}") for place, name in enumerate(others)},
        "pipeline": [*within, {"$project": {"_id": 1, **dict.fromkeys((projection.key, *projection.owned), 1)}}],
        "as": "held",
    }
    by_element = {**lookup, "localField": first, "foreignField": first}
    # An empty array has its own key, which no search by elements finds.
    empty = {**lookup, "pipeline": [{"$match": {first: {"$eq": []}}}, *lookup["pipeline"]]}
    rows = list(enumerate(_wanted(collection, index, projection, changes)))
    holding: list[tuple[Verdict, Document]] = []
    for of_these, is_empty in ((by_element, False), (empty, True)):
        pipeline = _documents((place, row) for place, row in rows if (row.get(first) == []) is is_empty)
        if index.only:
            pipeline.append({"$match": index.only})
        pipeline += [{"$lookup": of_these}, {"$match": {"held": {"$ne": []}}}, {"$project": {"held": 1}}]
        found = _database(collection).aggregate(pipeline, collation=index.collation)
        holding += [(changes[row["_id"]], document) for row in found for document in row["held"]]
    return holding


def _keys(field: str) -> Document:
    """The expression for the keys of a field in an index: each element of an array, and an empty one as itself."""
    empty: Document = {"$cond": [{"$eq": [field, []]}, [[]], field]}
    return {"$cond": [{"$isArray": field}, empty, [{"$ifNull": [field, None]}]]}


def _wanted(
    collection: Collection, index: UniqueIndex, projection: Projection, changes: Sequence[Verdict]
) -> Iterator[Document]:
    """For each change the values of its future document in the relevant fields; foreign ones stay unchanged."""
    foreign = [name for name in index.tops if name not in projection.owned]
    ids = [change.actual["_id"] for change in changes if change.actual] if foreign else []
    shown = dict.fromkeys(foreign, 1)
    found = collection.find({"_id": {"$in": ids}}, shown) if ids else ()
    stored = {bson.encode({"_id": document["_id"]}): document for document in found}
    for change in changes:
        actual, expected = change.actual or {}, change.expected or {}
        kept = stored.get(bson.encode({"_id": actual.get("_id")}), {})
        will_be = {**{name: kept[name] for name in foreign if name in kept}, **expected}
        yield {name: will_be[name] for name in index.tops if name in will_be}


def claims(
    collection: Collection, index: UniqueIndex, projection: Projection, changes: Sequence[Verdict]
) -> Iterator[tuple[int, bytes]]:
    """(position of a change, digest of its future keys in the index); changes outside of the index have none.

    Of a collation only case and accents are considered.
    """
    rows = list(_wanted(collection, index, projection, changes))
    for place in _held_rows(collection, index, rows) if index.only else range(len(rows)):
        stored = [rows[place].get(name) for name in index.fields]
        # An array has a key for each of its elements.
        for values in product(*(value if isinstance(value, list) and value else [value] for value in stored)):
            told_apart = [_told_apart(value, index.collation.get("strength", 3)) for value in values]
            of_index = bson.encode({"index": index.fields, "of": told_apart})
            yield place, hashlib.blake2b(of_index, digest_size=16).digest()


def _told_apart(value: Any, strength: int) -> Any:
    """The value without the differences that a collation of this strength ignores: case, and accents."""
    if not isinstance(value, str) or strength > _NO_CASE:
        return value
    folded = value.casefold()
    if strength == _NO_CASE:
        return folded
    return "".join(sign for sign in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(sign))


def _held_rows(collection: Collection, index: UniqueIndex, rows: Sequence[Document]) -> Iterator[int]:
    found = _database(collection).aggregate(
        [*_documents(enumerate(rows)), {"$match": index.only}, {"$project": {"_id": 1}}], collation=index.collation
    )
    return (row["_id"] for row in found)


def _documents(rows: Iterable[tuple[int, Document]]) -> list[Mapping[str, Any]]:
    return [{"$documents": {"$literal": [{"_id": place, **row} for place, row in rows]}}]


def _database(collection: Collection) -> Database[Document]:
    return collection.database.with_options(codec_options=collection.codec_options)
