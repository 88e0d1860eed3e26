"""The event store: the application's `events` collection, read in stream order and never written."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

from bson import Code, ObjectId

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.exact import Odd, sendable, written
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.events.stream import Fold, Malformed, Reason
from readmodel_pipelines.events.values import BadField, whole
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo import key_claims, scan, stream_ends
from readmodel_pipelines.mongo.beforehand import Beforehand
from readmodel_pipelines.mongo.driver import Collection, Document, is_there
from readmodel_pipelines.mongo.just_read import JustRead
from readmodel_pipelines.mongo.kinds import indexes_of
from readmodel_pipelines.mongo.spooling import Spooled
from readmodel_pipelines.reconcile.ports import Outline
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange

_ORDER = ("aggregate_id", "version")
_GROUPS = 500
_PAID_AT_ONCE = 100
_UNDEFINED = 0x06
_CLOCKS_DIFFER_SECONDS = 3_600
_ENVELOPE = {"_id": 1, "aggregate_id": 1, "aggregate_type": 1, "event_type": 1, "version": 1}


class EventStore:
    """Implements `readmodel_pipelines.reconcile.ports.EventStore`; `on_events` is called with the number read, per
    batch.

    `met`, if given, gets the last version read of each stream. `spooled` events are read from there. `pay` is called
    with the number of events of each batch from the server, and waits for the limits of reading.
    """

    def __init__(
        self,
        collection: Collection,
        on_events: Callable[[int], None] | None = None,
        met: dict[str, Any] | None = None,
        like: "EventStore | None" = None,
        pay: Callable[[int], object] | None = None,
    ) -> None:
        self._collection = collection
        self._on_events = on_events
        self.events_read = 0
        self._met = met
        self._like = like
        self._pay = pay
        self.spooled: Spooled | None = None
        self._just_read: JustRead | None = None

    @cached_property
    def index(self) -> str | None:
        """The name of the index that yields streams in order; None if it is missing."""
        return self._like.index if self._like else scan.index_on(self._collection, *_ORDER)

    def _index_for(self, ids: Sequence[str] | None) -> str | None:
        # For one stream any choice of the server is good, and this saves a query.
        return None if ids is not None and len(ids) == 1 else self.index

    def beside(self) -> "EventStore":
        """Another store of the same events with its own counts and the same knowledge of the index."""
        return EventStore(self._collection, like=self)

    def has_any(self, fold: Fold[Any]) -> bool:
        """Whether there is any event of such streams."""
        return is_there(self._collection, _stored_as(fold))

    def read(
        self, fold: Fold[Any], ids: Sequence[str] | None = None, within: IdRange = EVERYTHING
    ) -> Iterator[Document]:
        """Events in order of (aggregate_id, version), with only the fields that the fold reads.

        A range also yields those whose id is a symbol, which MongoDB orders among strings; and all without `_id`.
        """
        reached(Moment.EVENTS, ids=ids)
        if self.spooled is not None and ids is None:
            batches = self.spooled.read(within)
        else:
            batches = self._paid(scan.drain(self._collection, self.query(fold, ids, within), of_events=True))
        just_read = JustRead(fold)
        for batch in batches:
            just_read.add(batch)
            # Another read may have begun between two batches.
            self._just_read = just_read
            self.events_read += len(batch)
            if self._met is not None:
                self._met.update(
                    (event["aggregate_id"], event.get("version"))
                    for event in batch
                    if type(event["aggregate_id"]) is str
                )
            if self._on_events:
                self._on_events(self.events_read)
            yield from batch

    def just_read(self, fold: Fold[Any], aggregate_id: str) -> Sequence[Document]:
        """The events of the stream that a pass met last, as this fold reads them; none if it is longer than what is
        held.
        """
        there = self._just_read
        return there.of(aggregate_id) if there is not None and there.fold is fold else ()

    def _paid(self, batches: Iterator[list[Document]]) -> Iterator[list[Document]]:
        for batch in batches:
            if self._pay is not None:
                self._pay(len(batch))
            yield batch

    def query(self, fold: Fold[Any], ids: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> scan.Query:
        """The query of `read`."""
        these = scan.keys_within("aggregate_id", within) if ids is None else scan.string_keys("aggregate_id", ids)
        where = {**_stored_as(fold), **these}
        fields = _shown(fold, (name for item in fold.events.values() for name in item.fields), scan.SPARE)
        if ids is None and "_id" not in fold.envelope:
            # Decoding an ObjectId takes the driver a third of the time of decoding an event.
            fields["_id"] = 0
        return scan.Query(where, fields, tuple((field, 1) for field in _ORDER), self._index_for(ids))

    def odd_streams(self, fold: Fold[Any], *, symbols: bool) -> Iterator[Document]:
        """The first event of every stream whose id is not a string; symbols only if `symbols` is set."""
        # The index treats 7 and 7.0 as equal, so streams whose ids differ only in type come mixed.
        recent: deque[bytes] = deque(maxlen=64)
        arrays: set[bytes] = set()
        where = _stored_as(fold)
        for event in scan.odd_documents(self._collection, where, _ENVELOPE, _ORDER, self.index, symbols=symbols):
            self.events_read += 1
            identity = _identity(event)
            if identity in recent or identity in arrays:
                continue
            recent.append(identity)
            if isinstance(event.get("aggregate_id"), list):
                # Arrays come in no order.
                arrays.add(identity)
            yield event

    def first_event(self, fold: Fold[Any], aggregate_id: Any) -> Any:
        """The `_id` of the first event of a stream, whatever the type of its id; None if there is no event."""
        where = sendable({**_stored_as(fold), "aggregate_id": {"$eq": aggregate_id}})
        found = scan.found(self._collection, where, _ENVELOPE, sort=[("version", 1)])
        wanted = _identity({"aggregate_id": aggregate_id})
        return next((event["_id"] for event in found if _identity(event) == wanted), None)

    def contested(
        self, fold: Fold[Any], claim: tuple[str, str], ids: Sequence[str] | None = None
    ) -> Mapping[str, Malformed]:
        """Streams whose created event (type, field of its data) claims a key that another stream claims, or two keys.

        With `ids` only the claims of these are checked; the other claimants are included. The server groups the claims,
        on disk if needed, and returns only contested ones. This reads every created event, unless `ids` claim nothing
        or the field has an index.
        """
        _, name = claim
        claims = key_claims.made_by(_stored_as(fold), claim)
        # Of two keys a query finds the first, and a program the last.
        key_if_one: Document = {"$cond": [key_claims.stands_twice(name), None, key_claims.key(name)]}
        wanted, twice = claims, dict[str, Malformed]()
        if ids is not None:
            these = {**claims, **scan.string_keys("aggregate_id", ids)}
            own = scan.grouped(self._collection, [{"$match": these}, {"$project": {"key": key_if_one}}])
            keys = {event["key"] for event in own}
            twice = self._claiming_two(these, name) if None in keys else {}
            if not (keys := set(filter(key_claims.can_be_asked_for, keys))):
                return twice
            wanted = key_claims.with_key(claims, name, keys)
        ends = {"first": {"$min": "$aggregate_id"}, "last": {"$max": "$aggregate_id"}}
        several = {"$expr": {"$or": [{"$eq": ["$_id", None]}, {"$ne": ["$first", "$last"]}]}}
        groups = scan.grouped(
            self._collection, [{"$match": wanted}, {"$group": {"_id": key_if_one, **ends}}, {"$match": several}]
        )
        contested: dict[str, Malformed] = {}
        for batch in batched(groups, _GROUPS):
            claimants = {
                group["_id"]: (group["first"], group["last"])
                for group in batch
                if key_claims.can_be_asked_for(group["_id"])
            }
            fields = {"aggregate_id": 1, "version": 1, "key": key_if_one}
            for event in scan.found(self._collection, key_claims.with_key(claims, name, claimants), fields):
                if event["key"] is None:
                    continue
                aggregate_id, (first, last) = event["aggregate_id"], claimants[event["key"]]
                detail = f"{aggregate_id} and {last if aggregate_id == first else first} claim the same {name}"
                contested[aggregate_id] = Malformed(Reason.KEY_CONFLICT, detail, event.get("version"), event["_id"])
            if ids is None and any(group["_id"] is None for group in batch):
                twice = self._claiming_two(claims, name)
        return contested | twice

    def _claiming_two(self, claims: Document, name: str) -> dict[str, Malformed]:
        detail = f"{name} occurs twice in its data, so it claims two keys"
        where = {"$and": [claims, {"$expr": key_claims.stands_twice(name)}]}
        return {
            event["aggregate_id"]: Malformed(Reason.KEY_CONFLICT, detail, event.get("version"), event["_id"])
            for event in scan.found(self._collection, where, {"aggregate_id": 1, "version": 1})
        }

    def other_claimant(self, fold: Fold[Any], claim: tuple[str, str], key: str, aggregate_id: str) -> str | None:
        """Another stream that claims this key, if any; without an index it costs as much as `contested`."""
        _, name = claim
        one = [{"aggregate_id": {"$ne": aggregate_id}}, {"$expr": {"$not": [key_claims.stands_twice(name)]}}]
        others = {"$and": [key_claims.with_key(key_claims.made_by(_stored_as(fold), claim), name, [key]), *one]}
        found = self._collection.find_one(others, {"_id": 0, "aggregate_id": 1})
        return None if found is None else str(found["aggregate_id"])

    def last_versions(self, ids: Sequence[str]) -> dict[str, Any]:
        """The last version of each of these streams, from the index alone."""
        groups = self._groups(stream_ends.last_of(ids, last="version"), self._index_for(ids))
        # `$in` also finds arrays by their elements.
        return {group["_id"]: group["last"] for group in groups if type(group["_id"]) is str}

    def young(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> dict[str, int]:
        """For those of these streams with events of the last seconds, the first such version.

        Both clocks count, the application's in `created_at` and the server's; events further in the future count as
        old. Only streams whose last event is at most an hour older are read, because the clocks of an application's
        processes differ by less.
        """
        is_near = {"$match": {"$expr": _is_near("$at", seconds)}}
        groups = self._groups([*stream_ends.last_of(ids, at="created_at"), is_near], self._index_for(ids))
        return self._young(fold, sorted(group["_id"] for group in groups if type(group["_id"]) is str), seconds)

    def ends(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> tuple[Mapping[str, Any], Mapping[str, int]]:
        """`last_versions` and `young`; one query, if no stream ended in the last hour."""
        if not seconds:
            return self.last_versions(ids), {}
        near = {"$project": {"last": 1, "near": _is_near("$at", seconds)}}
        ends = [*stream_ends.last_of(ids, last="version", at="created_at"), near]
        groups = [group for group in self._groups(ends, self._index_for(ids)) if type(group["_id"]) is str]
        young = self._young(fold, sorted(group["_id"] for group in groups if group["near"]), seconds)
        return {group["_id"]: group["last"] for group in groups}, young

    def _young(self, fold: Fold[Any], near: Sequence[str], seconds: float) -> dict[str, int]:
        """`young`, of streams whose last event is near."""
        if not near:
            return {}
        pipeline: list[Mapping[str, Any]] = [
            {
                "$match": {
                    **_stored_as(fold),
                    **scan.string_keys("aggregate_id", near),
                    "version": {"$type": "number"},
                    "$expr": stream_ends.is_within("$created_at", seconds),
                }
            },
            {"$group": {"_id": "$aggregate_id", "first": {"$min": "$version"}}},
        ]
        return {group["_id"]: _whole_or_1(group["first"]) for group in self._groups(pipeline)}

    def ids(self) -> Iterator[str]:
        """Every aggregate id that is a string, in order, of any type of stream; from the index alone."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"aggregate_id": {"$gte": ""}}},
            {"$sort": {"aggregate_id": 1, "version": 1}},
            {"$group": {"_id": "$aggregate_id"}},
        ]
        if not self.versions_are_indexed:
            # The server reads one key per stream, in order, unless an id is an array.
            pipeline[1] = {"$match": {"aggregate_id": scan.NO_ARRAY}}
            pipeline.append({"$sort": {"_id": 1}})
        groups = self._groups_in_order(pipeline, self.index)
        return (group["_id"] for group in groups if type(group["_id"]) is str)

    def outlines(self, fold: Fold[Any], fields: Iterable[str] | None = None) -> Iterator[Outline]:
        """The outline of every stream, in order of the ids, symbols among them.

        The first event of each is read, with these `fields` of its data, and of the others is known that no version is
        missing; where it has `versions_are_indexed`. Otherwise every event is read.
        """
        types = spellings(fold.stored_as)
        if not self.versions_are_indexed:
            for group in self._groups_in_order(stream_ends.counted(types), None):
                # An array is matched by the strings in it.
                if not isinstance(group["_id"], list):
                    self.events_read += group["events"]
                    yield Outline(group["_id"], group["first"], group["last"], group["events"])
            return
        merged = self._collection.database.client.is_mongos
        firsts = stream_ends.first_events(types, _ENVELOPE if fields is None else _shown(fold, fields), merged=merged)
        begins = self._paid_one_by_one(self._groups_in_order(firsts, self.index, shown=_ORDER[0]))
        ends = _InStep(self._groups_in_order(stream_ends.last_versions(), self.index))
        uneven = stream_ends.uneven(self._collection, str(self.index), ends.sum)
        for event in begins:
            aggregate_id = event["aggregate_id"]
            last = ends.at(aggregate_id)
            events = last if type(last) is int else _whole_or_1(last)
            first = event.get("version")
            if uneven:
                first, last, events = uneven.get(aggregate_id, (first, last, events))
            self.events_read += events
            yield Outline(aggregate_id, first, last, events, event)

    def deciding(self, fold: Fold[Any], event_types: Sequence[str], fields: Iterable[str]) -> Iterator[Document]:
        """Only events of these types, with these fields of their data, of every stream with a string id, in order of
        (aggregate_id, version).
        """
        shown = {**_shown(fold, fields), "_id": 0}
        these = {**_stored_as(fold), **scan.string_keys("aggregate_id"), "event_type": {"$in": list(event_types)}}
        # The server would prefer reading every event in order to sorting some. It sorts what is left by the projection.
        query = scan.Query(these, shown, tuple((field, 1) for field in _ORDER), self._type_index)
        batches = scan.drain(self._collection, query, of_events=True)
        return chain.from_iterable(self._paid(Beforehand(batches, "reads deciding events")))

    def _paid_one_by_one(self, events: Iterator[Document]) -> Iterator[Document]:
        return chain.from_iterable(self._paid(batched(events, _PAID_AT_ONCE))) if self._pay else events

    def skipping(self, fold: Fold[Any]) -> Iterator[str]:
        """Every stream with a string id that has events of a type with another prefix, in order."""
        behind = fold.prefix[:-1] + chr(ord(fold.prefix[-1]) + 1)
        other = [{"event_type": {"$lt": fold.prefix}}, {"event_type": {"$gte": behind}}]
        these = {**_stored_as(fold), **scan.string_keys("aggregate_id"), "$or": other}
        pipeline: list[Mapping[str, Any]] = [{"$match": these}, {"$group": {"_id": "$aggregate_id"}}]
        groups = self._groups_in_order([*pipeline, {"$sort": {"_id": 1}}], self._type_index)
        return (group["_id"] for group in groups)

    @property
    def _type_index(self) -> str | None:
        """The name of an index on the event type; None if there is none."""
        for index in indexes_of(self._collection) or ():
            if scan.holds_every_document(index) and next(iter(index["key"])) == "event_type":
                return str(index["name"])
        return None

    @cached_property
    def versions_are_indexed(self) -> bool:
        """Whether the index can return versions: it exists, and no id is an array, which would prevent it."""
        return self.index is not None and not scan.holds_arrays(self._collection, _ORDER[0], self.index)

    def sample(self, fold: Fold[Any], size: int) -> list[str]:
        """The ids of about `number` random events; a stream with many events occurs more often."""
        return scan.sampled(
            self._collection, "aggregate_id", {**_stored_as(fold), **scan.string_keys("aggregate_id")}, size
        )

    def recent_ids(self, fold: Fold[Any], since: datetime, most: int) -> set[str]:
        """Ids of streams with events appended since then, at most `most`."""
        # An event can occur long before it is appended. Its `_id` is made when it is appended, and has an index.
        appended = {"_id": {"$gte": ObjectId.from_datetime(since)}}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {**_stored_as(fold), **appended, **scan.string_keys("aggregate_id")}},
            {"$group": {"_id": "$aggregate_id"}},
            {"$limit": most},
        ]
        return {group["_id"] for group in self._groups(pipeline)}

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of any BSON type, whether any event has it."""
        if not ids:
            return []
        where = {**_stored_as(fold), "$or": [_carries(aggregate_id) for aggregate_id in ids]}
        carried = {_identity(event) for event in scan.found(self._collection, where, {"_id": 0, "aggregate_id": 1})}
        return [_identity({"aggregate_id": item}) in carried for item in ids]

    def _groups(self, pipeline: Sequence[Mapping[str, Any]], index: str | None = None) -> Iterator[Document]:
        return scan.grouped(self._collection, pipeline, batchSize=scan.BATCH_DOCUMENTS, **_hint(index))

    def _groups_in_order(
        self, pipeline: Sequence[Mapping[str, Any]], index: str | None, shown: str = "_id"
    ) -> Iterator[Document]:
        """The groups of a pipeline that yields them in order of the aggregate ids."""
        options = {"batchSize": scan.BATCH_DOCUMENTS, **_hint(index)}
        return scan.grouped_in_order(self._collection, pipeline, _ORDER[0], shown, **options)


def _hint(index: str | None) -> dict[str, Any]:
    return {"hint": index} if index else {}


def _is_near(moment: str, seconds: float) -> Document:
    """Whether the last event of a stream is so near that one of its events may be young; or has no time."""
    return stream_ends.is_within(moment, seconds + _CLOCKS_DIFFER_SECONDS, if_none=True)


def _above(field: str) -> list[str]:
    """The parent fields of this one."""
    names = field.split(".")
    return [".".join(names[:number]) for number in range(1, len(names))]


class _InStep:
    """The last versions of streams that come in order and are asked for in order, and their `sum`."""

    def __init__(self, groups: Iterator[Document]) -> None:
        self._groups = groups
        self._next = next(groups, None)
        self.sum = 0 if self._next is None else self._next["sum"]

    def at(self, aggregate_id: Any) -> Any:
        """That of this stream; None for one that was not there yet."""
        if (there := self._next) is not None and type(there["_id"]) is str and there["_id"] == aggregate_id:
            self._next = next(self._groups, None)
            return there["last"]
        place = _place(aggregate_id)
        while self._next is not None and _place(self._next["_id"]) < place:
            self._next = next(self._groups, None)
        return self._next["last"] if self._next is not None and _place(self._next["_id"]) == place else None


def _place(aggregate_id: Any) -> bytes:
    """Of a text, or of a symbol, which has one order with the texts."""
    return byte_order(aggregate_id if type(aggregate_id) is str else aggregate_id.symbol or "")


def _shown(fold: Fold[Any], fields: Iterable[str], spare: Sequence[str] = scan.SPARE[:1]) -> Document:
    """The fields of an event that the fold reads, with these of its data."""
    # A fold that reads nothing from `data` must still know whether it is a document.
    names = {*_ENVELOPE, *fold.envelope, *(f"data.{name}" for name in (*fields, *spare))}
    # MongoDB refuses a field together with its parent.
    return {name: 1 for name in sorted(names) if names.isdisjoint(_above(name))}


def _whole_or_1(version: Any) -> int:
    """NaN is also a number; a stream with such a version is malformed anyway."""
    try:
        return whole(version, "version")
    except BadField:
        return 1


def _identity(event: Mapping[str, Any]) -> bytes:
    return written({"id": event.get("aggregate_id")})


def _carries(aggregate_id: Any) -> Mapping[str, Any]:
    if isinstance(aggregate_id, Odd) and aggregate_id.kind == _UNDEFINED:
        # Nothing can be compared with it.
        return {"aggregate_id": {"$type": _UNDEFINED}}
    # Not `$in`, which takes a regular expression as a pattern and refuses a document with a `$` in its names.
    return sendable({"aggregate_id": {"$eq": aggregate_id}})


def _stored_as(fold: Fold[Any]) -> Document:
    return {"aggregate_type": {"$in": spellings(fold.stored_as)}}


def spellings(stored_as: Iterable[str]) -> list[Any]:
    """The aggregate types that an event of such a stream may have; the same text in another type makes it malformed."""
    # A query for the text also finds a symbol, and an array that holds it.
    return [*stored_as, *map(Code, stored_as)]
