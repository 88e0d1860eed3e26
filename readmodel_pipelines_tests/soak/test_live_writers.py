"""The long form of `integration/test_live_writers.py`."""

from __future__ import annotations

import random
from typing import Any

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.trials.beside_writers import rebuild_beside_writers, verify_beside_a_writer


def test_a_minute_of_live_writing_is_no_false_alarm_and_every_damage_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=60, rate=500)
    print(seen)
    assert seen.events >= 25_000
    assert seen.verifications >= 10


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
@pytest.mark.parametrize("run", range(15))
def test_a_rebuild_beside_four_writers_leaves_nothing_wrong(settings: Settings, strategy: Any, run: int) -> None:
    seed = random.randrange(2**20)
    done = rebuild_beside_writers(
        settings, strategy=strategy, seconds=8, writers=4, rate=1_000, seed=seed, quiet_chats=5_000
    )
    print(f"{strategy}, seed {seed}: {done[0]:,} events, {done[1]:,} documents caught up with")
