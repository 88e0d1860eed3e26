"""Questions side by side: none waits for the answer of another, and each knows what the asker knows."""

from contextvars import ContextVar
from threading import Barrier, Event

import pytest

from readmodel_pipelines.side_by_side import side_by_side

SOON = 10.0
_said = ContextVar("said", default="")


def test_none_waits_for_the_answer_of_another_and_answers_come_in_order() -> None:
    all_asked = Barrier(3, timeout=SOON)

    def asked(number: int) -> int:
        all_asked.wait()
        return number

    assert side_by_side(lambda: asked(0), lambda: asked(1), lambda: asked(2)) == [0, 1, 2]


def test_each_has_the_context_of_the_asker() -> None:
    _said.set("here")
    assert side_by_side(_said.get, _said.get) == ["here", "here"]


def test_what_one_raises_is_raised_when_all_have_answered() -> None:
    answered = []

    def refuse() -> None:
        raise KeyError("refused")

    with pytest.raises(KeyError):
        side_by_side(refuse, lambda: answered.append(1))
    assert answered == [1]


def test_an_interruption_does_not_wait_for_what_the_server_takes_long_for() -> None:
    answered, still_at_work = Event(), Event()

    def ask() -> None:
        answered.wait(SOON)
        still_at_work.set()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side(interrupted, ask)
    assert not still_at_work.is_set()
    answered.set()
    assert still_at_work.wait(SOON)
