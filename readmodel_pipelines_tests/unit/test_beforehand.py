"""Reading beforehand: a batch is there before it is asked for, and nothing else is different."""

from collections.abc import Generator
from contextvars import ContextVar
from threading import Event

import pytest

from readmodel_pipelines.mongo.beforehand import Beforehand

SOON = 240.0
_said = ContextVar("said", default="")


def batches(*events: Event, closed: Event | None = None) -> Generator[int, None, None]:
    try:
        for number, event in enumerate(events):
            event.set()
            yield number
        raise KeyError(_said.get())
    finally:
        if closed is not None:
            closed.set()


def test_the_first_batch_is_asked_for_at_once_and_each_next_one_while_somebody_works() -> None:
    asked = [Event() for _ in range(3)]
    ahead = Beforehand(batches(*asked), "reads")
    assert asked[0].wait(SOON)
    assert next(ahead) == 0
    assert asked[1].wait(SOON)
    assert not asked[2].is_set()


def test_what_is_raised_comes_behind_the_batches_before_it_and_knows_the_context() -> None:
    _said.set("here")
    ahead = Beforehand(batches(Event(), Event()), "reads")
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(KeyError, match="here"):
        next(ahead)


def test_batches_that_end_end() -> None:
    assert list(Beforehand((number for number in range(5)), "reads")) == [0, 1, 2, 3, 4]


def test_whoever_stops_early_closes_what_is_read() -> None:
    closed = Event()
    ahead = Beforehand(batches(*(Event() for _ in range(9)), closed=closed), "reads")
    assert next(ahead) == 0
    ahead.close()
    assert closed.wait(SOON)


def test_what_nobody_asks_any_more_is_closed() -> None:
    closed = Event()
    ahead = Beforehand(batches(*(Event() for _ in range(9)), closed=closed), "reads")
    del ahead
    assert closed.wait(SOON)
