"""Backoff: waits that grow, are capped, and are drawn from zero on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.repair.backoff import Backoff, backoff_of
from readmodel_pipelines.settings import Settings

seconds = st.floats(0, 1e6)


def longest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_by_default_the_waits_double_from_half_a_minute_up_to_an_hour() -> None:
    assert backoff_of(Settings()).delays(longest) == [30, 60, 120, 240, 480, 960, 1920]
    assert Backoff(30, 2, 3600, 12).delays(longest)[6:] == [1920, 3600, 3600, 3600, 3600]


def test_the_settings_decide() -> None:
    settings = Settings(
        repair_backoff_seconds=1, repair_backoff_factor=3, repair_backoff_cap_seconds=5, repair_attempts=4
    )
    assert backoff_of(settings).delays(longest) == [1, 3, 5]


def test_one_attempt_has_no_wait_behind_it() -> None:
    assert Backoff(30, 2, 3600, 1).delays(longest) == []


@given(seconds, st.floats(1, 1e3), seconds, st.integers(1, 1000), st.integers())
def test_every_wait_lies_between_zero_and_the_capped_exponential(
    base: float, factor: float, cap: float, attempts: int, seed: int
) -> None:
    policy = Backoff(base, factor, cap, attempts)
    most = policy.delays(longest)
    drawn = policy.delays(random.Random(seed).uniform)

    assert len(most) == len(drawn) == attempts - 1
    assert most == sorted(most)
    assert all(0 <= wait <= limit <= cap for wait, limit in zip(drawn, most, strict=True))
