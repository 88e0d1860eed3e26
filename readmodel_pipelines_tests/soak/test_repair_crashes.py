"""The long form of `integration/test_repair_crashes.py`."""

from __future__ import annotations

import random

from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.trials.killed_workers import kill_at_random_moments


def test_workers_killed_at_fifty_random_moments_lose_nothing_and_leave_nothing_wrong(scene: Scene) -> None:
    seed = random.randrange(2**20)
    print(f"seed {seed}")
    kill_at_random_moments(scene, kills=50, seed=seed)
