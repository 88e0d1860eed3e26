"""A full rebuild: cut into ranges, resumed where it was, in place or in a shadow, right even while writers go on.

The steps: take the leases; find the unfinished rebuild or begin one; follow the events from before the first read; do
the ranges; then finish as the strategy has it. Progress is saved with every batch, so that any step may be killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord, counted
from readmodel_pipelines.errors import ReadModelBusy, ReadModelError
from readmodel_pipelines.lanes import Contested, contested, counts_of, no_event
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import by_fold, choose_projections
from readmodel_pipelines.rebuild.begin import Begin
from readmodel_pipelines.rebuild.finish import Finish, Refused, finish_in_place, finish_shadow
from readmodel_pipelines.rebuild.following import Following
from readmodel_pipelines.rebuild.pace import WindowClosed
from readmodel_pipelines.rebuild.request import RebuildRequest
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild.worker import Job, range_worker
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.workers.pool import work_off

_PASSES = 4
_SAY_SECONDS = 1.0


class RebuildInterrupted(KeyboardInterrupt):
    """Somebody ended a rebuild; `summary` has what is done of it, by earlier runs too."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary


def rebuild(
    database: Database,
    settings: Settings,
    read_models: Sequence[str],
    request: RebuildRequest,
    *,
    on_progress: Progress | None = None,
    on_phase: Callable[[str], object] = lambda _: None,
    holder: str = "",
    owner: str = "",
) -> Summary:
    """Rebuild the read models with these names in full, all when none is named; `on_phase` is told what begins.

    The summary's `rebuild` says which it is, and how far: done, paused at the end of the window, or building while
    other slices are.

    Raises:
        UsageError: there is no such read model.
        ReadModelBusy: somebody else rebuilds one of them.
        LeaseLost: this run was taken for dead and somebody else took over.
        WorkerDied: a worker process was killed; resume.
        RebuildInterrupted: somebody pressed Ctrl-C; resume.
    """
    projections = choose_projections(settings, read_models)
    name = read_models[0] if len(read_models) == 1 else "all"
    summary = Summary("rebuild", name, request.max_findings, read_models=counts_of(projections))
    started = time.perf_counter()
    try:
        for group in by_fold(projections):
            store = Store(database, settings, group)
            events = store.events.estimated_document_count()
            _Rebuild(Run(store, request, summary, events, on_progress, on_phase, holder, owner)).do()
    except KeyboardInterrupt:
        summary.rebuild.state = RebuildState.INTERRUPTED
        summary.seconds = time.perf_counter() - started
        raise RebuildInterrupted(summary) from None
    if not summary.events and request.slice is None:
        summary.warnings.append(no_event(Store(database, settings, projections)))
    summary.seconds = time.perf_counter() - started
    return summary


