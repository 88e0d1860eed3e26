"""The pipeline, `read → fold → join → sink`: one pass over the streams of one aggregate type.

One pass feeds every read model made from those streams. Verbs differ in the aggregates they cover and in the sink.
Streams and documents whose id is no string the merge join cannot meet; one scan finds them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import check_id, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange

_BATCH = 500


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
    held: bool = True,
) -> None:
    """Compare the aggregates `ids` (sorted), or all in a range, in every lane, all made from streams of one type.

    Of `ids` all documents are `held` before the first event is read, unless whoever asks looks again anyway.
    """
    folds = list(dict.fromkeys(lane.projection.fold for lane in lanes))
    fold = together(folds)
    places = [folds.index(lane.projection.fold) for lane in lanes]
    joins = [MergeJoin(lane, _documents(lane, ids, within, held=held), ids, within) for lane in lanes]
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


def _documents(lane: Lane, ids: Sequence[str] | None, within: IdRange, *, held: bool) -> Iterable[Document]:
    """The lane's documents; all of `ids` before the first event is read, where they are held.

    So that none is newer than the events it is compared with: replacing it would put an older state over a newer one.
    A full pass cannot hold them, and compares again before it replaces.
    """
    documents = lane.model.read(ids, within)
    return list(documents) if held and ids is not None else documents


def reconcile_odd_ids(store: EventStore, lanes: Sequence[Lane]) -> None:
    """Report streams and documents with an odd id, once each."""
    for event in store.odd_streams(lanes[0].projection.fold):
        malformed = check_id(event)
        for lane in lanes:
            lane.counts.checked += 1
            reason = malformed.reason if malformed else None
            lane.emit(Verdict(event.get("aggregate_id"), Outcome.MALFORMED, reason=reason, malformed=malformed))
    for lane in lanes:
        for verdict in odd_orphans(store, lane, lane.model.odd_documents()):
            lane.counts.checked += 1
            lane.emit(verdict)


def odd_orphans(store: EventStore, lane: Lane, documents: Iterable[Document]) -> Iterable[Verdict]:
    """Those of the documents with an odd key that no event belongs to."""
    key, fold = lane.projection.key, lane.projection.fold
    for batch in batched(documents, _BATCH):
        for document, has_events in zip(batch, store.have_events(fold, [item.get(key) for item in batch]), strict=True):
            if not has_events:
                yield Verdict(document.get(key), Outcome.ORPHAN, None, document, Why.ODD_KEY)
