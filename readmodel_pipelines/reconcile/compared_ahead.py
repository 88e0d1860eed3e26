"""A pass in two threads: one reads, folds and compares; the caller's thread acts on the results.

The server executes a write while the next documents are compared. Results are handed over in order, in parts. At most
two parts are ahead of the caller, so memory stays constant. Only the caller's thread uses sinks, counts and checkpoint.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, Queue
from threading import Thread
from typing import Any

from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, weight_of
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.run import Checkpoint

_PART = BATCH // 2
_PART_BYTES = BATCH_BYTES // 2
_END_SECONDS = 5.0
"""The longest wait for the thread of an interrupted pass. If the server does not answer, the thread is left behind."""

_Step = tuple[Callable[..., object], tuple[Any, ...]]


def compare_ahead(
    compare: Callable[[Sequence[Lane], Checkpoint], None],
    lanes: Sequence[Lane],
    checkpoint: Checkpoint,
    for_thread: Callable[[Callable[[], None]], Callable[[], None]],
) -> None:
    """Run `compare` in a thread, with lanes and a checkpoint that hand their results over to these.

    `for_thread` prepares a function for a thread of its own. An error of the thread is raised here, after everything
    that was found before it.
    """
    ahead = _Ahead(lanes, checkpoint)
    thread = Thread(target=for_thread(partial(ahead.run, compare)), name="comparing ahead", daemon=True)
    thread.start()
    try:
        for act, given in ahead.steps():
            act(*given)
    finally:
        ahead.stop()
        thread.join(_END_SECONDS)


class _Stopped(BaseException):
    """The caller takes no more results."""


class _Ahead:
    """Implements `readmodel_pipelines.reconcile.run.Checkpoint` for the thread that compares."""

    def __init__(self, lanes: Sequence[Lane], checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._lanes = [(lane, self._handing_over_to(lane)) for lane in lanes]
        self._parts: Queue[list[_Step] | None] = Queue(1)
        self._part: list[_Step] = []
        self._bytes = 0
        self._stopped = False

    def _handing_over_to(self, lane: Lane) -> Lane:
        keep, stays = lane.keep, lane.stays
        return replace(
            lane,
            counts=Counts(),
            emit=lambda verdict: self._then(verdict.weight, lane.emit, verdict),
            keep=keep and (lambda expected, actual: self._then(weight_of(actual), keep, expected, actual)),
            stays=stays and (lambda document: self._then(weight_of(document), stays, document)),
        )

    def run(self, compare: Callable[[Sequence[Lane], Checkpoint], None]) -> None:
        """Compare; an error is the last step."""
        with suppress(_Stopped):
            try:
                compare([ahead for _, ahead in self._lanes], self)
            except _Stopped:
                raise
            except BaseException as error:  # noqa: BLE001 - the caller raises it, whatever it is
                self._hand_over((_raise, (error,)))
            self._hand_over()
            self._put(None)

    @property
    def streams(self) -> int:
        """How many streams the batch may have now."""
        if self._stopped:
            raise _Stopped
        return self._checkpoint.streams

    def reached(self, aggregate_id: str, streams: int, events: int) -> None:
        """Hand over everything that was found before this id, then the checkpoint."""
        self._hand_over((self._checkpoint.reached, (aggregate_id, streams, events)))

    def steps(self) -> Iterator[_Step]:
        """What the caller has to do, in order."""
        while (part := self._parts.get()) is not None:
            yield from part

    def stop(self) -> None:
        """End the thread at its next result or stream."""
        self._stopped = True
        # The thread may be waiting for room.
        with suppress(Empty):
            self._parts.get_nowait()

    def _then(self, weight: int, act: Callable[..., object], *given: Any) -> None:
        self._part.append((act, given))
        self._bytes += weight
        if len(self._part) >= _PART or self._bytes >= _PART_BYTES:
            self._hand_over()

    def _hand_over(self, *last: _Step) -> None:
        counted = [(lane.counts.add, (ahead.counts.reset(),)) for lane, ahead in self._lanes]
        part, self._part, self._bytes = [*self._part, *counted, *last], [], 0
        self._put(part)

    def _put(self, part: list[_Step] | None) -> None:
        self._parts.put(part)
        if self._stopped:
            raise _Stopped


def _raise(error: BaseException) -> None:
    raise error
