"""A moment of the races of `soak/`: verbs at once beside writers, frozen now and then, leave nothing wrong."""

from pathlib import Path

from readmodel_pipelines_tests.support.races.race import Race
from readmodel_pipelines_tests.support.scene import Scene


def test_verbs_that_race_and_freeze_leave_nothing_wrong(scene: Scene, tmp_path: Path) -> None:
    raced = Race(scene.database, scene.settings, 7, tmp_path, rollbacks=True).run(rounds=1, seconds=1.0)
    assert raced.wrong == []
    assert raced.events
