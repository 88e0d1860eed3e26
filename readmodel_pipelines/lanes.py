"""Read models opened for a pass: the lanes of one fold, and the sinks that verbs put behind them.

Between the engine, which knows no database, and the verbs, which say what is covered: each lane has its collection, the
claims that others contest, and a way to look at aggregates again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.confirm import Confirm
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.finding import Finding, finding_of
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.run import Lane
from readmodel_pipelines.reconcile.second_look import SecondLook
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

    def again(self, lane: Lane) -> SecondLook:
        """Looks at aggregates of a lane again."""
        return SecondLook(EventStore(self.events), lane, self._settings.allow_malformed)

    def confirm(
        self, lane: Lane, summary: Summary, on_findings: Callable[[Projection, Sequence[Finding]], None] | None = None
    ) -> Confirm:
        """The sink of a verification."""
        projection = lane.projection

        def note(verdicts: Sequence[Verdict]) -> None:
            found = [finding_of(projection.read_model, verdict) for verdict in verdicts]
            if on_findings and found:
                on_findings(projection, found)
            for finding in found:
                summary.add(finding)

        return Confirm(lane.counts, self.again(lane), note, grace_seconds=self._settings.grace_seconds)


def contested(
    store: EventStore, projections: Iterable[Projection], ids: Sequence[str] | None = None
) -> dict[str, Mapping[str, Malformed]]:
    """The contested claims of these read models; with `ids` only of these streams."""
    return {
        item.read_model: store.contested(item.fold, item.claims, ids) for item in projections if item.claims is not None
    }


def no_event(settings: Settings, projections: Iterable[Projection]) -> str:
    """The warning of a run over everything that met no event: a mistyped name must never read as health."""
    stored_as = " or ".join(sorted({item.fold.stored_as[0] for item in projections}))
    return (
        f"{settings.database}.{settings.events_collection} holds no event of aggregate type {stored_as}; "
        "check READMODEL_DATABASE, READMODEL_EVENTS_COLLECTION and READMODEL_TASK_SOURCE."
    )


def noting(lane: Lane, summary: Summary, accept: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """What puts each verdict into the summary before a sink takes it."""

    def emit(verdict: Verdict) -> None:
        summary.note(lane.projection.read_model, verdict)
        accept(verdict)

    return emit
