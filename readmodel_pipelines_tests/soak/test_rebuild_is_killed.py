"""The long form of `integration/test_rebuild_is_killed.py`: fifty kills."""

from __future__ import annotations

import random

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.trials.killed_rebuilds import kill_and_resume


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_rebuild_that_is_killed_25_times_ends_right(database: Mongo, settings: Settings, strategy: str) -> None:
    seed = random.randrange(2**32)
    at_work = kill_and_resume(database, settings, chats=20_000, kills=25, seed=seed, strategy=strategy, rate=12_000)
    print(f"seed {seed}: {at_work} of 25 were killed in the middle of their ranges")
