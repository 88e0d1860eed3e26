"""Queries for the events that claim a unique key of a read model besides its aggregate's id.

Two streams that claim one key are contested, and so is a stream that claims two: `event_store` asks for them.
"""

from collections.abc import Iterable

from readmodel_pipelines.events.ids import is_utf8
from readmodel_pipelines.mongo import scan
from readmodel_pipelines.mongo.driver import Document


def made_by(streams: Document, claim: tuple[str, str]) -> Document:
    """The filter for the events of these streams that claim a key: event type, and field of its data."""
    event_type, name = claim
    # A malformed stream is reported anyway, and claims nothing.
    sound = [
        *({"$eq": [{"$type": f"${field}"}, "string"]} for field in ("aggregate_type", "event_type")),
        {"$eq": [{"$type": "$data"}, "object"]},
        {"$or": [{"$in": [{"$type": f"$data.{name}"}, ["string", "null", "missing"]]}, stands_twice(name)]},
    ]
    return {**streams, "event_type": event_type, **scan.string_keys("aggregate_id"), "$expr": {"$and": sound}}


def can_be_asked_for(key: str | None) -> bool:
    """Whether a query can ask for a claimed key."""
    return key is not None and is_utf8(key)


def key(name: str) -> Document:
    """The expression for the claimed key: without one, the empty text."""
    return {"$ifNull": [f"$data.{name}", ""]}


def stands_twice(name: str) -> Document:
    """The expression for whether the field occurs more than once in the data."""
    fields = {"$objectToArray": {"$cond": [{"$eq": [{"$type": "$data"}, "object"]}, "$data", {}]}}
    these = {"$filter": {"input": fields, "cond": {"$eq": ["$$this.k", name]}}}
    return {"$gt": [{"$size": these}, 1]}


def with_key(claims: Document, name: str, keys: Iterable[str]) -> Document:
    """The filter for those of the claims that claim one of these keys."""
    # Not `$expr`, which uses no index here and compares the keys one by one.
    field = f"data.{name}"
    one_of: list[Document] = [{field: {"$in": (those := sorted(keys))}}]
    if "" in those:
        one_of.append({field: {"$not": {"$type": "string"}}})
    return {**claims, "$or": one_of}
