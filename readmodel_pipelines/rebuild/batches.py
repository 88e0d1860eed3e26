"""Batches of a range: what is written and saved together, and how fast: between them alone a run waits, or stops."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.pacing import BATCH_SECONDS, BatchSize, RateLimit, Window
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import WRITES
from readmodel_pipelines.reconcile.ports import BATCH, EventStore
from readmodel_pipelines.settings import Settings

_LOOK_AGAIN = timedelta(seconds=1)
_NEVER = datetime.fromtimestamp(0, UTC)

Save = Callable[[str | None, Mapping[str, Mapping[str, int]], int, float], None]
"""Told the cursor (None: the range is done), and the counts by read model, events and seconds of a batch."""


class WindowClosed(Exception):
    """The off-peak window is over: the run stops here, cleanly."""


@dataclass(slots=True)
class Pace:
    """How fast a run may go: limits for events and documents, the server's load, and the hours of the day."""

    events: RateLimit = field(default_factory=lambda: RateLimit(None))
    documents: RateLimit = field(default_factory=lambda: RateLimit(None))
    load: Pressure | None = None
    window: Window | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], object] = time.sleep
    _asked_at: datetime = _NEVER

    @property
    def first_batch(self) -> int:
        """How many streams may be done at once before it is known how long they take: what half a second pays for."""
        limits = [limit.per_second for limit in (self.events, self.documents) if limit.per_second is not None]
        return int(min([BATCH, *(limit * BATCH_SECONDS for limit in limits)]))

    def wait(self, events: int, documents: int) -> None:
        """Wait after a batch as long as limits and load ask for.

        Raises:
            WindowClosed: the hours are over, also while it waits.
        """
        self.check_window()
        self.events.spend(events)
        self.documents.spend(documents)
        # A load that was low a moment ago is not asked for again: batches may be short. A clock may be set back.
        if self.load is not None and abs(self.now() - self._asked_at) >= _LOOK_AGAIN:
            while self.load.reason_to_wait():
                self.check_window()
                self.sleep(_LOOK_AGAIN.total_seconds())
            self._asked_at = self.now()
        self.check_window()

    def check_window(self) -> None:
        """Raises `WindowClosed` outside of it."""
        if self.window is not None and not self.window.is_open(self.now()):
            raise WindowClosed


def window_of(settings: Settings, off_peak: bool) -> Window | None:
    """The hours to which a run is kept, if it is."""
    return Window.parse(settings.off_peak_window, settings.timezone) if off_peak else None


def pace_of(settings: Settings, database: Database, share: float, off_peak: bool) -> Pace:
    """The pace that the settings ask for, as a worker's share of it."""

    def limit(per_second: float | None) -> RateLimit:
        return RateLimit(None if per_second is None else per_second * share)

    load = Pressure(
        database, max_queued=settings.max_queued_operations, max_lag_seconds=settings.max_replication_lag_seconds
    )
    limits = limit(settings.max_events_per_second), limit(settings.max_documents_per_second)
    return Pace(*limits, load, window_of(settings, off_peak))


class Flushed(Protocol):
    """A sink that can be made to write what it holds."""

    def flush(self) -> None:
        """Write it."""


@dataclass
class Batches:
    """Implements `readmodel_pipelines.reconcile.run.Checkpoint` for a range of a rebuild.

    `written` names the counts that stand for documents written.
    """

    store: EventStore
    lanes: Sequence[Lane]
    sinks: Sequence[Flushed]
    save: Save
    pace: Pace
    size: BatchSize
    clock: Callable[[], float] = time.monotonic
    written: Sequence[str] = WRITES
    _streams: int = 0

    def __post_init__(self) -> None:
        self._events = self.store.events_read
        self._counts: dict[str, dict[str, int]] = {lane.projection.read_model: {} for lane in self.lanes}
        self._began = self.clock()

    def due(self) -> bool:
        """Whether the batch is full; counts the stream."""
        self._streams += 1
        return self._streams > self.size.size

    def reached(self, aggregate_id: str) -> None:
        """Write and save the batch, then wait as the pace has it.

        Raises:
            WindowClosed: the run is to stop; everything before the id is done and saved.
        """
        events, documents = self._end(aggregate_id)
        self.pace.wait(events, documents)
        reached(Moment.BATCH_SAVED)
        # The waiting included: a batch and its pause together are what the window's end has to wait for.
        self.size.took(self._streams, self.clock() - self._began)
        # The stream that brought us here belongs to the next one.
        self._streams = 1
        self._began = self.clock()

    def finish(self) -> None:
        """The range is done; its last batch is paid for, too."""
        events, documents = self._end(None)
        with suppress(WindowClosed):
            self.pace.wait(events, documents)
        reached(Moment.RANGE_DONE)

    def _end(self, cursor: str | None) -> tuple[int, int]:
        for sink in self.sinks:
            sink.flush()
        reached(Moment.BATCH_WRITTEN)
        events, self._events = self.store.events_read - self._events, self.store.events_read
        more: dict[str, dict[str, int]] = {}
        for lane in self.lanes:
            name, now = lane.projection.read_model, lane.counts.as_dict()
            more[name] = {kind: number - self._counts[name].get(kind, 0) for kind, number in now.items()}
            self._counts[name] = now
        self.save(cursor, more, events, self.clock() - self._began)
        return events, sum(numbers[kind] for numbers in more.values() for kind in self.written)
