"""A full rebuild: split into ranges, resumable, in place or in a shadow, correct while writers continue.

The steps: take the leases; find the unfinished rebuild or begin one; follow the events from before the first read; do
the ranges; then finish as the strategy demands. Progress is saved with every batch, so any step may be killed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange, RebuildRecord, counted
from readmodel_pipelines.cutover.shadow import drop_unsaved
from readmodel_pipelines.errors import LeaseLost, ReadModelBusy, ReadModelError, UsageError
from readmodel_pipelines.lanes import contested, counts_of, no_event
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import Database, PyMongoError
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.kinds import kinds_remembered
from readmodel_pipelines.mongo.no_events import refuse_without_events
from readmodel_pipelines.mongo.patience import tell
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.mongo.verb import verb
from readmodel_pipelines.projections.registry import by_fold, choose_projections
from readmodel_pipelines.rebuild.begin import begin_alone, begin_with_others
from readmodel_pipelines.rebuild.finish import Refused, again, finish_in_place
from readmodel_pipelines.rebuild.request import RebuildRequest
from readmodel_pipelines.rebuild.this_run import Held, Run
from readmodel_pipelines.rebuild.verbs import drop_left, forget_if_ended
from readmodel_pipelines.rebuild.worker import Job, range_worker
from readmodel_pipelines.rebuild_state import UNFINISHED, RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.speed_limits import WindowClosed
from readmodel_pipelines.workers.pool import work_off

_PASSES = 4
_SAY_SECONDS = 1.0


class RebuildInterrupted(KeyboardInterrupt):
    """A rebuild was interrupted; `summary` has the work done so far, also by earlier runs."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary


@verb
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
    """Rebuild the read models with these names in full; without names, all. `on_phase` gets a line for each phase.

    The summary's `rebuilds` has one entry for all read models made from the same streams, with its state: done, paused
    at the end of the window, or building while other slices are.

    Raises:
        UsageError: there is no such read model, or its collection is of a kind that cannot be rebuilt.
        NoEvents: the store has no event for them; nothing was done.
        ReadModelBusy: another process rebuilds one of them.
        LeaseLost: the lease of this run expired and another process took over.
        WorkerDied: a worker process was killed; resume.
        RebuildInterrupted: by Ctrl-C; resume.
    """
    projections = choose_projections(settings, read_models)
    name = read_models[0] if len(read_models) == 1 else "all"
    summary = Summary("rebuild", name, request.max_findings, read_models=counts_of(projections))
    started = time.perf_counter()
    # All are checked first, so that nothing begins that cannot finish.
    store = Store(database, settings, projections)
    # A shadow has its own indexes.
    remembering = kinds_remembered if request.strategy == "in_place" else nullcontext
    try:
        with remembering():
            summary.warnings += store.check(writes=True)
            refuse_without_events(store, allowed=request.allow_no_events)
            for group in by_fold(projections):
                store = Store(database, settings, group)
                events = store.events.estimated_document_count()
                _Rebuild(Run(store, request, summary, events, on_progress, on_phase, holder, owner)).do()
    except KeyboardInterrupt:
        if not summary.rebuilds or summary.rebuilds[-1].state is not None:
            # The next rebuild has not begun.
            summary.rebuilds.append(RebuildOutcome())
        summary.rebuilds[-1].state = RebuildState.INTERRUPTED
        summary.seconds = time.perf_counter() - started
        raise RebuildInterrupted(summary) from None
    if not summary.events and request.slice is None:
        summary.warnings.append(no_event(Store(database, settings, projections)))
    summary.seconds = time.perf_counter() - started
    return summary


