"""Batches of a range: the documents that are written and saved together. A run waits or stops only between batches.

A batch is written and then saved while the next one is read, of which nothing is written before that. So a killed run
repeats the writes of at most one batch, and reads at most two again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from readmodel_pipelines.in_turn import InTurn
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.pacing import BatchSize
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import OF_WRITING, WRITES
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.speed_limits import Pace, WindowClosed

Save = Callable[[str | None, Mapping[str, Mapping[str, int]], int, float], None]
"""Called with a batch's cursor (None: the range is done), its counts by read model, its events and its seconds."""


class Taken(Protocol):
    """A sink whose pending documents can be taken."""

    def take(self) -> Callable[[], object]:
        """What writes the pending documents; later ones are another batch."""


@dataclass
class Batches:
    """Implements `readmodel_pipelines.reconcile.run.Checkpoint` for a range of a rebuild.

    A batch is done `behind`: what its sinks give goes to `write`, then it is saved. `told` is called for each one.
    `written` names the counts that stand for documents written.
    """

    store: EventStore
    lanes: Sequence[Lane]
    sinks: Sequence[Taken]
    save: Save
    pace: Pace
    size: BatchSize
    behind: InTurn
    told: Callable[[None], object]
    write: Callable[..., Any]
    clock: Callable[[], float] = time.monotonic
    written: Sequence[str] = WRITES
    _streams: int = 0

    def __post_init__(self) -> None:
        self._events = self.store.events_read
        self._counts: dict[str, dict[str, int]] = {lane.projection.read_model: {} for lane in self.lanes}
        self._began = self.clock()
        self._documents: SimpleQueue[int] = SimpleQueue()
        self._wait_for_last: Callable[[], None] = self.behind.wait

    def due(self) -> bool:
        """Count the stream; returns whether the batch is full."""
        self._streams += 1
        return self._streams > self.size.size

    def reached(self, aggregate_id: str) -> None:
        """Have the batch written and saved, then wait as the pace demands.

        Raises:
            WindowClosed: the window is over; everything before the id is finished and saved.
        """
        events = self._end(aggregate_id)
        try:
            self._wait(events)
        except WindowClosed:
            self.behind.wait()
            raise
        # The wait is included, because the window's end waits for a batch and its pause.
        self.size.took(self._streams, self.clock() - self._began)
        # The stream at which the batch ended belongs to the next batch.
        self._streams = 1
        self._began = self.clock()

    def finish(self) -> None:
        """Finish the range, and wait for its last batch too."""
        events = self._end(None)
        self.behind.wait()
        with suppress(WindowClosed):
            self._wait(events)
        reached(Moment.RANGE_DONE)

    def _wait(self, events: int) -> None:
        self.told(None)
        if self.pace.documents.per_second is not None:
            # Or two batches were written before the first is paid for.
            self.behind.wait()
        documents = 0
        while not self._documents.empty():
            documents += self._documents.get()
        self.pace.wait(events, documents)

    def _end(self, cursor: str | None) -> int:
        """Hand the batch over; returns the number of its events."""
        events, self._events = self.store.events_read - self._events, self.store.events_read
        now = {lane.projection.read_model: lane.counts.as_dict() for lane in self.lanes}
        writes = [sink.take() for sink in self.sinks]
        self._wait_for_last()
        self._wait_for_last = self.behind(partial(self._done, writes, cursor, now, events, self.clock() - self._began))
        return events

    def _done(
        self,
        writes: Sequence[Callable[[], object]],
        cursor: str | None,
        now: Mapping[str, dict[str, int]],
        events: int,
        seconds: float,
    ) -> None:
        """Write and save a batch, perhaps while the next one is read: `now` has what was counted up to its end."""
        self.write(*writes)
        reached(Moment.BATCH_WRITTEN)
        more: dict[str, dict[str, int]] = {}
        for lane in self.lanes:
            name, counts = lane.projection.read_model, lane.counts.as_dict()
            now[name].update({kind: counts[kind] for kind in OF_WRITING})
            more[name] = {kind: number - self._counts[name].get(kind, 0) for kind, number in now[name].items()}
            self._counts[name] = now[name]
        self.save(cursor, more, events, seconds)
        self._documents.put(sum(numbers[kind] for numbers in more.values() for kind in self.written))
        reached(Moment.BATCH_SAVED)
