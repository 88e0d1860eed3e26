"""Pieces of work that a thread does in turn: one at a time, and none after one that failed."""

from collections.abc import Callable
from contextvars import ContextVar
from threading import Event, get_ident

import pytest

from readmodel_pipelines.in_turn import InTurn
from readmodel_pipelines_tests.support.waiting import wait_until

SECONDS = 240


class Gate:
    """A piece of work that begins, and ends only when it may."""

    def __init__(self) -> None:
        self.begun = Event()
        self.may_end = Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_end.wait(SECONDS)


def failing() -> None:
    raise LookupError("the write failed")


def test_pieces_are_done_in_order_in_another_thread_and_all_of_them_before_the_block_ends() -> None:
    done: list[tuple[int, bool]] = []
    here = get_ident()

    def piece(number: int) -> Callable[[], None]:
        return lambda: done.append((number, get_ident() == here))

    with InTurn(2) as behind:
        for number in range(100):
            behind(piece(number))
    assert done == [(number, False) for number in range(100)]


def test_the_next_piece_is_prepared_while_one_is_at_work() -> None:
    gate, prepared = Gate(), []
    with InTurn(2) as behind:
        wait = behind(gate)
        assert gate.begun.wait(SECONDS)
        behind(lambda: prepared.append("done"))
        assert not prepared
        gate.may_end.set()
        wait()
        behind.wait()
        assert prepared == ["done"]


def test_no_piece_is_taken_beyond_the_limit() -> None:
    gate, given = Gate(), Event()
    with InTurn(1) as behind:
        behind(gate)

        def give() -> None:
            behind(given.set)

        with InTurn(1) as other:
            other(give)
            assert gate.begun.wait(SECONDS)
            assert not given.is_set()
            gate.may_end.set()
        assert given.wait(SECONDS)


def test_an_error_is_raised_where_the_next_piece_is_given_and_nothing_is_done_after_it() -> None:
    done: list[str] = []
    gate = Gate()

    def fails_at_last() -> None:
        gate()
        failing()

    with pytest.raises(LookupError, match="the write failed"), InTurn(3) as behind:  # noqa: PT012 - what comes first
        wait = behind(fails_at_last)
        behind(lambda: done.append("saved"))
        gate.may_end.set()
        wait()
        behind(lambda: done.append("next"))
    assert not done


def test_an_error_is_raised_at_every_call_and_no_call_waits_for_ever() -> None:
    behind = InTurn(1)
    behind(failing)
    for call in (behind.wait, lambda: behind(failing), lambda: behind(failing), behind.wait):
        with pytest.raises(LookupError):
            call()


def test_an_error_of_a_piece_that_nobody_waited_for_is_raised_where_the_block_ends() -> None:
    with pytest.raises(LookupError), InTurn(1) as behind:
        behind(failing)


def test_a_block_that_fails_waits_for_the_piece_at_work_and_begins_no_other() -> None:
    done: list[str] = []
    begun = Event()

    def at_work() -> None:
        begun.set()
        wait_until(lambda: behind._failed is not None, SECONDS, every=0.01)
        done.append("first")

    with pytest.raises(LookupError), InTurn(2) as behind:  # noqa: PT012 - what comes first
        behind(at_work)
        behind(lambda: done.append("second"))
        assert begun.wait(SECONDS)
        failing()
    assert done == ["first"]


def test_an_interrupted_block_does_not_wait_for_a_piece_that_takes_long_and_begins_no_other() -> None:
    gate, done = Gate(), list[str]()
    with pytest.raises(KeyboardInterrupt), InTurn(2) as behind:  # noqa: PT012 - what comes first
        wait = behind(gate)
        wait_for_next = behind(lambda: done.append("second"))
        assert gate.begun.wait(SECONDS)
        raise KeyboardInterrupt
    gate.may_end.set()
    wait()
    wait_for_next()
    assert not done


def test_a_piece_is_done_in_the_context_of_who_gave_it() -> None:
    said: ContextVar[str] = ContextVar("said", default="nothing")
    seen: list[str] = []
    with InTurn(1) as behind:
        for word in ("one", "two"):
            said.set(word)
            behind(lambda: seen.append(said.get()))
    assert seen == ["one", "two"]


def test_waiting_for_a_piece_may_be_limited_and_the_piece_goes_on() -> None:
    gate = Gate()
    with InTurn(1) as behind:
        behind(gate)
        with pytest.raises(TimeoutError):
            behind.wait(0.01)
        gate.may_end.set()
        behind.wait()
