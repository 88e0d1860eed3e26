"""The pipeline, `read → fold → join → sink`: one pass over the streams of one aggregate type.

One pass feeds every read model made from those streams. Verbs differ in the aggregates they cover and in the sink. The
merge join cannot handle streams and documents whose id is no string; a separate scan finds them, except symbols, which
lie among the strings.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Malformed, Reason, Stream, check_id, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.join import Lane, MergeJoin, decoded, key_of
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.stored import Stored
from readmodel_pipelines.side_by_side import side_by_side

_BATCH = 500


class Checkpoint(Protocol):
    """Splits a long pass into batches."""

    def due(self) -> bool:
        """Called once per stream; returns whether the batch is full."""

    def reached(self, aggregate_id: str) -> None:
        """Everything before this id, a text of valid UTF-8, is decided. May raise to end the pass here."""


def reconcile(
    store: EventStore,
    lanes: Sequence[Lane],
    allowed: Collection[str] = (),
    ids: Sequence[str] | None = None,
    *,
    within: IdRange = EVERYTHING,
    checkpoint: Checkpoint | None = None,
    held: bool = True,
    gaps_again: bool = False,
    passing: Callable[[Iterable[Event]], Iterable[Event]] | None = None,
) -> None:
    """Compare the aggregates `ids` (sorted), or all in a range, in every lane; all are made from streams of one type.

    With `ids`, all documents are `held` before the first event is read, unless the caller rechecks anyway. With
    `gaps_again`, streams with a gap are read once more, by their ids. Events go through `passing`, which may keep them.
    """
    folds = list(dict.fromkeys(lane.projection.fold for lane in lanes))
    fold = together(folds)
    places = [folds.index(lane.projection.fold) for lane in lanes]
    documents = side_by_side(*(partial(_documents, store, lane, ids, within, held=held) for lane in lanes))
    joins = [MergeJoin(lane, each, ids, within) for lane, each in zip(lanes, documents, strict=True)]
    events: Iterable[Event] = store.read(fold, ids, within)
    for stream in fold_streams(events if passing is None else passing(events), fold, allowed):
        if gaps_again and _has_gap(stream):
            # An event being appended may have a lower version than one that was already read.
            again = fold_streams(store.read(fold, [stream.aggregate_id]), fold, allowed)
            stream = next(again, stream)
        if isinstance(stream.result, Malformed) and not is_plain(stream.aggregate_id):
            # No query can ask for it again, to find its offending event.
            stream.result = replace(stream.result, event_id=store.first_event(fold, stream.aggregate_id))
            if type(stream.aggregate_id) is not str:
                if ids is None:
                    tell_odd(lanes, stream.aggregate_id, stream.result)
                continue
        # No query can begin at an id that is no UTF-8.
        if checkpoint is not None and checkpoint.due() and is_plain(stream.aggregate_id):
            for join in joins:
                join.move_to(stream.aggregate_id)
            checkpoint.reached(stream.aggregate_id)
        if len(folds) == 1:
            for join in joins:
                join.meet(stream)
        else:
            parts = [part_of(stream, place) for place in range(len(folds))]
            for join, place in zip(joins, places, strict=True):
                join.meet(parts[place])
    for join in joins:
        join.finish()


def _has_gap(stream: Stream[Any]) -> bool:
    result = stream.result
    return isinstance(result, Malformed) and result.reason is Reason.VERSION_GAP and is_plain(stream.aggregate_id)


def _documents(
    store: EventStore, lane: Lane, ids: Sequence[str] | None, within: IdRange, *, held: bool
) -> Iterable[Document | Stored]:
    """The lane's documents; with `held`, all of `ids` are read before the first event.

    So none is newer than the events it is compared with: replacing such a document would overwrite a newer state with
    an older one. A full pass cannot hold them, and compares again before it replaces.
    """
    if ids is None:
        return _with_text_keys(store, lane, lane.model.stored(within))
    documents = lane.model.read(ids)
    return list(documents) if held else documents


def _with_text_keys(
    store: EventStore, lane: Lane, documents: Iterable[Document | Stored]
) -> Iterator[Document | Stored]:
    """The documents whose key is a string; those with a symbol as key are reported."""
    key = lane.projection.key
    odd: list[Document] = []
    for document in documents:
        is_text = type(key_of(document, key)) is str
        if not is_text:
            odd.append(decoded(document))
        if odd and (is_text or len(odd) >= _BATCH):
            # Before the next document is given, because its reader has then decided everything before it.
            tell_odd_documents(store, lane, odd)
            odd.clear()
        if is_text:
            yield document
    tell_odd_documents(store, lane, odd)


def reconcile_odd_ids(
    store: EventStore, lanes: Sequence[Lane], *, symbols: bool, symbols_of_events: bool | None = None
) -> None:
    """Report streams and documents with an odd id, once each; symbols only if no full pass finds them.

    Some passes find only those of events.
    """
    of_events = symbols if symbols_of_events is None else symbols_of_events
    for event in store.odd_streams(lanes[0].projection.fold, symbols=of_events):
        tell_odd(lanes, event.get("aggregate_id"), check_id(event))
    for lane in lanes:
        tell_odd_documents(store, lane, lane.model.odd_documents(symbols=symbols))


def tell_odd(lanes: Sequence[Lane], aggregate_id: Any, malformed: Malformed | None) -> None:
    """Report a stream with an odd id to every lane."""
    for lane in lanes:
        lane.counts.checked += 1
        reason = malformed.reason if malformed else None
        lane.emit(Verdict(aggregate_id, Outcome.MALFORMED, reason=reason, malformed=malformed))


def tell_odd_documents(store: EventStore, lane: Lane, documents: Iterable[Document]) -> None:
    """Report those of the documents with an odd key that have no event."""
    for verdict in odd_orphans(store, lane, documents):
        lane.counts.checked += 1
        lane.emit(verdict)


def odd_orphans(store: EventStore, lane: Lane, documents: Iterable[Document]) -> Iterable[Verdict]:
    """Those of the documents with an odd key that have no event."""
    key, fold = lane.projection.key, lane.projection.fold
    for batch in batched(documents, _BATCH):
        for document, has_events in zip(batch, store.have_events(fold, [item.get(key) for item in batch]), strict=True):
            if not has_events:
                yield Verdict(document.get(key), Outcome.ORPHAN, None, document, Why.ODD_KEY)
            elif lane.stays is not None:
                lane.stays(document)