class _Rebuild:
    """The rebuild of read models made from the same streams."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.slice = run.request.slice
        self.events = 0
        self.said_at = 0.0
        self.finishes = False

    def do(self) -> None:
        """Do all of it, or this run's slice."""
        run, outcome = self.run, self.run.outcome
        with ExitStack() as leases:
            if self.slice is None:
                run.held = Held([leases.enter_context(run.hold(run.collections))])
                begin_alone(run, resume=run.request.resume)
            else:
                found = begin_with_others(run, self.slice)
                if found is None:
                    outcome.state, outcome.already_done = RebuildState.DONE, True
                    run.summary.rebuilds.append(outcome)
                    return
                shared = leases.enter_context(run.hold(run.collections, shared=found.id))
                leases.callback(self._end_shared, shared, found)
                # Only one run at a time does a slice.
                own = leases.enter_context(run.hold([f"{run.collections[0]}/slice {self.slice.number}"]))
                run.held = Held([shared, own])
                run.join(found)
            outcome.id, outcome.strategy = run.record.id, run.record.strategy
            run.summary.rebuilds.append(outcome)
            reached(Moment.REBUILD_BEGUN)
            try:
                self._go(run)
            except ReadModelError:
                forget_if_ended(run.store.database, run.record)
                raise
            finally:
                run.summary.events += self.events

    def _go(self, run: Run) -> None:
        run.claims = contested(EventStore(run.store.events), run.store.projections)
        with ExitStack() as finishing:
            for _ in range(_PASSES):
                with ExitStack() as followed:
                    run.follow(followed)
                    try:
                        if self._is_to_finish(run, finishing, followed):
                            self._finish(run)
                        return
                    except HistoryLost as error:
                        again(run, error)
        raise ReadModelError(
            f"The oplog of the server is too short to follow rebuild {run.record.id}: it was lost {_PASSES} times.",
            hint="Enlarge the oplog of the replica set, or rebuild at a time with fewer writes. Then resume.",
        )

    def _is_to_finish(self, run: Run, finishing: ExitStack, followed: ExitStack) -> bool:
        """Do this run's ranges; returns whether this run finishes the rebuild, because all ranges are done.

        The run that finishes also repeats ranges.
        """
        if self.slice is not None and not self.finishes:
            if run.record.first_pass and not self._do_ranges(run, self.slice.number):
                return False
            if not self._is_finisher(run, finishing):
                return False
            self.finishes = True
            run.follow(followed)
        if run.record.state is RebuildState.SWAPPING:
            run.ranges = run.rebuilds.ranges(run.record)
            return True
        if not self._do_ranges(run):
            return False
        run.to(RebuildState.FINISHING)
        return True

    def _do_ranges(self, run: Run, part: int | None = None) -> bool:
        """Do the ranges of a slice, or all; returns whether all ranges of all slices are done."""
        first = run.record.first_pass
        mine = run.rebuilds.claim(run.record, run.held.mark, run.held.confirm, part)
        todo = [item for item in mine if not item.done]
        run.ranges = run.rebuilds.ranges(run.record)
        if any(item.passes > run.record.passes for item in run.ranges):
            raise HistoryLost("a run ended just before it would have compared everything again")
        if all(item.done for item in run.ranges):
            return True
        if run.record.state is not RebuildState.BUILDING:
            run.to(RebuildState.BUILDING)
        if not_there := {name for name, built in run.record.shadows.items() if built} - run.built.keys():
            raise LeaseLost(
                f"The shadow of {' and '.join(sorted(not_there))} of rebuild {run.record.id} is gone: the rebuild was "
                "aborted.",
                hint=f"`readmodel rebuilds show {run.record.id}` has the details.",
            )
        workers = max(1, min(run.workers, len(todo)))
        read_models = " and ".join(item.read_model for item in run.store.projections)
        by = "this process" if workers == 1 else f"{workers} worker processes"
        run.on_phase(
            f"Rebuild {run.record.id} of {read_models}, {run.record.strategy}: {len(todo):,} of {run.record.ranges:,} "
            f"ranges to do{'' if first else ' again'}, by {by}."
        )
        if run.record.in_shadow and first:
            for item in run.store.projections:
                drop_unsaved(run.shadow(item), item.key, [each.rest for each in todo if each.begun])
        reached(Moment.RANGES)
        window_closed = False
        try:
            with run.following.in_background(), run.spooled(todo) as spools:
                about = run.record, run.request, run.held.nonces, run.shadows, run.claims
                job = Job(run.store.settings, *about, 1 / workers, spools)
                for _, (found, stopped) in work_off(range_worker, job, todo, workers, self._say, run.store.database):
                    run.summary.take_over(found.findings)
                    run.summary.warnings += [item for item in found.warnings if item not in run.summary.warnings]
                    window_closed |= stopped
        except WindowClosed:
            window_closed = True
        except KeyboardInterrupt:
            self._count(run.rebuilds.ranges(run.record, part))
            raise
        run.ranges = run.rebuilds.ranges(run.record)
        self._count(run.ranges if part is None else run.rebuilds.ranges(run.record, part))
        self._tell(self.events, {})
        if window_closed:
            self._pause()
            return False
        all_done = all(item.done for item in run.ranges)
        if not all_done:
            run.outcome.state = RebuildState.BUILDING
        return all_done

    def _is_finisher(self, run: Run, leases: ExitStack) -> bool:
        """Whether this run finishes the rebuild, and not another slice.

        If slices end together, one finishes. The others wait, because it may be killed.
        """
        while True:
            try:
                finishing = leases.enter_context(run.hold([f"{run.collections[0]}/finish {run.record.id}"]))
                break
            except ReadModelBusy:
                time.sleep(_SAY_SECONDS)
        run.held = Held([*run.held.leases, finishing])
        # Another slice may have finished or died meanwhile.
        found = run.rebuilds.get(run.record.id)
        if found.state is RebuildState.DONE:
            forget_if_ended(run.store.database, run.record)
            self._count(run.rebuilds.ranges(found))
            run.outcome.state = found.state
            return False
        if found.state not in UNFINISHED:
            raise LeaseLost(
                f"Rebuild {found.id} is {found.state}: the work of this slice is void.",
                hint=f"`readmodel rebuilds show {found.id}` has the details. Launch the slices again if needed.",
            )
        # From now on, late commands of the other slices are refused.
        run.take_over(found)
        return True

    def _finish(self, run: Run) -> None:
        self._count(run.ranges)
        for name, so_far in run.record.finished.items():
            run.summary.read_models[name].add(Counts(**so_far))
        reached(Moment.FINISH)
        projections = run.store.projections
        state, why, left = RebuildState.DONE, {}, False
        try:
            if run.record.in_shadow:
                # Only a shadow needs this import.
                from readmodel_pipelines.rebuild.finish_shadow import finish_shadow

                finish_shadow(run)
                left = True
            else:
                left = finish_in_place(run)
        except Refused as refusal:
            run.warn(str(refusal))
            state, why = RebuildState.REFUSED, {"why": str(refusal)}
        except WindowClosed:
            self._pause()
            return
        counts = {item.read_model: run.summary.read_models[item.read_model].as_dict() for item in projections}
        run.to(state, counts=counts, events=self.events, **why)
        run.outcome.state = state
        if left and state is RebuildState.DONE:
            # Deleted last, because a run that takes over an unfinished rebuild needs these keys.
            forget(run.store.database, run.record.read_models, run.record.id, run.record.runs)
        with suppress(LeaseLost):
            # A `$merge` that was running when its holder lost the lease recreates its collection, under its old name
            # if that was renamed.
            drop_left(run.store.database, run.rebuilds, run.collections, run.held.confirm)

    def _end_shared(self, shared: Leases, rebuild: RebuildRecord) -> None:
        """Release the lease that slices share, whichever run took it last."""
        with suppress(PyMongoError, UsageError):
            if self.run.rebuilds.get(rebuild.id).state not in UNFINISHED:
                shared.give_back()

    def _pause(self) -> None:
        self.run.outcome.state = RebuildState.PAUSED
        self.run.warn(
            f"The off-peak window {self.run.store.settings.off_peak_window} is over. Launch or resume rebuild "
            f"{self.run.record.id} again to continue it."
        )

    def _count(self, ranges: Sequence[RebuildRange]) -> None:
        """Count these ranges, including those done by earlier runs."""
        self.events, counts = self._counted(ranges)
        self.run.summary.read_models |= counts

    def _counted(self, ranges: Sequence[RebuildRange]) -> tuple[int, dict[str, Counts]]:
        counts = {item.read_model: counted(ranges, item.read_model) for item in self.run.store.projections}
        return sum(item.events for item in ranges), counts

    def _say(self, told: Any) -> None:
        if isinstance(told, str):
            tell(told)
        if self.run.on_progress is not None and time.monotonic() - self.said_at >= _SAY_SECONDS:
            self.said_at = time.monotonic()
            self._tell(*self._counted(self.run.rebuilds.ranges(self.run.record)))

    def _tell(self, events: int, counts: Mapping[str, Counts]) -> None:
        run = self.run
        if run.on_progress is not None:
            run.on_progress(run.summary.events + events, run.events, {**run.summary.read_models, **counts})
