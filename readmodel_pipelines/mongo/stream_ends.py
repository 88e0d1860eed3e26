"""The first and the last event of every stream, from the index in the order of streams.

The server reads two keys of each stream, and its first event. This cannot show gaps inside of a stream. So with the
last versions the server returns their sum: it equals the number of events, unless a version is missing or wrong
somewhere. Only then it counts each stream, from the index alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson import MinKey

from readmodel_pipelines.mongo import scan
from readmodel_pipelines.mongo.driver import Collection, Document

Ends = tuple[Any, Any, int]
"""First version, last version, number of events."""

# `$first`: the server skips from one stream to the next, which it does not do for `$last`.
_FORWARDS: Mapping[str, Any] = {"$sort": {"aggregate_id": 1, "version": 1}}
_BACKWARDS: Mapping[str, Any] = {"$sort": {"aggregate_id": -1, "version": -1}}
_FROM_TEXTS: Mapping[str, Any] = {"$match": {"aggregate_id": {"$gte": ""}}}
_IN_ORDER: Mapping[str, Any] = {"$sort": {"_id": 1}}
_STREAMS_IN_ORDER: Mapping[str, Any] = {"$sort": {"aggregate_id": 1}}


def first_events(types: Sequence[Any], fields: Iterable[str], *, merged: bool) -> list[Mapping[str, Any]]:
    """The pipeline for the first event, with these fields, of each stream whose first event has one of these types.

    One server returns them in order; the streams of several are `merged`, so the pipeline sorts.
    """
    first: Mapping[str, Any] = {"$group": {"_id": "$aggregate_id", "first": {"$first": "$$ROOT"}}}
    # The server then takes the events as they are, and makes no documents with others inside.
    alone = {"$replaceRoot": {"newRoot": "$first"}}
    shown = {"$project": {"_id": 0, **{name: 1 for name in fields if name != "_id"}}}
    of_these = {"$match": {"aggregate_type": {"$in": types}}}
    return [_FROM_TEXTS, _FORWARDS, first, alone, of_these, shown, *([_STREAMS_IN_ORDER] if merged else [])]


def last_versions() -> list[Mapping[str, Any]]:
    """The pipeline for id and last version of each stream of any type, in order and from the index alone.

    Each also has the `sum` over all streams, among them those whose id is no text, which are left out.
    """
    every: Mapping[str, Any] = {"$match": {"aggregate_id": {"$gte": MinKey()}}}
    last: Mapping[str, Any] = {"$group": {"_id": "$aggregate_id", "last": {"$first": "$version"}}}
    of_all = {"sum": {"$sum": "$last", "window": {"documents": ["unbounded", "unbounded"]}}}
    with_sum = {"$setWindowFields": {"sortBy": _IN_ORDER["$sort"], "output": of_all}}
    return [every, _BACKWARDS, last, with_sum, {"$match": {"_id": {"$gte": ""}}}]


def last_of(ids: Sequence[str], **fields: str) -> list[Mapping[str, Any]]:
    """The pipeline for id and some fields, by these names, of the last event of each of these streams."""
    last = {name: {"$first": f"${field}"} for name, field in fields.items()}
    return [{"$match": {"aggregate_id": {"$in": [*ids]}}}, _BACKWARDS, {"$group": {"_id": "$aggregate_id", **last}}]


def is_within(moment: str, seconds: float, *, if_none: bool = False) -> Document:
    """Whether a time is at most this far from the server's now; `if_none` is the answer for other types."""
    # For each of them, because the server may evaluate in any order, and fails if it subtracts a text from a time.
    age = {"$abs": {"$subtract": ["$$NOW", moment]}}
    return {"$cond": [{"$eq": [{"$type": moment}, "date"]}, {"$lt": [age, int(seconds * 1000)]}, if_none]}


def counted(types: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The pipeline for id, both ends and number of events of each stream; reads every event of these types."""
    these = {**_FROM_TEXTS["$match"], "aggregate_type": {"$in": types}}
    return [{"$match": these}, {"$group": {"_id": "$aggregate_id", **_ENDS}}, _IN_ORDER]


_ENDS = {"first": {"$min": "$version"}, "last": {"$max": "$version"}, "events": {"$sum": 1}}


def uneven(collection: Collection, index: str, sum_of_last_versions: Any) -> dict[Any, Ends]:
    """The streams whose number of events differs from their last version, in the order of the index."""
    if sum_of_last_versions == collection.estimated_document_count():
        return {}
    as_many = {"$and": [{"$eq": ["$first", 1]}, {"$eq": ["$last", "$events"]}]}
    pipeline = [_FROM_TEXTS, {"$group": {"_id": "$aggregate_id", **_ENDS}}, {"$match": {"$expr": {"$not": [as_many]}}}]
    groups = scan.grouped(collection, pipeline, hint=index, batchSize=scan.BATCH_DOCUMENTS)
    return {group["_id"]: (group["first"], group["last"], group["events"]) for group in groups if _is_text(group)}


def _is_text(group: Document) -> bool:
    return type(group["_id"]) is str
