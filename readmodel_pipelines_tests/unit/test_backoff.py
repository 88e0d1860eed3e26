"""Backoff: waits that grow, are capped, and are drawn from zero on."""

import random

from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.repair.worker import delays
from readmodel_pipelines.settings import Settings

seconds = st.floats(0, 1e6)


def longest(low: float, high: float) -> float:
    assert low == 0.0
    return high


def policy(base: float, factor: float, cap: float, attempts: int) -> Settings:
    return Settings(
        repair_backoff_seconds=base,
        repair_backoff_factor=factor,
        repair_backoff_cap_seconds=cap,
        repair_attempts=attempts,
    )


def test_by_default_the_waits_double_from_half_a_minute_up_to_an_hour() -> None:
    assert delays(Settings(), longest) == [30, 60, 120, 240, 480, 960, 1920]
    assert delays(policy(30, 2, 3600, 12), longest)[6:] == [1920, 3600, 3600, 3600, 3600]


def test_the_settings_decide() -> None:
    assert delays(policy(1, 3, 5, 4), longest) == [1, 3, 5]


@given(seconds, st.floats(1, 1e3), seconds, st.integers(1, 1000), st.integers())
def test_waits_are_capped_and_drawn_from_zero(base: float, factor: float, cap: float, attempts: int, seed: int) -> None:
    settings = policy(base, factor, cap, attempts)
    most = delays(settings, longest)
    drawn = delays(settings, random.Random(seed).uniform)

    assert len(most) == len(drawn) == attempts - 1
    assert most == sorted(most)
    assert all(0 <= wait <= limit <= cap for wait, limit in zip(drawn, most, strict=True))
