"""How findings become repair tasks: at their pace, up to their limit, and never more deletions than a rebuild dares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from readmodel_pipelines.mongo.repair_queue import RepairQueue
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Finding
from readmodel_pipelines.verification.enqueue import Enqueue


class Queue:
    """Takes what it has room for; knows some ids already."""

    def __init__(self, room: int = 10**9, pending: Sequence[str] = ()) -> None:
        self.room, self.pending = room, set(pending)
        self.added: list[str] = []

    def add_many(self, ids: Sequence[str], aggregate_type: str, error: str) -> tuple[int, int]:
        assert (aggregate_type, error) == ("chat", "found by a verification")
        taken = list(ids)[: self.room]
        self.room -= len(taken)
        new = [item for item in taken if item not in self.pending]
        self.added += new
        return len(new), len(ids) - len(taken)


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def findings(number: int, outcome: Outcome = Outcome.DIFFERENT, ids: Any = uuid) -> list[Finding]:
    return [Finding(CHATS.read_model, ids(place), outcome) for place in range(number)]


def enqueue(queue: Queue, limit: int = 10**9, per_second: float = 1e9, **options: Any) -> Enqueue:
    options = {"deletions_allowed": lambda _: 100.0, **options}
    return Enqueue(cast("RepairQueue", queue), limit=limit, per_second=per_second, **options)


def test_an_aggregate_is_queued_once_whatever_was_found_of_it() -> None:
    queue = Queue(pending=[uuid(1)])
    asked = enqueue(queue)
    asked(CHATS, findings(3) + findings(2, Outcome.UNEXPECTED))
    assert queue.added == [uuid(0), uuid(2)]
    assert (asked.queued, asked.pending_already, asked.warnings()) == (2, 1, [])


@pytest.mark.parametrize(
    "wrong",
    [findings(1, Outcome.MALFORMED), findings(1, ids=lambda _: 7), findings(1, ids=lambda _: uuid(1).upper() + "A")],
)
def test_what_no_repair_can_mend_is_not_queued(wrong: list[Finding]) -> None:
    queue = Queue()
    enqueue(queue)(CHATS, wrong)
    assert queue.added == []


@pytest.mark.parametrize(("room", "limit"), [(7, 100), (100, 7)])
def test_what_is_over_a_limit_is_counted_and_told(room: int, limit: int) -> None:
    queue = Queue(room=room)
    asked = enqueue(queue, limit=limit)
    for _ in range(2):
        asked(CHATS, findings(10))
    assert len(queue.added) == 7
    assert asked.over_limit == 13
    assert "13 findings were not queued" in asked.warnings()[0]


def test_tasks_are_queued_at_their_pace() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    asked = enqueue(Queue(), per_second=100, clock=lambda: now[0], sleep=sleep)
    for _ in range(5):
        asked(CHATS, findings(1_000))
    assert 45 <= now[0] <= 50


def test_no_more_deletions_are_queued_than_a_full_rebuild_would_dare() -> None:
    queue = Queue()
    asked = enqueue(queue)
    asked(CHATS, findings(90, Outcome.ORPHAN))
    asked(
        CHATS,
        findings(90, Outcome.UNEXPECTED, ids=lambda place: uuid(1_000 + place))
        + findings(5, ids=lambda n: uuid(5_000 + n)),
    )
    assert len(queue.added) == 105
    assert asked.deletions_refused == 80
    assert "--allow-deletions" in asked.warnings()[0]
