"""Read models opened for a pass: a lane for each read model of one fold, and the sinks of the verbs.

They connect the engine, which knows no database, with the verbs, which choose the aggregates. Each lane has its
collection, the contested claims, and a way to compare aggregates again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.no_events import missing_events
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.spooling import NO_SPOOLS, Spools
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.causes import Budget, Causes, Explained
from readmodel_pipelines.reconcile.confirm import Confirm, FirstLook
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.kept_events import KeptEvents
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.run import Checkpoint, reconcile, reconcile_odd_ids
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.reconcile.telling import Telling

Contested = Mapping[str, Mapping[str, Malformed]]
"""By read model, the streams whose claim on a unique key is contested by another stream."""


class _Accepts(Protocol):
    def accept(self, verdict: Verdict) -> None: ...


_Sink = TypeVar("_Sink", bound=_Accepts)


class OpenedPass:
    """The read models of a store, all made from the same streams, opened for a pass.

    Outcomes are counted in `counts`, by read model; those in `shadows` are read from their shadow. With
    `claims_of_some`, `contested` covers only some aggregates.
    """

    def __init__(
        self,
        store: Store,
        counts: Mapping[str, Counts],
        contested: Contested | None = None,
        *,
        shadows: Shadows = NO_SHADOWS,
        events: EventStore | None = None,
        claims_of_some: bool = False,
        spools: Spools = NO_SPOOLS,
    ) -> None:
        self.store = store
        self._claims_of_some = claims_of_some
        self._allowed = store.settings.allow_malformed
        self.events = events or EventStore(store.events)
        self.tellings: dict[str, Telling] = {}
        self._models = [ReadModelCollection(store.place(item, shadows), item) for item in store.projections]
        self.lanes = [
            Lane(item, model, counts[item.read_model], contested=(contested or {}).get(item.read_model, {}))
            for item, model in zip(store.projections, self._models, strict=True)
        ]
        self.read_from(spools)

    def read_from(self, spools: Spools) -> None:
        """Read a range from spools; without spools, from the server."""
        self.events.spooled = spools.events
        for lane, model in zip(self.lanes, self._models, strict=True):
            model.spooled = spools.read_models.get(lane.projection.read_model)

    def into(self, sink_for: Callable[[Lane], _Sink], noted_in: Summary | None = None) -> list[_Sink]:
        """Give each lane a sink; each verdict is recorded in the summary before its sink gets it."""
        sinks = [sink_for(lane) for lane in self.lanes]
        for lane, sink in zip(self.lanes, sinks, strict=True):
            lane.emit = sink.accept if noted_in is None else _noting(self.again(lane), noted_in, sink)
        return sinks

    def reconcile(
        self,
        ids: Sequence[str] | None = None,
        *,
        within: IdRange = EVERYTHING,
        checkpoint: Checkpoint | None = None,
        held: bool = True,
    ) -> None:
        """Compare the aggregates `ids` (sorted), or all in a range; like `reconcile.run.reconcile`."""
        reconcile(
            self.events,
            self.lanes,
            self._allowed,
            ids,
            within=within,
            checkpoint=checkpoint,
            held=held,
            gaps_again=ids is None and self.events.spooled is not None,
        )

    def reconcile_odd_ids(self, *, symbols: bool = False, symbols_of_events: bool | None = None) -> None:
        """Report streams and documents that no range and no list of ids can contain; with symbols, also those."""
        reconcile_odd_ids(self.events, self.lanes, symbols=symbols, symbols_of_events=symbols_of_events)

    def again(self, lane: Lane) -> Recheck:
        """Compares aggregates of a lane again."""
        events = self.events.beside()
        ask = None
        if self._claims_of_some and lane.projection.claims is not None:
            ask = partial(events.contested, lane.projection.fold, lane.projection.claims)
        return Recheck(events, lane, self._allowed, ask)

    def made_with(self, projection: Projection) -> int | None:
        """The schema version of a read model's last rebuild, if recorded."""
        return Rebuilds(self.store.database).made_with(self.store.live(projection).name, projection.read_model)

    def confirm(
        self,
        lane: Lane,
        summary: Summary,
        on_findings: Callable[[Projection, Sequence[Finding]], None] | None = None,
        ignored: Callable[[Finding], bool] | None = None,
    ) -> Confirm:
        """The sink of a verification. `ignored` findings are counted apart and not reported."""
        projection, again = lane.projection, self.again(lane)
        budget = Budget.of(self.store.settings.causes_limit)
        kept = KeptEvents() if budget.findings else None
        again = replace(again, kept=kept)
        causes = Causes(again.store, projection, self._allowed, budget, kept)
        telling = self.tellings[projection.read_model] = Telling(projection, causes, summary, on_findings, ignored)
        return Confirm(
            lane.counts,
            again,
            telling.confirmed,
            grace_seconds=self.store.settings.grace_seconds,
            beforehand=self._beforehand(causes, projection),
        )

    def first_look(self, lane: Lane, budget: Budget, explained: Callable[[Explained], None]) -> FirstLook:
        """What a worker confirms of a verification itself, and passes on."""
        projection, again = lane.projection, self.again(lane)
        causes = Causes(again.store, projection, self._allowed, budget)

        def note(verdicts: Sequence[Verdict]) -> None:
            if verdicts:
                explained(causes.explain(verdicts))

        return FirstLook(
            lane.counts,
            again,
            note,
            grace_seconds=self.store.settings.grace_seconds,
            beforehand=self._beforehand(causes, projection),
        )

    def _beforehand(self, causes: Causes, projection: Projection) -> Callable[[Verdict], None]:
        return lambda verdict: causes.beforehand(verdict, self.events.just_read(projection.fold, verdict.aggregate_id))


def contested(
    events: EventStore, projections: Iterable[Projection], ids: Sequence[str] | None = None
) -> dict[str, Mapping[str, Malformed]]:
    """The contested claims of these read models; with `ids` only of these streams."""
    return {
        item.read_model: events.contested(item.fold, item.claims, ids)
        for item in projections
        if item.claims is not None
    }


def counts_of(projections: Iterable[Projection]) -> dict[str, Counts]:
    """New counts by read model."""
    return {item.read_model: Counts() for item in projections}


def no_event(store: Store) -> str:
    """The warning of a full run that found no event and was allowed to continue; usually the read model is new."""
    return (
        f"{store.events.full_name} holds {missing_events(store.projections)}; "
        "check READMODEL_DATABASE, READMODEL_EVENTS_COLLECTION and READMODEL_TASK_SOURCE."
    )


def _noting(again: Recheck, summary: Summary, sink: _Accepts) -> Callable[[Verdict], None]:
    read_model = again.lane.projection.read_model

    def emit(verdict: Verdict) -> None:
        if verdict.malformed is not None and summary.has_room(read_model, verdict.outcome):
            verdict.malformed = again.blame(verdict)
        summary.note(read_model, verdict)
        sink.accept(verdict)

    return emit
