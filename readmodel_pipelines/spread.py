"""Spreads work on a large store over processes of this machine: ranges of aggregates, and their comparison.

A worker returns only suspicious aggregates; the caller compares them again before it reports any. Those of a
verification that it can confirm by itself come as findings with their causes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.lanes import Contested, OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.patience import report_waits_to_parent, tell
from readmodel_pipelines.mongo.read_order import Reading
from readmodel_pipelines.mongo.spooling import NO_SPOOLS, Spools
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import choose_projections, names
from readmodel_pipelines.reading import spooled
from readmodel_pipelines.reconcile.causes import Budget, Explained
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.confirm import SEEN_BYTES, FirstLook
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange, split
from readmodel_pipelines.reconcile.telling import Telling
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.speed_limits import waiting
from readmodel_pipelines.workers.pool import Send, work_off

EVENTS_WORTH_A_PROCESS = 200_000
"""Number of events that are read in the time that a process needs to start."""

_RANGES_FOR_EACH_WORKER = 4
_SAMPLES_FOR_EACH_RANGE = 200
_AT_ONCE = 1_000
_SAY_SECONDS = 1.0
_NO_TELLINGS: Mapping[str, Telling] = {}


def workers_for(settings: Settings, events: int) -> int:
    """The number of processes for so many events on this machine."""
    return max(1, min(settings.workers, events // EVENTS_WORTH_A_PROCESS))


def plan_ranges(
    events: EventStore, projections: Sequence[Projection], workers: int, slices: int = 1
) -> list[tuple[int, IdRange]]:
    """(slice, range), in order, with about the same number of events each; for a small store one range per slice."""
    parts = slices * (_RANGES_FOR_EACH_WORKER * workers if workers > 1 and slices == 1 else 1)
    if parts == 1:
        return [(1, EVERYTHING)]
    ranges = split(events.sample(projections[0].fold, parts * _SAMPLES_FOR_EACH_RANGE), parts)
    return [(1 + number * slices // len(ranges), within) for number, within in enumerate(ranges)]


@dataclass(frozen=True, slots=True)
class PassSetup:
    """The input of a comparison by workers: names of the registry, and the read models compared in their shadows.

    `share` is each worker's part of the rate limits.
    """

    settings: Settings
    read_models: tuple[str, ...]
    shadows: Shadows
    contested: Contested
    spools: Spools = NO_SPOOLS
    share: float = 1.0
    off_peak: bool = False


@dataclass(frozen=True, slots=True)
class _Suspects:
    """Verdicts on aggregates of a read model; those that can be read again by id have only the id."""

    read_model: str
    verdicts: Sequence[Verdict]


@dataclass(frozen=True, slots=True)
class _Found:
    """Confirmed findings of a read model with their causes."""

    read_model: str
    explained: Explained


@dataclass(frozen=True, slots=True)
class _Task:
    """A range, and for each read model whose findings a worker explains, what is left of the budget for that."""

    within: IdRange
    budgets: Mapping[str, Budget]


@dataclass(frozen=True, slots=True)
class Compared:
    """The counts of a range by read model, and the events read, both since the last message."""

    counts: Mapping[str, Counts]
    events: int


def compare_ranges(
    setup: PassSetup,
    ranges: Sequence[IdRange],
    workers: int,
    suspect: Callable[[str, Verdict], None],
    on_compared: Callable[[Compared], None] = lambda _: None,
    here: Database | None = None,
    tellings: Mapping[str, Telling] = _NO_TELLINGS,
) -> None:
    """Compare ranges in several processes, or `here`; calls back with the suspicious aggregates of each read model.

    Those with `tellings` get the findings that workers confirm by themselves.
    """

    def told(message: object) -> None:
        if isinstance(message, _Suspects):
            for verdict in message.verdicts:
                suspect(message.read_model, verdict)
        elif isinstance(message, _Found):
            tellings[message.read_model].explained(message.explained)
        elif isinstance(message, Compared):
            on_compared(message)
        elif isinstance(message, str):
            tell(message)

    setup = replace(setup, share=1 / max(1, min(workers, len(ranges))))
    opened = [here] if here is not None else []

    def given(within: IdRange) -> _Task:
        return _Task(within, {name: replace(each.causes.budget) for name, each in tellings.items()})

    for _, rest in work_off(_open_worker, setup, ranges, workers, told, *opened, only_reads=True, given=given):
        on_compared(rest)


def compare_all(
    opened: OpenedPass,
    settings: Settings,
    number: int | None,
    progress: Callable[[int], None] | None = None,
    said: Callable[[Reading], object] = lambda _: None,
    *,
    off_peak: bool = False,
) -> None:
    """A pass whose verdicts are compared again anyway; with many events, worker processes find the candidates.

    `number` is the approximate number of events; None for a pass in this process alone. `said` is called with a
    sentence on how it reads.
    """
    workers = workers_for(settings, number or 0)
    read = waiting(settings, opened.store.database, off_peak=off_peak)
    with spooled(opened.store, events=number, read=read, said=said) as spools:
        if workers > 1:
            _compare_in_parallel(opened, settings, workers, progress, spools, off_peak)
            return
        opened.read_from(spools)
        try:
            opened.reconcile()
        finally:
            opened.read_from(NO_SPOOLS)


def _compare_in_parallel(
    opened: OpenedPass,
    settings: Settings,
    workers: int,
    progress: Callable[[int], None] | None,
    spools: Spools,
    off_peak: bool,
) -> None:
    lanes = {lane.projection.read_model: lane for lane in opened.lanes}
    claims = {name: lane.contested for name, lane in lanes.items()}
    projections = [lane.projection for lane in opened.lanes]
    events = opened.events

    def on_compared(part: Compared) -> None:
        events.events_read += part.events
        for name, counts in part.counts.items():
            lanes[name].counts.add(counts)
        if progress:
            progress(events.events_read)

    setup = PassSetup(settings, names(projections), NO_SHADOWS, claims, spools, off_peak=off_peak)
    ranges = [within for _, within in plan_ranges(events, projections, workers)]
    compare_ranges(
        setup,
        ranges,
        workers,
        lambda read_model, verdict: lanes[read_model].emit(verdict),
        on_compared,
        opened.store.database,
        opened.tellings,
    )


@contextmanager
def _open_worker(setup: PassSetup, here: Database | None = None) -> Iterator[Callable[[_Task, Send], Compared]]:
    role = "shadow" if setup.shadows else "verify"
    opened = open_database(setup.settings, role, met=True) if here is None else nullcontext(here)
    with opened as database, calm_collector():
        do = partial(_compare_range, database, setup)
        yield do if here is not None else report_waits_to_parent(do)


def _compare_range(database: Database, setup: PassSetup, task: _Task, send: Send) -> Compared:
    store = Store(database, setup.settings, choose_projections(setup.settings, setup.read_models))
    counting = _Counting(counts_of(store.projections), send)
    pay = waiting(setup.settings, database, setup.share, off_peak=setup.off_peak)
    events = EventStore(store.events, counting, pay=pay)
    opened = OpenedPass(
        store, counting.counts, setup.contested, shadows=setup.shadows, events=events, spools=setup.spools
    )

    def sink_for(lane: Lane) -> _Sending:
        name = lane.projection.read_model
        budget = task.budgets.get(name)
        if budget is None:
            return _Sending(name, send)
        look = opened.first_look(lane, budget, lambda explained: send(_Found(name, explained)))
        return _Sending(name, send, look)

    sinks = opened.into(sink_for)
    reached(Moment.LOOK)
    opened.reconcile(within=task.within)
    for sink in sinks:
        sink.send()
    return counting.since_last(events.events_read)


class _Counting:
    """Sends counts and events once per second; only the difference since the last message."""

    def __init__(self, counts: Mapping[str, Counts], send: Send) -> None:
        self.counts = counts
        self._send = send
        self._sent_at = time.monotonic()
        self._events_sent = 0

    def __call__(self, events: int) -> None:
        if time.monotonic() - self._sent_at >= _SAY_SECONDS:
            self._send(self.since_last(events))
            self._sent_at = time.monotonic()

    def since_last(self, events: int) -> Compared:
        """The events read since the last message, and the counts, which start again."""
        compared = Compared({name: each.reset() for name, each in self.counts.items()}, events - self._events_sent)
        self._events_sent = events
        return compared


class _Sending:
    """Sends verdicts in batches, those on one aggregate together; without those that the first look confirms."""

    def __init__(self, read_model: str, send: Send, look: FirstLook | None = None) -> None:
        self._read_model = read_model
        self._send = send
        self._look = look
        self._verdicts: list[Verdict] = []
        self._bytes = 0

    def accept(self, verdict: Verdict) -> None:
        full = len(self._verdicts) >= _AT_ONCE or self._bytes >= SEEN_BYTES
        if full and self._verdicts[-1].aggregate_id != verdict.aggregate_id:
            self.send()
        weight = verdict.weight
        if is_plain(verdict.aggregate_id):
            if self._look is not None and verdict.expected is not None:
                self._look.see(verdict)
                self._bytes += weight
            verdict = Verdict(verdict.aggregate_id, verdict.outcome, size=weight)
        else:
            self._bytes += weight
        self._verdicts.append(verdict)

    def send(self) -> None:
        rest = self._verdicts if self._look is None else self._look.rest_of(self._verdicts)
        if rest:
            self._send(_Suspects(self._read_model, rest))
        self._verdicts, self._bytes = [], 0
