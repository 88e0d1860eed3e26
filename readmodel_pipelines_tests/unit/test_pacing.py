"""Pacing: a limit that holds, batches that take their time, and windows by the clock on the wall."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.pacing import BatchSize, RateLimit, Window
from readmodel_pipelines_tests.support.clock import Clock


def limit(per_second: float | None, clock: Clock) -> RateLimit:
    return RateLimit(per_second, clock=clock, sleep=clock.sleep)


# Rate limit


@given(st.integers(0, 10**6), st.floats(10, 50_000), st.floats(0, 3))
def test_a_limit_holds_within_a_tenth_whatever_the_work_takes(seed: int, per_second: float, slowest: float) -> None:
    draw = random.Random(seed)
    clock = Clock(oversleep=0.001)
    rate = limit(per_second, clock)
    spent = 0
    while spent < 100 * per_second:
        number = draw.randint(1, max(1, int(per_second)))
        clock.now += draw.random() * slowest * number / per_second
        rate.spend(number)
        spent += number
    share = spent / (clock.now - 100.0) / per_second
    assert share <= 1.1
    # Work that is always quicker than the limit gets all of it.
    assert share >= 0.9 or slowest > 1


@pytest.mark.parametrize(
    ("per_second", "oversleep", "rounds", "number", "work", "took"),
    [(100, 0.0, 50, 100, 1.5, 76), (10, 0.2, 100, 10, 0.0, 100), (None, 0.0, 100, 10**9, 0.0, 0)],
    ids=["slower work does not wait", "sleeping too long does not add up", "without a limit"],
)
def test_a_limit_makes_work_take_its_time_and_no_longer(
    per_second: float | None, oversleep: float, rounds: int, number: int, work: float, took: float
) -> None:
    clock = Clock(oversleep)
    rate = limit(per_second, clock)
    for _ in range(rounds):
        rate.spend(number)
        clock.now += work
    assert clock.now - 100.0 == pytest.approx(took, abs=0.5)


def test_what_a_batch_takes_on_its_way_makes_it_no_smaller() -> None:
    far, near = BatchSize(target_seconds=0.5, on_its_way=lambda: 1.2), BatchSize(target_seconds=0.5)
    for batches in (far, near):
        for _ in range(60):
            batches.took(batches.size, 1.2 + batches.size / 2_000)
    assert 900 <= far.size <= 1_100
    assert near.size == 50


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    rate = limit(100, clock)
    rate.spend(100)
    assert clock.now - 100 == pytest.approx(1), "the first ones are paid for, too"
    clock.now += 3_600
    for _ in range(11):
        rate.spend(100)
    assert clock.now - 3_701 == pytest.approx(10), "an hour pays for one batch, not for all"


# Batch size


@pytest.mark.parametrize("per_second", [200, 1_000, 7_000, 30_000])
@pytest.mark.parametrize("overhead", [0.0, 0.02])
def test_batches_come_to_take_their_time(per_second: int, overhead: float) -> None:
    batches = BatchSize(target_seconds=0.5)
    for _ in range(40):
        batches.took(batches.size, overhead + batches.size / per_second)
    assert overhead + batches.size / per_second == pytest.approx(0.5, rel=0.1)


def test_batches_follow_a_server_that_becomes_slow_and_recovers() -> None:
    batches = BatchSize(target_seconds=0.5)
    for per_second in (20_000, 400, 20_000):
        for _ in range(40):
            batches.took(batches.size, batches.size / per_second)
        assert batches.size == pytest.approx(per_second / 2, rel=0.1)


@pytest.mark.parametrize(
    ("first", "number", "seconds", "least", "most"),
    [
        pytest.param(10_000, 10_000, 50, 50, 1_000, id="one slow batch is enough to take less"),
        pytest.param(1_000, 1, 0.02, 950, 1_050, id="a tiny batch hardly counts"),
    ],
)
def test_a_batch_counts_by_how_much_was_in_it(first: int, number: int, seconds: float, least: int, most: int) -> None:
    batches = BatchSize(target_seconds=0.5, first=first)
    batches.took(number, seconds)
    assert least <= batches.size <= most


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 10**4)), max_size=40))
def test_batches_stay_in_bounds_and_never_more_than_double(batches_seen: list[tuple[int, float]]) -> None:
    batches = BatchSize(first=500, least=50, most=20_000)
    for number, seconds in batches_seen:
        before = batches.size
        batches.took(number, seconds)
        assert 50 <= batches.size <= min(20_000, 2 * before)


@pytest.mark.parametrize(("first", "size"), [(500, 500), (1, 50), (10**9, 20_000)])
def test_the_first_batch_is_in_bounds(first: int, size: int) -> None:
    assert BatchSize(first=first).size == size


# Window

VIENNA = "Europe/Vienna"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def at(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 1, 15, hour, minute, second, tzinfo=ZoneInfo(VIENNA))


NIGHT = "22:00-06:00"


@pytest.mark.parametrize(
    ("text", "opened", "closed"),
    [
        (NIGHT, [at(22, 0), at(23, 59, 59), at(0, 0), at(5, 59, 59)], [at(6, 0), at(12, 0), at(21, 59, 59)]),
        ("09:30-17:00", [at(9, 30), at(12, 0), at(16, 59, 59)], [at(9, 29, 59), at(17, 0), at(0, 0)]),
        ("18:00-00:00", [at(23, 59, 59)], [at(0, 0)]),
        (
            NIGHT,
            [utc("2026-01-15T21:00:00"), utc("2026-07-15T20:00:00")],
            [utc("2026-01-15T20:59:59"), utc("2026-07-15T04:00:00")],
        ),
    ],
    ids=["across midnight", "within a day", "up to midnight", "by the clock of its zone"],
)
def test_a_window_is_open_until_before_its_end(text: str, opened: list[datetime], closed: list[datetime]) -> None:
    window = Window.parse(text, VIENNA)
    assert [moment for moment in opened if not window.is_open(moment)] == []
    assert [moment for moment in closed if window.is_open(moment)] == []


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [
        ("2026-03-28T21:00:00", "2026-03-29T04:00:00", 7),
        ("2026-10-24T20:00:00", "2026-10-25T05:00:00", 9),
        ("2026-01-15T21:00:00", "2026-01-16T05:00:00", 8),
    ],
    ids=["clocks go forward", "clocks go back", "other days"],
)
def test_a_night_on_which_the_clocks_change_is_shorter_or_longer(first: str, last: str, hours: int) -> None:
    window = Window.parse("22:00-06:00", VIENNA)
    minutes = [utc(first) + timedelta(minutes=count) for count in range(-120, hours * 60 + 120)]
    opened = [minute for minute in minutes if window.is_open(minute)]
    assert (opened[0], opened[-1]) == (utc(first), utc(last) - timedelta(minutes=1))
    assert len(opened) == hours * 60


def test_an_hour_that_comes_twice_counts_twice_and_one_left_out_never_comes() -> None:
    window = Window.parse("02:15-02:45", VIENNA)

    def minutes_open(day: str) -> int:
        return sum(window.is_open(utc(day) + timedelta(minutes=count)) for count in range(24 * 60))

    assert minutes_open("2026-10-25T00:00:00") == 60
    assert minutes_open("2026-03-29T00:00:00") == 0
    assert minutes_open("2026-01-15T00:00:00") == 30


@pytest.mark.parametrize("text", ["22:00-06:00", " 22:00 - 6:00 "])
def test_a_window_is_read_as_people_write_it_and_has_words(text: str) -> None:
    assert str(Window.parse(text, "UTC")) == "22:00-06:00 UTC"


@pytest.mark.parametrize(
    "text",
    [
        *("", "22:00", "22-06", "22:00-24:00", "22:60-06:00"),
        *("22:00-06:00-07:00", "06:00-06:00", "00:00-00:00", "-1:00-2:00"),
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="22:00-06:00") as refused:
        Window.parse(text, "UTC")
    assert repr(text) in refused.value.message


@pytest.mark.parametrize("zone", ["", "Europe", "Europe/Nowhere", "../etc/passwd", "\0"])
def test_a_time_zone_that_nobody_knows_is_refused(zone: str) -> None:
    with pytest.raises(UsageError, match="Europe/Vienna"):
        Window.parse("22:00-06:00", zone)
