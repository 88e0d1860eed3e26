"""Reading much of a collection at once: in key order, in batches, without a round trip per document.

Keys are split by BSON type as the join wants it: `string_keys` is the filter for the merge join, `odd_documents` finds
all others once. An array is never a string key: MongoDB would match it by its elements, twice or inside other streams.
Symbols lie among the strings, and for MongoDB are the same: only who reads a range meets them, and tells them apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.cursor import CursorType

from readmodel_pipelines.events.exact import sendable
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.mongo.collection import BY_BYTES
from readmodel_pipelines.mongo.decoding import ExactCursor, documents_of
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.kinds import indexes_of
from readmodel_pipelines.reconcile.ranges import IdRange

BATCH_DOCUMENTS = 2_000
_HANDED_ON = 100
NO_ARRAY = {"$not": {"$type": "array"}}
SPARE = tuple(f"readmodel_no_such_field_{number}" for number in range(16))
"""Asked for besides what is needed: the server looks no further when it has found as many fields as it was asked for,
and would not see that one stands twice."""


@dataclass(frozen=True, slots=True)
class Query:
    """What one `find` asks for: one definition for whoever runs it and for `doctor`, which asks how it is answered."""

    where: Mapping[str, Any]
    fields: Mapping[str, Any] | None = None
    sort: tuple[tuple[str, int], ...] = ()
    index: str | None = None
    """The index that is prescribed; without one the server chooses."""


def string_keys(field: str, keys: Sequence[str] | None = None) -> Document:
    """The filter for documents whose `field` is a string, one of `keys` if they are given."""
    one_of = {} if keys is None else {"$in": list(keys)}
    return {field: {**one_of, "$type": "string", **NO_ARRAY}}


def keys_within(field: str, within: IdRange) -> Document:
    """The filter for documents whose `field` is a string, or a symbol, in a range."""
    ends = {"$gte": within.lower or "", "$lt": within.upper}
    return {field: {**{name: end for name, end in ends.items() if end is not None}, **NO_ARRAY}}


def with_id(document_id: Any) -> Mapping[str, Any]:
    """The filter for the document with this `_id`, whatever that is."""
    return sendable({"_id": {"$eq": document_id}})


def with_ids(document_ids: Sequence[Any]) -> Mapping[str, Any]:
    """The filter for the documents with these `_id`s, whatever they are."""
    return sendable({"_id": {"$in": list(document_ids)}})


def index_on(collection: Collection, *fields: str) -> str | None:
    """The name of an index that holds every document in ascending order of just these fields, if there is one."""
    for index in indexes_of(collection) or ():
        if holds_every_document(index) and list(index["key"].items()) == [(field, 1) for field in fields]:
            return str(index["name"])
    return None


def holds_every_document(index: Mapping[str, Any]) -> bool:
    """Whether an index, as the server describes it, leaves no document out and orders by the bytes of texts."""
    return not any(index.get(option) for option in ("partialFilterExpression", "sparse", "collation", "hidden"))


def drain(collection: Collection, query: Query, *, of_events: bool = False) -> Iterator[list[Document]]:
    """Batches of decoded documents in order. Without an index MongoDB sorts, on disk when it must."""
    mongos = collection.database.client.is_mongos
    cursor = ExactCursor(
        collection,
        query.where,
        query.fields,
        of_events=of_events,
        sort=query.sort,
        hint=query.index,
        # An index with an array key gives no order.
        allow_disk_use=True,
        batch_size=BATCH_DOCUMENTS,
        # The server sends the next batch while we work on this one; a mongos before 7.1 does not.
        cursor_type=CursorType.NON_TAILABLE if mongos else CursorType.EXHAUST,
    )
    try:
        # Few at a time, for there are documents of megabytes; the driver holds no more than the server's last batch.
        while batch := cursor.to_list(_HANDED_ON):
            yield batch
    finally:
        cursor.close()


def found(collection: Collection, where: Mapping[str, Any], fields: Any = None, **options: Any) -> Iterator[Document]:
    """Documents with every value as it is there."""
    yield from ExactCursor(collection, sendable(where), fields, **options)


def grouped(collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[Document]:
    """What an aggregation gives, with every value as it is there."""
    batches: Any = collection.aggregate_raw_batches(pipeline, allowDiskUse=True, collation=BY_BYTES, **options)
    for batch in batches:
        yield from documents_of(batch)


def sampled(collection: Collection, field: str, where: Mapping[str, Any], size: int) -> list[str]:
    """That field of about so many documents picked at random; those in which it is no text of UTF-8 are left out."""
    # The sample first, so that the server jumps about in the collection instead of sorting it.
    pipeline: list[Mapping[str, Any]] = [
        {"$sample": {"size": size}},
        {"$match": where},
        {"$project": {"_id": 0, field: 1}},
    ]
    return [text for document in grouped(collection, pipeline) if is_plain(text := document[field])]


def odd_documents(
    collection: Collection,
    where: Mapping[str, Any],
    fields: Mapping[str, Any],
    index_fields: Sequence[str],
    index: str | None,
    *,
    symbols: bool,
) -> Iterator[Document]:
    """Documents whose first index field is no string, equal keys side by side but for arrays; `symbols` too, or not.

    Reads only the ends of the `index` on the fields, before and behind the strings. Array keys are spread all over it,
    and symbols lie among the strings: these are looked for by a full scan, arrays only when the index says that it has
    any.
    """
    key = index_fields[0]
    if index is None:
        others = {"$expr": {"$not": [{"$in": [{"$type": f"${key}"}, ["string", *([] if symbols else ["symbol"])]]}]}}
        yield from found(collection, {**where, **others}, fields, sort=[(field, 1) for field in index_fields])
        return
    no_array = {**where, key: NO_ARRAY}
    yield from found(collection, no_array, fields, hint=index, max=_bound(index_fields, ""))
    yield from found(collection, no_array, fields, hint=index, min=_bound(index_fields, {}))
    # No lower bound reaches this one.
    yield from found(collection, {**where, key: {"$eq": MaxKey(), **NO_ARRAY}}, fields)
    if symbols:
        yield from found(collection, {**where, key: {"$type": "symbol", **NO_ARRAY}}, fields, hint=index)
    if holds_arrays(collection, key, index):
        yield from found(collection, {**where, key: {"$type": "array"}}, fields)


def _bound(index_fields: Sequence[str], value: Any) -> Document:
    return {field: value if position == 0 else MinKey() for position, field in enumerate(index_fields)}


def holds_arrays(collection: Collection, key: str, index: str) -> bool:
    """Whether an index that begins with this field has, or had, an array in it."""
    # `Cursor.explain` would run the query to the end.
    plan = collection.plan({"find": collection.name, "filter": {key: {"$gte": MinKey()}}, "hint": index})
    return _mentions(plan["queryPlanner"], "isMultiKey")


def _mentions(plan: Any, flag: str) -> bool:
    if isinstance(plan, dict):
        return plan.get(flag) is True or any(_mentions(part, flag) for part in plan.values())
    return isinstance(plan, list) and any(_mentions(part, flag) for part in plan)
