"""The event store: the application's `events` collection, read in stream order and never written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import bson
from pymongo.collection import Collection

from readmodel_pipelines.events.stream import Fold, Malformed, Reason
from readmodel_pipelines.events.values import is_utf8
from readmodel_pipelines.mongo.scan import CODEC, Document, drain, index_on, odd_documents, string_keys

_ORDER = ("aggregate_id", "version")
_GROUPS = 500
_ENVELOPE = {"_id": 1, "aggregate_id": 1, "event_type": 1, "version": 1}


class EventStore:
    """Implements `readmodel_pipelines.reconcile.ports.EventStore`; `on_events` is told the number read, by batch.

    `met` holds those of the ids asked for that have events.
    """

    def __init__(self, collection: Collection[Document], on_events: Callable[[int], None] | None = None) -> None:
        self._collection = collection
        self._on_events = on_events
        self._index: str | None = None
        self._index_known = False
        self.events_read = 0
        self.met: set[str] = set()

    @property
    def index(self) -> str | None:
        """The name of the index that gives streams in order; None when it is missing."""
        if not self._index_known:
            self._index, self._index_known = index_on(self._collection, *_ORDER), True
        return self._index

    def read(self, fold: Fold[Any], ids: Sequence[str] | None = None) -> Iterator[Document]:
        """Events in order of (aggregate_id, version), with the fields that the fold reads and no others."""
        where = {**_stored_as(fold), **string_keys("aggregate_id", ids)}
        for batch in drain(self._collection, where, _fields_of(fold), _ORDER, self.index):
            self.events_read += len(batch)
            if ids is not None:
                self.met.update(event["aggregate_id"] for event in batch)
            elif self._on_events:
                self._on_events(self.events_read)
            yield from batch

    def odd_streams(self, fold: Fold[Any]) -> Iterator[Document]:
        """The first event of every stream whose id is not a string."""
        # The index holds 7 and 7.0 for equal, so that streams that differ by type alone come mixed.
        recent: deque[bytes] = deque(maxlen=64)
        arrays: set[bytes] = set()
        for event in odd_documents(self._collection, _stored_as(fold), _ENVELOPE, _ORDER):
            self.events_read += 1
            identity = bson.encode({"id": event.get("aggregate_id")})
            if identity in recent or identity in arrays:
                continue
            recent.append(identity)
            if isinstance(event.get("aggregate_id"), list):
                # Arrays come in no order.
                arrays.add(identity)
            yield event

    def contested(
        self, fold: Fold[Any], claim: tuple[str, str], ids: Sequence[str] | None = None
    ) -> Mapping[str, Malformed]:
        """Streams whose created event (type, field of its data) claims a key that another stream claims too.

        With `ids` only claims of these are looked at. Grouped on the server, on disk when it must; what comes back is
        the contested ones alone. No index holds the claims: this reads every created event.
        """
        _, name = claim
        key: Document = {"$ifNull": [f"$data.{name}", ""]}
        claims = _claims(fold, claim)
        events = self._collection.with_options(codec_options=CODEC)
        wanted = claims
        if ids is not None:
            own = events.aggregate(
                [{"$match": {**claims, **string_keys("aggregate_id", ids)}}, {"$project": {"key": key}}]
            )
            wanted = _with_key(claims, key, [event["key"] for event in own if is_utf8(event["key"])])
        ends = {"first": {"$min": "$aggregate_id"}, "last": {"$max": "$aggregate_id"}}
        groups = events.aggregate(
            [
                {"$match": wanted},
                {"$group": {"_id": key, **ends}},
                {"$match": {"$expr": {"$ne": ["$first", "$last"]}}},
            ],
            allowDiskUse=True,
        )
        contested: dict[str, Malformed] = {}
        while batch := groups.to_list(_GROUPS):
            claimants = {group["_id"]: (group["first"], group["last"]) for group in batch if is_utf8(group["_id"])}
            fields = {"aggregate_id": 1, "version": 1, "key": key}
            for event in events.find(_with_key(claims, key, list(claimants)), fields):
                aggregate_id, (first, last) = event["aggregate_id"], claimants[event["key"]]
                detail = f"{aggregate_id} and {last if aggregate_id == first else first} claim the same {name}"
                contested[aggregate_id] = Malformed(Reason.KEY_CONFLICT, detail, event.get("version"), event["_id"])
        return contested

    def last_versions(self, ids: Sequence[str]) -> dict[str, Any]:
        """The last version of each of these streams, from the index alone."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"aggregate_id": {"$in": list(ids)}}},
            {"$sort": {"aggregate_id": -1, "version": -1}},
            {"$group": {"_id": "$aggregate_id", "last": {"$first": "$version"}}},
        ]
        # Descending and `$first`, so that the server looks up one key a stream.
        options: dict[str, Any] = {"hint": self.index} if self.index else {}
        groups = self._collection.aggregate(pipeline, **options)
        # `$in` finds arrays by their elements too.
        return {group["_id"]: group["last"] for group in groups if isinstance(group["_id"], str)}

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of whatever BSON type, whether any event carries it."""
        # What is no UTF-8 cannot be asked for. Such an id sorts among the strings: the pass meets its events if any.
        askable = [item for item in ids if not isinstance(item, str) or is_utf8(item)]
        if not askable:
            return [False] * len(ids)
        # Not `$in`, which takes a regular expression for a pattern and refuses a document with a `$` in its names.
        where = {**_stored_as(fold), "$or": [{"aggregate_id": {"$eq": aggregate_id}} for aggregate_id in askable]}
        found = self._collection.with_options(codec_options=CODEC).find(where, {"_id": 0, "aggregate_id": 1})
        carried = {bson.encode({"id": event.get("aggregate_id")}) for event in found}
        return [item in askable and bson.encode({"id": item}) in carried for item in ids]


def _stored_as(fold: Fold[Any]) -> Document:
    return {"aggregate_type": {"$in": list(fold.stored_as)}}


def _claims(fold: Fold[Any], claim: tuple[str, str]) -> Document:
    event_type, name = claim
    # What is broken says so by itself, and claims nothing.
    sound = [
        {"$eq": [{"$type": "$data"}, "object"]},
        {"$in": [{"$type": f"$data.{name}"}, ["string", "null", "missing", "undefined"]]},
    ]
    return {
        **_stored_as(fold),
        "event_type": event_type,
        **string_keys("aggregate_id"),
        "$expr": {"$and": sound},
    }


def _with_key(claims: Document, key: Document, keys: Sequence[str]) -> Document:
    return {"$and": [claims, {"$expr": {"$in": [key, {"$literal": list(keys)}]}}]}


def _fields_of(fold: Fold[Any]) -> Document:
    own = {name for names in fold.catalogue.values() for name in names}
    return dict.fromkeys((*_ENVELOPE, *fold.envelope, *(f"data.{name}" for name in sorted(own))), 1)
