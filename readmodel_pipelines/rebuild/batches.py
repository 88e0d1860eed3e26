"""Batches of a range: the documents that are written and saved together. A run waits or stops only between batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.pacing import BatchSize
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import WRITES
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.speed_limits import Pace, WindowClosed

Save = Callable[[str | None, Mapping[str, Mapping[str, int]], int, float], None]
"""Called with a batch's cursor (None: the range is done), its counts by read model, its events and its seconds."""


class Flushed(Protocol):
    """A sink that can be told to write its pending documents."""

    def flush(self) -> None:
        """Write the pending documents."""


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
        """Count the stream; returns whether the batch is full."""
        self._streams += 1
        return self._streams > self.size.size

    def reached(self, aggregate_id: str) -> None:
        """Write and save the batch, then wait as the pace demands.

        Raises:
            WindowClosed: the window is over; everything before the id is finished and saved.
        """
        events, documents = self._end(aggregate_id)
        self.pace.wait(events, documents)
        reached(Moment.BATCH_SAVED)
        # The wait is included, because the window's end waits for a batch and its pause.
        self.size.took(self._streams, self.clock() - self._began)
        # The stream at which the batch ended belongs to the next batch.
        self._streams = 1
        self._began = self.clock()

    def finish(self) -> None:
        """Finish the range, and wait for its last batch too."""
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
