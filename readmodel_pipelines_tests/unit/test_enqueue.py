"""How findings become repair tasks: at their pace, up to their limit, and never more deletions than a rebuild dares."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from bson.code import Code

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.verification.enqueue import Enqueue
from readmodel_pipelines_tests.support.clock import Clock


class Queue:
    """Takes what it has room for; knows some ids already."""

    def __init__(self, room: int = 10**9, pending: Sequence[str] = (), dead: Sequence[str] = ()) -> None:
        self.room, self.pending, self.dead = room, set(pending), set(dead)
        self.added: list[str] = []

    def known(self, ids: Sequence[str], aggregate_type: str) -> tuple[set[str], set[str]]:
        return self.pending & set(ids), self.dead & set(ids)

    def add_many(self, ids: Sequence[str], aggregate_type: str, error: str) -> tuple[int, int]:
        assert (aggregate_type in ("chat", "task"), error) == (True, "found by a verification")
        taken = list(ids)[: self.room]
        self.room -= len(taken)
        self.added += taken
        return len(taken), len(ids) - len(taken)


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def findings(number: int, outcome: Outcome = Outcome.DIFFERENT, ids: Any = uuid) -> list[Finding]:
    return [Finding(CHATS.read_model, ids(place), outcome) for place in range(number)]


def enqueued(queue: Queue, *told: tuple[Projection, list[Finding]], **options: Any) -> Enqueue:
    """What was asked of the queue once it was told these findings."""
    options = {"limit": 10**9, "per_second": 1e9, "deletions_allowed": lambda _: 100.0, **options}
    asked = Enqueue(cast("RepairQueue", queue), **options)
    for projection, found in told:
        asked(projection, found)
    asked.finish()
    return asked


def test_an_aggregate_is_queued_once_whatever_was_found_of_it() -> None:
    queue = Queue(pending=[uuid(1)])
    of_chats = findings(3) + findings(2, Outcome.UNEXPECTED)
    asked = enqueued(queue, (CHATS, of_chats), (TASKS_OF_CHATS, findings(1)))
    assert queue.added == [uuid(0), uuid(2)]
    assert (asked.queued, asked.pending_already, asked.warnings()) == (2, 1, [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (findings(2, Outcome.MALFORMED), []),
        (findings(2, ids=lambda _: 7), ["2 findings"]),
        (findings(2, ids=lambda place: Code(uuid(place))), ["2 findings"]),
        (findings(2, ids=lambda _: uuid(1).upper() + "A"), ["2 findings"]),
    ],
)
def test_what_no_repair_can_mend_is_told_and_not_queued(wrong: list[Finding], said: list[str]) -> None:
    queue = Queue()
    asked = enqueued(queue, (CHATS, wrong))
    assert queue.added == []
    assert [warning[:10] for warning in asked.warnings()] == said


def test_an_aggregate_with_a_dead_letter_waits_for_a_person() -> None:
    queue = Queue(dead=[uuid(1)])
    asked = enqueued(queue, (CHATS, findings(3)))
    assert queue.added == [uuid(0), uuid(2)]
    assert "repair-queue requeue" in asked.warnings()[0]


def test_what_waits_or_is_dead_takes_no_room_of_others() -> None:
    queue = Queue(pending=[uuid(0)], dead=[uuid(1)])
    asked = enqueued(queue, (CHATS, findings(3)), limit=1)
    assert (queue.added, asked.over_limit) == ([uuid(2)], 0)


def test_tasks_are_queued_at_their_pace() -> None:
    clock = Clock()
    enqueued(Queue(), (CHATS, findings(5_000)), per_second=100, clock=clock, sleep=clock.sleep)
    assert 45 <= clock.now - 100 <= 50


def test_no_more_deletions_are_queued_than_a_full_rebuild_would_dare() -> None:
    queue = Queue()
    unexpected = findings(90, Outcome.UNEXPECTED, ids=lambda place: uuid(1_000 + place))
    others = findings(5, ids=lambda place: uuid(5_000 + place))
    asked = enqueued(queue, (CHATS, findings(90, Outcome.ORPHAN)), (CHATS, unexpected + others))
    assert len(queue.added) == 105
    assert asked.deletions_refused == 80
    assert "--allow-deletions" in asked.warnings()[0]


@pytest.mark.parametrize("tasks_first", [True, False])
def test_an_aggregate_whose_deletion_is_refused_is_not_queued_because_of_another_read_model(tasks_first: bool) -> None:
    queue = Queue()
    told = [(CHATS, findings(150)), (TASKS_OF_CHATS, findings(150, Outcome.UNEXPECTED))]
    enqueued(queue, *(reversed(told) if tasks_first else told))
    assert sorted(queue.added) == [uuid(number) for number in range(100)]


def test_of_more_refusals_than_can_be_remembered_none_is_queued() -> None:
    queue = Queue()
    first = findings(100, ids=lambda place: uuid(1_000 + place))
    told = [(CHATS, first), (TASKS_OF_CHATS, findings(100, Outcome.ORPHAN)), (CHATS, findings(100))]
    enqueued(queue, *told, limit=20, deletions_allowed=lambda _: 0)
    assert queue.added == [uuid(1_000 + place) for place in range(20)]
