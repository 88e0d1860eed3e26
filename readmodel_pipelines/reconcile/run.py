"""The pipeline, `read → fold → join → sink`: one pass over the streams of one aggregate type.

One pass feeds every read model made from those streams. Verbs differ in the aggregates they cover and in the sink.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Malformed, check_id, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.join import MergeJoin
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import EventStore, ReadModel
from readmodel_pipelines.reconcile.prefix import is_of_a_prefix
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange

_ODD_BATCH = 500


class Sink(Protocol):
    """Where the verdicts on one read model go."""

    def accept(self, verdict: Verdict) -> None:
        """One aggregate that is not `same`."""

    def finish(self) -> None:
        """The pass is over: do what waited for its end."""

    def close(self) -> None:
        """Whether the pass came to its end or not: let go of what is held."""


def _nowhere(verdict: Verdict) -> None:
    """Until a lane has a sink."""


@dataclass(slots=True)
class Lane:
    """One read model in a pass.

    `contested` names streams that are malformed for this read model only: another claims the same unique key. `keep`
    is given what is `same`, expected and actual.
    """

    projection: Projection
    model: ReadModel
    counts: Counts
    emit: Callable[[Verdict], None] = _nowhere
    contested: Mapping[str, Malformed] = field(default_factory=dict)
    keep: Callable[[Document, Document], None] | None = None


class Checkpoint(Protocol):
    """Cuts a long pass into batches."""

    def due(self) -> bool:
        """Asked once for every stream: whether the batch is full."""

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
) -> None:
    """Compare the aggregates `ids` (sorted), or all in a range, in every lane, all made from streams of one type."""
    folds = list(dict.fromkeys(lane.projection.fold for lane in lanes))
    fold = together(folds)
    places = [folds.index(lane.projection.fold) for lane in lanes]
    joins = [
        MergeJoin(lane.projection, _documents(lane, ids, within), lane.counts, lane.emit, lane.contested, lane.keep)
        for lane in lanes
    ]
    for stream in fold_streams(store.read(fold, ids, within), fold, allowed):
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


def _documents(lane: Lane, ids: Sequence[str] | None, within: IdRange) -> Iterable[dict[str, Any]]:
    """The lane's documents; all of `ids` before the first event is read.

    So that none is newer than the events it is compared with: replacing it would put an older state over a newer one.
    A full pass cannot hold them, and compares again before it replaces.
    """
    documents = lane.model.read(ids, within)
    return documents if ids is None else list(documents)


def compare_again(store: EventStore, lane: Lane, allowed: Collection[str], ids: Sequence[str]) -> list[Verdict]:
    """What these aggregates, a batch at most, are now; those that are `same` are left out. Counts nothing."""
    verdicts: list[Verdict] = []
    if ids:
        reached(Moment.COMPARISON_AGAIN, ids=ids)
        counted = store.events_read
        reconcile(store, [replace(lane, counts=Counts(), emit=verdicts.append, keep=None)], allowed, sorted(set(ids)))
        store.events_read = counted
    return verdicts


def behind(store: EventStore, lane: Lane, allowed: Collection[str], since: Mapping[str, int]) -> set[str]:
    """Those of the aggregates, a batch at most, whose document is what their stream folds to at some version.

    Each at the version that `since` gives for it, or a later one: a document that is a moment behind.
    """
    if not since:
        return set()
    counted = store.events_read
    ids = sorted(since)
    documents = {document[lane.projection.key]: document for document in lane.model.read(ids)}
    streams = groupby(store.read(lane.projection.fold, ids), key=itemgetter("aggregate_id"))
    found = {
        aggregate_id
        for aggregate_id, events in streams
        if is_of_a_prefix(
            lane.projection, aggregate_id, events, documents.get(aggregate_id), since[aggregate_id], allowed
        )
    }
    store.events_read = counted
    return found


def reconcile_odd_ids(store: EventStore, lanes: Sequence[Lane]) -> None:
    """Report, once each, what the merge join cannot meet: streams and documents whose id is not a string."""
    for event in store.odd_streams(lanes[0].projection.fold):
        malformed = check_id(event)
        for lane in lanes:
            lane.counts.checked += 1
            lane.emit(
                Verdict(
                    event.get("aggregate_id"),
                    Outcome.MALFORMED,
                    reason=malformed.reason if malformed else None,
                    malformed=malformed,
                )
            )
    for lane in lanes:
        for verdict in odd_orphans(store, lane, lane.model.odd_documents()):
            lane.counts.checked += 1
            lane.emit(verdict)


def odd_orphans(store: EventStore, lane: Lane, documents: Iterable[dict[str, Any]]) -> Iterable[Verdict]:
    """Those of the documents with an odd key that no event belongs to."""
    key, fold = lane.projection.key, lane.projection.fold
    for batch in batched(documents, _ODD_BATCH):
        for document, has_events in zip(batch, store.have_events(fold, [item.get(key) for item in batch]), strict=True):
            if not has_events:
                yield Verdict(document.get(key), Outcome.ORPHAN, None, document, Why.ODD_KEY)