class _Rebuild:
    """The rebuild of read models that are made from the same streams."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store = run.store
        self.request = run.request
        self.summary = run.summary
        self.rebuilds = run.rebuilds
        self.nonces: Mapping[str, str] = {}
        self.events = 0
        self.said_at = 0.0

    def do(self) -> None:
        """All of it, or the part of it that is this run's."""
        part, run = self.request.slice, self.run
        with ExitStack() as leases:
            if part is None:
                held = leases.enter_context(run.hold(run.collections))
                self.nonces = held.nonces
                record = Begin(run).alone(resume=self.request.resume)
            else:
                found = Begin(run).with_others(part)
                if found is None:
                    self.summary.rebuild.reached(RebuildState.DONE)
                    self.summary.rebuild.already_done = True
                    return
                record = found
                held = leases.enter_context(run.hold(run.collections, shared=record.id))
                # The same slice is done by one run at a time.
                own = leases.enter_context(run.hold([f"{run.collections[0]}/slice {part.number}"]))
                self.nonces = held.nonces | own.nonces
            self.summary.rebuild.id, self.summary.rebuild.strategy = record.id, record.strategy
            reached(Moment.REBUILD_BEGUN)
            try:
                self._go(record, held)
            finally:
                self.summary.events += self.events

    # The work

    def _go(self, record: RebuildRecord, held: Leases) -> None:
        claims = contested(EventStore(self.store.events), self.store.projections)
        for _ in range(_PASSES):
            following = Following(self.store, record)
            try:
                if not self._do_ranges(record, claims, following):
                    return
                with ExitStack() as finishing:
                    now = self._finishing(record, finishing)
                    if now is None:
                        return
                    finish = Finish(self.run, now, held, claims, following)
                    try:
                        self._finish(finish)
                        return
                    except HistoryLost as error:
                        record = finish.again(error)
            finally:
                following.close()
        raise ReadModelError(
            f"The server's history of changes is too short to follow rebuild {record.id}, {_PASSES} times over.",
            hint="Give the replica set a larger oplog, or rebuild while less is written; then resume.",
        )

    def _do_ranges(self, record: RebuildRecord, claims: Contested, following: Following) -> bool:
        """Whether all ranges are done, of all slices."""
        if record.state is RebuildState.SWAPPING or not self.rebuilds.left(record):
            return True
        self.rebuilds.to(record, RebuildState.BUILDING)
        with following.in_background():
            return self._build(record, claims)

    def _finishing(self, record: RebuildRecord, leases: ExitStack) -> RebuildRecord | None:
        """The record, once it is this run that finishes; None when another slice did.

        Of slices that end together one finishes. The others wait for it, for it may be killed.
        """
        if self.request.slice is not None:
            lease = f"{self.run.collections[0]}/finish {record.id}"
            while True:
                try:
                    leases.enter_context(self.run.hold([lease]))
                    break
                except ReadModelBusy:
                    time.sleep(_SAY_SECONDS)
        record = self.rebuilds.get(record.id)
        if record.state in (RebuildState.DONE, RebuildState.ABORTED):
            self._count(record, None)
            self.summary.rebuild.reached(record.state)
            return None
        if record.state is RebuildState.SWAPPING:
            return record
        return self.rebuilds.to(record, RebuildState.FINISHING)

    def _build(self, record: RebuildRecord, claims: Contested) -> bool:
        """Do the ranges of this run; whether all of the rebuild's are done."""
        # What has to be done again is done by whoever finishes.
        part = self.request.slice.number if self.request.slice and record.first_pass else None
        todo = self.rebuilds.left(record, part)
        workers = max(1, min(self.run.workers, len(todo)))
        read_models = " and ".join(item.read_model for item in self.store.projections)
        by = "this process" if workers == 1 else f"{workers} worker processes"
        self.run.on_phase(
            f"Rebuild {record.id} of {read_models}, {record.strategy}: {len(todo):,} of {record.ranges:,} ranges "
            f"to do{'' if record.first_pass else ' once more'}, by {by}."
        )
        job = Job(self.store.settings, record, self.request, self.nonces, claims, 1 / workers)
        reached(Moment.RANGES)
        stopped = False
        try:
            for _, done in work_off(range_worker, job, todo, workers, partial(self._say, record), self.store.database):
                self.summary.take_over(done.summary.findings)
                self.summary.warnings += [item for item in done.summary.warnings if item not in self.summary.warnings]
                stopped |= done.stopped
            self._count(record, part)
            self._tell(self.events, {})
        except KeyboardInterrupt:
            self._count(record, part)
            raise
        if stopped:
            self._pause(record)
        elif self.rebuilds.left(record):
            self.summary.rebuild.reached(RebuildState.BUILDING)
        else:
            return True
        return False

    def _pause(self, record: RebuildRecord) -> None:
        self.summary.rebuild.reached(RebuildState.PAUSED)
        self.run.warn(
            f"The off-peak window {self.store.settings.off_peak_window} is over. Rebuild {record.id} goes on where "
            "it is when it is launched again, or resumed."
        )

    def _count(self, record: RebuildRecord, part: int | None) -> None:
        """What is known of the ranges: of this slice's, or of all, those done by earlier runs included."""
        self.events, counts = self._counted(record, part)
        self.summary.read_models |= counts

    def _counted(self, record: RebuildRecord, part: int | None = None) -> tuple[int, dict[str, Counts]]:
        ranges = self.rebuilds.ranges(record, part)
        events = sum(item.events for item in ranges)
        return events, {item.read_model: counted(ranges, item.read_model) for item in self.store.projections}

    def _say(self, record: RebuildRecord, _: Any) -> None:
        if self.run.on_progress is not None and time.monotonic() - self.said_at >= _SAY_SECONDS:
            self.said_at = time.monotonic()
            self._tell(*self._counted(record))

    def _tell(self, events: int, counts: Mapping[str, Counts]) -> None:
        if self.run.on_progress is not None:
            self.run.on_progress(self.summary.events + events, self.run.events, {**self.summary.read_models, **counts})

    def _finish(self, finish: Finish) -> None:
        self._count(finish.record, None)
        for name, so_far in finish.record.finished.items():
            self.summary.read_models[name].add(Counts(**so_far))
        reached(Moment.FINISH)
        try:
            (finish_shadow if finish.shadows else finish_in_place)(finish)
        except Refused as refusal:
            self.run.warn(str(refusal))
            self.rebuilds.to(finish.record, RebuildState.REFUSED, why=str(refusal))
            self.summary.rebuild.reached(RebuildState.REFUSED)
        except WindowClosed:
            self._pause(finish.record)
            return
        else:
            forget(self.store.database, finish.record.read_models, finish.record.id)
            self.rebuilds.to(finish.record, RebuildState.DONE)
            self.summary.rebuild.reached(RebuildState.DONE)
        read_models = [item.read_model for item in self.store.projections]
        counts = {name: self.summary.read_models[name].as_dict() for name in read_models}
        self.rebuilds.note(finish.record, counts=counts, events=self.events)
        if self.request.slice is not None:
            finish.held.give_back()
