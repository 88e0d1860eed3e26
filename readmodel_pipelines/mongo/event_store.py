"""The event store: the application's `events` collection, read in stream order and never written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import bson
from pymongo.collection import Collection

from readmodel_pipelines.events.stream import Fold, Malformed, Reason
from readmodel_pipelines.mongo.scan import CODEC, Document, drain, index_on, odd_documents, string_keys

_ORDER = ("aggregate_id", "version")
_ENVELOPE = {"_id": 1, "aggregate_id": 1, "event_type": 1, "version": 1, "occurred_at": 1}


class EventStore:
    """Implements `readmodel_pipelines.reconcile.ports.EventStore`; `on_events` is told the number read, by batch."""

    def __init__(self, collection: Collection[Document], on_events: Callable[[int], None] | None = None) -> None:
        self._collection = collection
        self._on_events = on_events
        self._index: str | None = None
        self._index_known = False
        self.events_read = 0

    @property
    def index(self) -> str | None:
        """The name of the index that gives streams in order; None when it is missing."""
        if not self._index_known:
            self._index, self._index_known = index_on(self._collection, *_ORDER), True
        return self._index

    def estimated_count(self) -> int:
        """About how many events there are, of every aggregate type."""
        return self._collection.estimated_document_count()

    def read(self, fold: Fold[Any], ids: Sequence[str] | None = None) -> Iterator[Document]:
        """Events in order of (aggregate_id, version), with the fields that the fold reads and no others."""
        where = {**_stored_as(fold), **string_keys("aggregate_id", ids)}
        for batch in drain(self._collection, where, _fields_of(fold), _ORDER, self.index):
            if ids is None:
                self.events_read += len(batch)
                if self._on_events:
                    self._on_events(self.events_read)
            yield from batch

    def odd_streams(self, fold: Fold[Any]) -> Iterator[Document]:
        """The first event of every stream whose id is not a string."""
        before: object = None
        seen_arrays: set[bytes] = set()
        for event in odd_documents(self._collection, _stored_as(fold), _ENVELOPE, _ORDER):
            self.events_read += 1
            identity = bson.encode({"id": event.get("aggregate_id")})
            if identity == before or identity in seen_arrays:
                continue
            before = identity
            if isinstance(event.get("aggregate_id"), list):
                # Arrays come in no order.
                seen_arrays.add(identity)
            yield event

    def contested(self, fold: Fold[Any], claim: tuple[str, str]) -> Mapping[str, Malformed]:
        """Streams whose created event (type, field of its data) claims a key that another stream claims too.

        Grouped on the server, on disk when it must; what comes back is the contested ones alone.
        """
        event_type, name = claim
        created = {**_stored_as(fold), "event_type": event_type, **string_keys("aggregate_id")}
        key = {"$ifNull": [f"$data.{name}", ""]}
        first_and_last = {"first": {"$min": "$aggregate_id"}, "last": {"$max": "$aggregate_id"}}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": created},
            {"$group": {"_id": key, **first_and_last}},
            {"$match": {"$expr": {"$ne": ["$first", "$last"]}}},
        ]
        contested: dict[str, Malformed] = {}
        for group in self._collection.aggregate(pipeline, allowDiskUse=True):
            claimed = {**created, "$expr": {"$eq": [key, {"$literal": group["_id"]}]}}
            for event in self._collection.find(claimed, {"aggregate_id": 1, "version": 1}):
                other = group["last"] if event["aggregate_id"] == group["first"] else group["first"]
                detail = f"{event['aggregate_id']} and {other} claim the same {name}"
                malformed = Malformed(Reason.KEY_CONFLICT, detail, event.get("version"), event["_id"])
                contested[event["aggregate_id"]] = malformed
        return contested

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of whatever BSON type, whether any event carries it."""
        where = {**_stored_as(fold), "aggregate_id": {"$in": list(ids)}}
        found = self._collection.with_options(codec_options=CODEC).find(where, {"_id": 0, "aggregate_id": 1})
        carried = {bson.encode({"id": event.get("aggregate_id")}) for event in found}
        return [bson.encode({"id": aggregate_id}) in carried for aggregate_id in ids]


def _stored_as(fold: Fold[Any]) -> Document:
    return {"aggregate_type": {"$in": list(fold.stored_as)}}


def _fields_of(fold: Fold[Any]) -> Document:
    own = {name for names in fold.catalogue.values() for name in names}
    # Without the `_id` of `data`, which does not exist, an empty list of fields would drop `data` as a whole.
    return {**_ENVELOPE, **dict.fromkeys((f"data.{name}" for name in sorted(own)), 1)}
