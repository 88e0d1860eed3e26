"""Races of three verbs at once beside live writers, frozen at any time and right before they write: nothing is wrong.

READMODEL_TEST_SEEDS says how many seeds each form takes, two minutes each.
"""

import os
from pathlib import Path

import pytest

from readmodel_pipelines_tests.support.races.race import Race
from readmodel_pipelines_tests.support.scene import Scene

SEEDS = range(int(os.environ.get("READMODEL_TEST_SEEDS", "20")))


@pytest.mark.parametrize("rollbacks", [False, True], ids=["without rollbacks", "with rollbacks"])
@pytest.mark.parametrize("seed", SEEDS)
def test_verbs_that_race_and_freeze_leave_nothing_wrong(
    scene: Scene, tmp_path: Path, seed: int, rollbacks: bool
) -> None:
    raced = Race(scene.database, scene.settings, seed, tmp_path, rollbacks=rollbacks).run(rounds=5, seconds=15.0)
    print(f"seed {seed}, {'with' if rollbacks else 'without'} rollbacks: {raced.in_words()}")
    assert raced.wrong == []
