"""Words for people: numbers of things, spans of time, moments, long values, lines of progress."""

from collections.abc import Mapping
from datetime import datetime

import pytest

from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.progress import ProgressLines
from readmodel_pipelines.wording import Throttle, count, cut_at_difference, moment, numbers, span, storable


def test_numbers_of_things() -> None:
    assert [count(number, "task") for number in (0, 1, 1_200)] == ["0 tasks", "1 task", "1,200 tasks"]
    assert count(2, "discrepancy", "discrepancies") == "2 discrepancies"
    assert numbers({"same": 1_000, "missing": 0, "different": 1}) == "1,000 same, 1 different"
    assert numbers({"same": 0}) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "59 min"), (3_600, "1 h"), (86_400, "1 d"), (1e8, "1,157 d")],
)
def test_a_span_is_told_in_the_largest_unit_that_it_fills(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_a_moment_is_told_in_utc_and_a_record_without_one_breaks_nothing() -> None:
    assert moment(datetime(2026, 3, 1, 8, 0, 5)) == "2026-03-01 08:00:05 UTC"  # noqa: DTZ001 - as the driver gives it
    assert moment(datetime(1, 3, 1)) == "0001-03-01 00:00:00 UTC"  # noqa: DTZ001
    assert moment(None) == "an unknown time"


def test_two_long_values_are_shown_from_a_little_before_they_part() -> None:
    assert cut_at_difference("a" * 30 + "one", "a" * 30 + "two", 20) == ("…aaaaone", "…aaaatwo")
    assert cut_at_difference("one", "other", 20) == ("one", "other")
    assert cut_at_difference("b" * 30, "one", 20) == ("b" * 19 + "…", "one")


@pytest.mark.parametrize("text", ["", "é \U0001f600 \x00\n", "half \ud83d of it", "\udcff"], ids=ascii)
def test_every_text_can_be_stored_and_what_can_be_already_is_left_as_it_is(text: str) -> None:
    stored = storable(text)
    assert (stored == text) is (text.encode(errors="ignore").decode() == text)
    assert storable(stored) == stored.encode().decode() == stored


def test_a_line_comes_at_most_once_in_so_many_seconds() -> None:
    clock = [0.0]
    due = Throttle(5.0, lambda: clock[-1])
    said = []
    for moment_now in (1.0, 5.0, 6.0, 9.9, 10.0):
        clock.append(moment_now)
        said.append(due())
    assert said == [False, True, False, False, True]


# Lines of progress


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
    counts = {"chats_read_model": Counts(checked=12, same=9, different=1), "tasks_read_model": Counts()}

    (said,) = lines((7.0, 500, 1_000), counts=counts)

    assert said.startswith("500 of about 1,000 events read; chats_read_model: 9 same, 1 different, 2 to be ")
