"""Words for people: numbers of things, spans of time, moments, long values."""

from __future__ import annotations

from datetime import datetime

import pytest

from readmodel_pipelines.wording import NowAndThen, count, cut_where_they_part, moment, numbers, span


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
    assert moment(None) == "an unknown time"


def test_two_long_values_are_shown_from_a_little_before_they_part() -> None:
    assert cut_where_they_part("a" * 30 + "one", "a" * 30 + "two", 20) == ("…aaaaone", "…aaaatwo")
    assert cut_where_they_part("one", "other", 20) == ("one", "other")
    assert cut_where_they_part("b" * 30, "one", 20) == ("b" * 19 + "…", "one")


def test_a_line_comes_at_most_once_in_so_many_seconds() -> None:
    clock = [0.0]
    due = NowAndThen(5.0, lambda: clock[-1])
    said = []
    for moment_now in (1.0, 5.0, 6.0, 9.9, 10.0):
        clock.append(moment_now)
        said.append(due())
    assert said == [False, True, False, False, True]
