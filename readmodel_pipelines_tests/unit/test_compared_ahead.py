"""A pass that compares ahead: what reaches the caller, in which order and thread, and how it ends."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.reconcile.compared_ahead import compare_ahead
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.run import Checkpoint

PARTS_AHEAD = BATCH
"""Verdicts of a full part that waits, and of the one that is being filled."""


@dataclass
class Caller:
    """A lane, its sink and its checkpoint: remembers what reached it, and in which thread."""

    told: list[Any] = field(default_factory=list)
    threads: set[threading.Thread] = field(default_factory=set)
    streams: int = 100
    act: Callable[[Any], object] = lambda _: None

    def __post_init__(self) -> None:
        self.lane = Lane(CHATS, None, Counts(), emit=self._emit)  # type: ignore[arg-type]

    def _emit(self, verdict: Verdict) -> None:
        self._note(verdict.aggregate_id)

    def reached(self, aggregate_id: str, streams: int, events: int) -> None:
        self._note((aggregate_id, streams, events, self.lane.counts.checked))

    def _note(self, what: Any) -> None:
        self.told.append(what)
        self.threads.add(threading.current_thread())
        self.act(what)

    def compare(self, comparing: Callable[[Lane, Checkpoint], None]) -> None:
        compare_ahead(lambda lanes, checkpoint: comparing(lanes[0], checkpoint), [self.lane], self, lambda do: do)


def find(lane: Lane, numbers: Sequence[int], size: int = 10) -> None:
    for number in numbers:
        lane.counts.checked += 1
        lane.emit(Verdict(number, Outcome.MISSING, {}, size=size))


def test_everything_reaches_the_caller_in_order_and_in_his_thread() -> None:
    caller, others = Caller(), set[threading.Thread]()

    def comparing(lane: Lane, checkpoint: Checkpoint) -> None:
        others.add(threading.current_thread())
        find(lane, range(3))
        checkpoint.reached("a", 3, 60)
        find(lane, range(3, 3 * BATCH))
        checkpoint.reached("b", 4, 70)
        find(lane, [-1])

    caller.compare(comparing)
    assert caller.told == [0, 1, 2, ("a", 3, 60, 3), *range(3, 3 * BATCH), ("b", 4, 70, 3 * BATCH), -1]
    assert caller.lane.counts.checked == 3 * BATCH + 1
    assert caller.threads == {threading.current_thread()}
    assert others.isdisjoint(caller.threads)


@pytest.mark.parametrize(("size", "most"), [(10, PARTS_AHEAD), (BATCH_BYTES // 16, 16)])
def test_no_more_is_ahead_of_the_caller_than_a_batch_may_hold(size: int, most: int) -> None:
    found = 0
    ahead: list[int] = []

    def comparing(lane: Lane, _: Checkpoint) -> None:
        nonlocal found
        for number in range(5 * BATCH):
            found = number
            find(lane, [number], size)

    def wait(number: int) -> None:
        # As far ahead as it comes: it stands still when it has to wait, or is done.
        before = -1
        while before != found:
            before = found
            threading.Event().wait(0.0005)
        ahead.append(found - number)

    caller = Caller(act=wait)
    caller.act = lambda number: wait(number) if number % 700 == 0 else None
    caller.compare(comparing)
    # The part that the caller works on is his own.
    assert 0 < max(ahead) <= most + most // 2


def test_what_goes_wrong_is_raised_behind_everything_that_was_found_before() -> None:
    def comparing(lane: Lane, _: Checkpoint) -> None:
        find(lane, range(10))
        raise KeyError("of the store")

    caller = Caller()
    with pytest.raises(KeyError, match="of the store"):
        caller.compare(comparing)
    assert caller.told == [*range(10)]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_a_caller_who_ends_it_is_told_nothing_more_and_leaves_no_thread(raised: type[BaseException]) -> None:
    threads: list[threading.Thread] = []

    def comparing(lane: Lane, checkpoint: Checkpoint) -> None:
        threads.append(threading.current_thread())
        number = 0
        while checkpoint.streams:
            find(lane, [number])
            number += 1

    def ends(number: int) -> None:
        if number == 1_200:
            raise raised

    caller = Caller(act=ends)
    with pytest.raises(raised):
        caller.compare(comparing)
    assert caller.told == [*range(1_201)]
    assert not threads[0].is_alive()


def test_a_caller_who_ends_it_is_not_kept_by_what_finds_nothing() -> None:
    threads: list[threading.Thread] = []

    def comparing(_: Lane, checkpoint: Checkpoint) -> None:
        threads.append(threading.current_thread())
        checkpoint.reached("a", 1, 1)
        while checkpoint.streams:
            pass

    def ends(_: Any) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        Caller(act=ends).compare(comparing)
    assert not threads[0].is_alive()
