"""Work spread over processes: what goes wrong in a worker is told in the parent, what it sends adds up."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from readmodel_pipelines import spread
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.events.values import BadField
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.workers.pool import work_off


class NotToBePickled(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no")


ERRORS = [
    ReadModelError("a message", hint="a hint"),
    BulkWriteError({"writeErrors": [], "nInserted": 0, "what": "a message"}),
    # Unpickling it calls it with one argument of three.
    BadField("a message", 1, "wanted"),
    NotToBePickled("a message"),
]


@contextmanager
def raising(_: Any) -> Iterator[Callable[[int, Any], None]]:
    def do(task: int, _: Any) -> None:
        raise ERRORS[task]

    yield do


@pytest.mark.parametrize("number", range(len(ERRORS)), ids=[type(error).__name__ for error in ERRORS])
def test_what_a_worker_raises_reaches_the_parent_with_its_text(number: int) -> None:
    with pytest.raises(Exception, match="a message") as raised:
        list(work_off(raising, None, [number, number], 2))
    if number < 2:
        assert type(raised.value) is type(ERRORS[number])
        assert str(raised.value) == str(ERRORS[number])
    else:
        assert type(ERRORS[number]).__name__ in str(raised.value)


def test_what_is_sent_now_and_then_and_at_the_end_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_SAY_SECONDS", 0.0)
    counts = {"chats_read_model": Counts()}
    sent: list[Any] = []
    counting = spread._Counting(counts, sent.append)
    for events in (100, 250):
        counts["chats_read_model"].add(Counts(checked=10, same=9))
        counting(events)
    counts["chats_read_model"].add(Counts(checked=1, same=1))
    looked: list[Any] = [*sent, counting.since_last(260)]

    assert [item.events for item in looked] == [100, 150, 10]
    total = Counts()
    for item in looked:
        total.add(item.counts["chats_read_model"])
    assert total == Counts(checked=21, same=19)
