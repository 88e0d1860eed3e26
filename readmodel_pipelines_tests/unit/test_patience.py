"""How long a verb waits for a server, what for, and whom it tells; by a clock that nobody waits for."""

from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass, field

import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from readmodel_pipelines.mongo.failures import REPLACED, is_glitch
from readmodel_pipelines.mongo.patience import (
    Patience,
    of_the_same_collections,
    patiently,
    repeats,
    report_waits_to_parent,
    retrying,
    tell,
)


@dataclass
class Time:
    """Passes only while somebody sleeps, or a server is looked for."""

    now: float = 0.0
    told: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, seconds: float = 60.0, *, met: bool = True) -> Patience:
        return Patience(seconds, self.told.append, met, lambda: self.now, self.sleep)


@pytest.fixture
def time() -> Time:
    return Time()


def failing(times: int, error: PyMongoError, took: Callable[[], object] = lambda: None) -> Callable[[], str]:
    """Comes through after so many failures."""
    left = iter([error] * times)

    def do() -> str:
        if (wrong := next(left, None)) is not None:
            took()
            raise wrong
        return "done"

    return do


@pytest.mark.parametrize("times", [1, 5, 20])
def test_what_passes_is_asked_again_until_it_comes_through(time: Time, times: int) -> None:
    with retrying(time.patience()):
        assert patiently(failing(times, AutoReconnect("closed"))) == "done"
        assert repeats() == times


def test_what_took_the_place_of_a_collection_is_not_waited_for(time: Time) -> None:
    replaced = OperationFailure("dropped", REPLACED)
    with retrying(time.patience(seconds=0)):
        assert patiently(failing(1, replaced)) == "done"
        with pytest.raises(OperationFailure):
            patiently(failing(2, replaced))


def test_a_reading_of_the_same_collection_does_not_go_on_with_another_one(time: Time) -> None:
    with retrying(time.patience()):
        with of_the_same_collections(), pytest.raises(OperationFailure):
            patiently(failing(1, OperationFailure("dropped", REPLACED)))
        assert patiently(failing(1, OperationFailure("dropped", REPLACED))) == "done"


def test_a_long_wait_is_told_and_so_is_its_end(time: Time) -> None:
    with retrying(time.patience()):
        patiently(failing(1, AutoReconnect("closed")))
        assert time.told == []
        patiently(failing(3, ServerSelectionTimeoutError("no primary"), lambda: time.sleep(5)))
        assert len(time.told) == 2


def test_what_a_worker_process_waits_for_its_parent_tells(time: Time) -> None:
    sent: list[str] = []
    with retrying(time.patience()):
        do = report_waits_to_parent(lambda task, _: (task, patiently(failing(9, AutoReconnect("closed")))))
        assert do("a range", sent.append) == ("a range", "done")
        assert (len(sent), time.told) == (2, [])
        # In the parent.
        for line in sent:
            tell(line)
    assert time.told == sent


def test_nobody_waits_for_a_server_that_was_never_met(time: Time) -> None:
    with retrying(time.patience(met=False)):
        with pytest.raises(ServerSelectionTimeoutError):
            patiently(failing(1, ServerSelectionTimeoutError("a wrong address")))
        assert time.now == 0
        patiently(failing(0, AutoReconnect("")))
        assert patiently(failing(1, AutoReconnect("closed"))) == "done"


def test_where_no_verb_is_at_work_nothing_is_asked_again(time: Time) -> None:
    # A fixture may have left a database open.
    with pytest.raises(AutoReconnect):
        Context().run(lambda: patiently(failing(1, AutoReconnect("closed"))))
    with retrying(time.patience(0.0)), pytest.raises(AutoReconnect):
        patiently(failing(1, AutoReconnect("closed")))


def test_who_gave_up_does_not_wait_at_each_step_of_clearing_up_until_there_is_an_answer(time: Time) -> None:
    with retrying(time.patience(10.0)):
        with pytest.raises(AutoReconnect):
            patiently(failing(1_000, AutoReconnect("closed")))
        gave_up = time.now
        assert gave_up >= 10
        with pytest.raises(AutoReconnect):
            patiently(failing(1, AutoReconnect("closed")))
        assert time.now == gave_up
        patiently(failing(0, AutoReconnect("")))
        assert patiently(failing(1, AutoReconnect("closed"))) == "done"


def of_a_bulk(code: int, where: str = "writeErrors") -> BulkWriteError:
    return BulkWriteError({"writeErrors": [], "writeConcernErrors": [], where: [{"index": 0, "code": code}]})


def labelled() -> Iterator[PyMongoError]:
    for label in ("RetryableWriteError", "ResumableChangeStreamError"):
        yield OperationFailure("", 1, {"errorLabels": [label]})


# CursorNotFound, killed, renamed in the middle of a read, stepped down, a shard without a primary.
@pytest.mark.parametrize(
    "error",
    [
        *(OperationFailure("", code) for code in (43, 11601, 237, 175, 189, 10107, 11602, 91, 133)),
        *(of_a_bulk(11602), of_a_bulk(91, "writeConcernErrors")),
        *labelled(),
    ],
    ids=repr,
)
def test_what_passes_is_a_glitch(error: PyMongoError) -> None:
    assert is_glitch(error)


# Not authorized, disk full, took too long, a duplicate, a validator, a write concern that nobody can satisfy.
@pytest.mark.parametrize(
    "error", [*(OperationFailure("", code) for code in (13, 14031, 50, 11000, 121, 100)), of_a_bulk(11000)], ids=repr
)
def test_what_people_must_mend_is_none(time: Time, error: PyMongoError) -> None:
    assert not is_glitch(error)
    with retrying(time.patience()), pytest.raises(type(error)):
        patiently(failing(1, error))
    assert time.now == 0
