"""Odd ids: streams and documents whose id is no string, which the merge join cannot meet and one scan finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.stream import check_id
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.run import Lane

_BATCH = 500


def reconcile_odd_ids(store: EventStore, lanes: Sequence[Lane]) -> None:
    """Report them, once each."""
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
