"""Writing behind: one piece of work at a time beside the caller, and no error is lost."""

from contextvars import ContextVar
from threading import Event

import pytest

from readmodel_pipelines.mongo.behind import Behind

SOON = 240.0
_said = ContextVar("said", default="")


def test_the_caller_goes_on_and_the_next_piece_begins_after_the_one_before() -> None:
    behind, may_end, done = Behind("writes"), Event(), list[str]()

    def first() -> None:
        assert may_end.wait(SOON)
        done.append("first")

    behind.do(first)
    assert done == []
    may_end.set()
    behind.do(lambda: done.append("second"))
    behind.wait()
    assert done == ["first", "second"]


@pytest.mark.parametrize("call", [Behind.wait, lambda behind: behind.do(lambda: None)], ids=["wait", "do"])
def test_an_error_is_raised_once_by_the_next_call_and_knows_the_context(call: object) -> None:
    def fails() -> None:
        raise KeyError(_said.get())

    behind = Behind("writes")
    _said.set("here")
    behind.do(fails)
    with pytest.raises(KeyError, match="here"):
        call(behind)  # type: ignore[operator]
    behind.wait()
