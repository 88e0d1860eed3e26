"""Lines of progress: at most one in so many seconds, with rate, what is left, and what was found so far."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.progress import ProgressLines

CHATS = "chats_read_model"


def lines(*told: tuple[float, int, int], counts: Mapping[str, Counts] | None = None) -> list[str]:
    """What is said when it is told (seconds, events, total)."""
    said: list[str] = []
    clock = [0.0]
    progress = ProgressLines(said.append, every=5.0, now=lambda: clock[-1])
    for seconds, done, total in told:
        clock.append(seconds)
        progress(done, total, counts or {})
    return said


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            [(1, 10_000, 200_000), (4.9, 49_000, 200_000), (5, 50_000, 200_000), (6, 60_000, 200_000)],
            "50,000 of about 200,000 events read, 10,000 events/s, about 15 s left.",
        ),
        ([(2, 600, 1_000), (6, 1_200, 1_000)], "1,200 of about 1,200 events read, 150 events/s, about 0 s left."),
        (
            [(0, 900_000, 1_000_000), (10, 950_000, 1_000_000)],
            "950,000 of about 1,000,000 events read, 5,000 events/s, about 10 s left.",
        ),
        ([(7, 500, 1_000)], "500 of about 1,000 events read."),
    ],
    ids=["now and then", "no rest is negative", "without what an earlier run read", "the first has no rate"],
)
def test_a_line_comes_now_and_then_with_rate_and_what_is_left(told: list[tuple[float, int, int]], said: str) -> None:
    assert lines(*told) == [said]


def test_a_line_tells_the_outcomes_so_far_and_what_waits_for_a_second_look() -> None:
    counts = {CHATS: Counts(checked=12, same=9, different=1), "tasks_read_model": Counts()}

    (said,) = lines((7.0, 500, 1_000), counts=counts)

    assert said == ("500 of about 1,000 events read; chats_read_model: 9 same, 1 different, 2 to be looked at again.")
