"""Tier versions: checks whether every stream that wants a document has one, at its version.

The index yields the versions. Only the events that decide whether a document exists are folded: the first of each
stream, and later ones of the other deciding types. Findings are compared again as documents before they are reported.
So it is cheap if all is well, and exact.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, tee
from typing import Any

from readmodel_pipelines.events.exact import Odd
from readmodel_pipelines.events.ids import byte_order, is_aggregate_id, is_plain
from readmodel_pipelines.events.stream import Fold, Malformed, Reason, Stream, check_id, fold_streams
from readmodel_pipelines.events.together import together
from readmodel_pipelines.events.values import BadField, Event, whole
from readmodel_pipelines.projections.projection import Document, Projection, stored_version
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ports import EventStore, Outline
from readmodel_pipelines.reconcile.run import tell_odd, tell_odd_documents
from readmodel_pipelines.side_by_side import side_by_side


@dataclass(slots=True)
class _Ends:
    """The state of a stream of which only the version is known, and whether it wants a document."""

    version: int
    wanted: bool = True
    created: bool = True


_Result = _Ends | Malformed
_REMEMBERED = 1_000
_NEEDS_FOLD = Malformed(Reason.UNKNOWN_EVENT_TYPE, "only the whole fold decides")


def reconcile_versions(store: EventStore, lanes: Sequence[Lane], allowed: Collection[str] = ()) -> None:
    """Compare presence and version of every aggregate with a string id in every lane."""
    fold = together(list(dict.fromkeys(lane.projection.fold for lane in lanes)))
    deciding = [item for lane in lanes if (item := lane.projection).optional and item.decided_by]
    (outlines, begins), *documents = side_by_side(
        partial(_begun, store, fold, deciding), *(partial(_begun_documents, store, lane) for lane in lanes)
    )
    outlines, *firsts = tee(outlines, 1 + len(deciding))
    presences = {
        item.read_model: _presence(store, item, _first_events(each), begins, allowed)
        for item, each in zip(deciding, firsts, strict=True)
    }
    skipping = _InOrder(
        (aggregate_id, True) for aggregate_id in (store.skipping(fold) if Reason.UNKNOWN_EVENT_TYPE in allowed else ())
    )
    joins = [
        (MergeJoin(_outlined(lane), each), presences.get(lane.projection.read_model))
        for lane, each in zip(lanes, documents, strict=True)
    ]
    for aggregate_id, first, last, events, _ in outlines:
        # The last version is not the stream's if it may belong to a skipped event.
        ends = _NEEDS_FOLD if skipping.at(aggregate_id) else _ends(first, last, events, allowed)
        if not is_plain(aggregate_id):
            event_id = store.first_event(fold, aggregate_id)
            if type(aggregate_id) is not str:
                tell_odd(lanes, aggregate_id, check_id({"aggregate_id": aggregate_id, "_id": event_id}))
                continue
            if event_id is None:
                # A symbol, which is reported elsewhere; grouping may have turned it into a text.
                continue
            ends = Malformed(Reason.BAD_AGGREGATE_ID, "aggregate_id is not valid UTF-8", event_id=event_id)
        for join, presence in joins:
            result = ends
            if presence is not None and type(ends) is _Ends:
                wanted = presence.at(aggregate_id)
                # Only an unwanted one needs ends of its own.
                result = ends if wanted else _NEEDS_FOLD if wanted is None else _Ends(ends.version, wanted)
            join.meet(Stream(aggregate_id, result))
    for join, _ in joins:
        join.finish()


class _InOrder:
    """Values of some aggregates, which come in order and are requested in order."""

    def __init__(self, known: Iterable[tuple[str, bool | None]]) -> None:
        self._rest = iter(known)
        self._next = next(self._rest, None)

    def at(self, aggregate_id: str) -> bool | None:
        """The value of this aggregate; None if there is none."""
        while self._next is not None and self._next[0] != aggregate_id:
            if byte_order(self._next[0]) > byte_order(aggregate_id):
                return None
            self._next = next(self._rest, None)
        return None if self._next is None else self._next[1]


def _begun(store: EventStore, fold: Fold[Any], deciding: Sequence[Projection]) -> tuple[Iterator[Outline], object]:
    """The outlines of all streams, and the type of the event that the first stream begins with, if it was read."""
    fields = {name for item in deciding for names in item.decided_by.values() for name in names}
    outlines = store.outlines(fold, fields if deciding else None)
    head = next(outlines, None)
    if head is None:
        return outlines, None
    return chain([head], outlines), None if head.event is None else head.event.get("event_type")


def _begun_documents(store: EventStore, lane: Lane) -> Iterator[Document]:
    documents = _with_text_keys(store, lane)
    head = next(documents, None)
    return documents if head is None else chain([head], documents)


def _with_text_keys(store: EventStore, lane: Lane) -> Iterator[Document]:
    """The documents whose key is a string. If some have a symbol, these are read and reported after the others."""
    key, has_others = lane.projection.key, False
    for document in lane.model.versions():
        if type(document[key]) is str:
            yield document
        else:
            has_others = True
    if has_others:
        tell_odd_documents(store, lane, filter(partial(_has_symbol, key), lane.model.odd_documents(symbols=True)))


def _has_symbol(key: str, document: Document) -> bool:
    return isinstance(document.get(key), Odd) and document[key].symbol is not None


def _first_events(outlines: Iterable[Outline]) -> Iterator[Event]:
    return (item.event for item in outlines if item.event is not None and type(item.aggregate_id) is str)


def _presence(
    store: EventStore, projection: Projection, firsts: Iterable[Event], begins: object, allowed: Collection[str]
) -> _InOrder:
    """Whether streams want a document, by their first events and the others that decide it.

    Other streams begin as the first one does, so events of that type are not read once more.
    """
    others = [event_type for event_type in projection.decided_by if event_type != begins]
    fields = {name for event_type in others for name in projection.decided_by[event_type]}
    later = store.deciding(projection.fold, others, fields) if others else ()
    decides = _Decides(projection, {*allowed, Reason.VERSION_GAP})
    return _InOrder((aggregate_id, decides(events)) for aggregate_id, events in _by_stream(firsts, later))


def _by_stream(firsts: Iterable[Event], later: Iterable[Event]) -> Iterator[tuple[str, list[Event]]]:
    """Each stream with its first event and its later ones, among which the first may be, too; both come in order.

    Later ones without a first event are left out: their stream is of another type, or was not there a moment ago.
    """
    rest = iter(later)
    after = next(rest, None)
    for first in firsts:
        aggregate_id, events = first["aggregate_id"], [first]
        while after is not None and _is_before(after["aggregate_id"], aggregate_id):
            after = next(rest, None)
        while after is not None and after["aggregate_id"] == aggregate_id:
            if after.get("version") != first.get("version"):
                events.append(after)
            after = next(rest, None)
        yield aggregate_id, events


def _is_before(one: str, other: str) -> bool:
    return one != other and byte_order(one) < byte_order(other)


class _Decides:
    """Whether a projection wants a document of a stream, by the events that decide it; None if only its fold can say.

    The fields that decide have few different values in all streams, so most streams are decided as one before was.
    """

    def __init__(self, projection: Projection, allowed: Collection[str]) -> None:
        self._projection = projection
        self._allowed = allowed
        self._known: dict[Hashable, bool] = {}

    def __call__(self, events: Sequence[Event]) -> bool | None:
        """Of one stream."""
        alike = _decided_alike(events)
        if alike is not None and alike in self._known:
            return self._known[alike]
        # Aggregates between them are left out.
        (stream,) = fold_streams(events, self._projection.fold, self._allowed)
        wants = _wants(self._projection, stream)
        # A fault may lie in what this stream has for itself.
        if alike is not None and wants is not None and len(self._known) < _REMEMBERED:
            self._known[alike] = wants
        return wants


def _decided_alike(events: Sequence[Event]) -> Hashable:
    """What streams have in common that are decided alike; None for one with anything unusual, which is folded."""
    alike: list[object] = []
    last = 0
    for event in events:
        event_type, version, data = event.get("event_type"), event.get("version"), event.get("data")
        if (
            type(event_type) is not str
            or type(version) is not int
            or version <= last
            or type(event.get("aggregate_type", "")) is not str
            or type(data) is not dict
        ):
            return None
        last = version
        alike.append(event_type)
        for item in data.items():
            # True and 1.0 would be taken for 1.
            if type(item[1]) is not str:
                return None
            alike.append(item)
    return tuple(alike) if is_aggregate_id(events[0]["aggregate_id"]) else None


def _wants(projection: Projection, stream: Stream[Any]) -> bool | None:
    if isinstance(stream.result, Malformed):
        return None
    try:
        return projection.document(stream.aggregate_id, stream.result) is not None
    except Exception:  # noqa: BLE001 - a fault of one projection on one stream affects no other
        return None


def _outlined(lane: Lane) -> Lane:
    """The lane with only key and version of its documents."""
    projection = lane.projection
    versioned = "version" in projection.owned

    def document(aggregate_id: str, ends: _Ends) -> Document | None:
        outline: Document = {projection.key: aggregate_id}
        if versioned:
            outline["version"] = stored_version(ends.version)
        return outline if ends.wanted else None

    outlined = replace(lane, projection=replace(projection, document=document), keep=None)
    if not projection.optional or projection.decided_by:
        return outlined
    return replace(outlined, emit=_deciding(lane), keep=_undecided(lane))


def _deciding(lane: Lane) -> Callable[[Verdict], None]:
    """Whether it is unknown if an absent document should exist."""

    def emit(verdict: Verdict) -> None:
        if verdict.outcome is Outcome.MISSING:
            lane.counts.undecided += 1
        else:
            lane.emit(verdict)

    return emit


def _undecided(lane: Lane) -> Callable[[Document, Document], None]:
    """Whether it is unknown if a document at the right version should exist."""

    def keep(_: Document, __: Document) -> None:
        lane.counts.same -= 1
        lane.counts.undecided += 1

    return keep


def _ends(first: Any, last: Any, events: int, allowed: Collection[str]) -> _Result:
    if type(first) is int and type(last) is int and first >= 1 and last == events:
        # Nearly all.
        return _Ends(last)
    try:
        begin, end = whole(first, "version"), whole(last, "version")
    except BadField as error:
        return Malformed(Reason.BAD_VERSION, str(error))
    if begin < 1:
        return Malformed(Reason.BAD_VERSION, f"versions begin at 1, this one is {begin}")
    if end < events:
        return Malformed(Reason.REPEATED_VERSION, f"{events} events have versions {begin} to {end}")
    if end > events and Reason.VERSION_GAP not in allowed:
        return Malformed(Reason.VERSION_GAP, f"{events} events have versions {begin} to {end}")
    return _Ends(end)
