"""Read models opened for a pass: the lanes of one fold, and the sinks that verbs put behind them.

Between the engine, which knows no database, and the verbs, which say what is covered: each lane has its collection, the
claims that others contest, and a way to look at aggregates again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from pymongo.database import Database

from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.confirm import Confirm, Looks
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.dry_run import DryRun
from readmodel_pipelines.reconcile.finding import Finding, finding_of
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.ports import Deferred
from readmodel_pipelines.reconcile.run import Lane, behind, compare_again, odd_orphans
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings

Contested = Mapping[str, Mapping[str, Malformed]]
"""By read model, the streams whose claim on a unique key another stream contests."""


class Lanes:
    """The read models that are made from the same streams, opened for a pass.

    `collections` names those that lie elsewhere than the settings say, as one that is being built does.
    """

    def __init__(
        self,
        database: Database[Document],
        settings: Settings,
        projections: Sequence[Projection],
        store: EventStore | None = None,
        *,
        counts: Mapping[str, Counts] | None = None,
        contested: Contested | None = None,
        collections: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self.events = database[settings.events_collection]
        self.store = store or EventStore(self.events)
        self.lanes = [
            Lane(
                item,
                ReadModelCollection(
                    database[(collections or {}).get(item.read_model) or collection_of(settings, item)], item
                ),
                counts[item.read_model] if counts else Counts(),
                contested=(contested or {}).get(item.read_model, {}),
            )
            for item in projections
        ]

    def again(self, lane: Lane) -> Callable[[Sequence[str]], list[Verdict]]:
        """Compares aggregates of a lane anew."""
        return partial(compare_again, self.store, lane, self._settings.allow_malformed)

    def confirm(
        self, lane: Lane, summary: Summary, on_findings: Callable[[Projection, Sequence[Finding]], None] | None = None
    ) -> Confirm:
        """The sink of a verification."""
        projection, seconds = lane.projection, self._settings.grace_seconds
        store = EventStore(self.events)

        def note(verdicts: Sequence[Verdict]) -> None:
            found = [finding_of(projection.read_model, verdict) for verdict in verdicts]
            if on_findings and found:
                on_findings(projection, found)
            for finding in found:
                summary.add(finding)

        looks = Looks(
            again=self.again(lane),
            young=lambda ids: store.young(projection.fold, ids, seconds),
            behind=partial(behind, store, lane, self._settings.allow_malformed),
        )
        return Confirm(lane.counts, looks, note, grace_seconds=seconds)

    def in_place(
        self,
        lane: Lane,
        summary: Summary,
        deferred: Deferred,
        still_ours: Callable[[], None],
        limit: DeletionLimit | None = None,
    ) -> InPlace:
        """The sink that mends."""
        return InPlace(
            lane,
            summary,
            deferred,
            again=self.again(lane),
            odd_orphans=partial(odd_orphans, self.store, lane),
            last_versions=EventStore(self.events).last_versions,
            pause=_pause,
            still_ours=still_ours,
            limit=limit,
        )

    def dry_run(self, lane: Lane, summary: Summary, limit: DeletionLimit | None) -> DryRun:
        """The sink that predicts."""
        return DryRun(
            lane, summary, again=self.again(lane), odd_orphans=partial(odd_orphans, self.store, lane), limit=limit
        )


def contested(
    store: EventStore, projections: Iterable[Projection], ids: Sequence[str] | None = None
) -> dict[str, Mapping[str, Malformed]]:
    """The contested claims of these read models; with `ids` only of these streams."""
    return {
        item.read_model: store.contested(item.fold, item.claims, ids) for item in projections if item.claims is not None
    }


def noting(lane: Lane, summary: Summary, accept: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """What puts each verdict into the summary before a sink takes it."""

    def emit(verdict: Verdict) -> None:
        summary.note(lane.projection.read_model, verdict)
        accept(verdict)

    return emit


def _pause(attempt: int) -> None:
    if attempt:
        time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - spreads writers, keeps no secret
