"""A rebuild by several processes that is killed in the middle; the long form is in `soak/`."""

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.trials.killed_rebuilds import kill_and_resume


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_rebuild_that_is_killed_ends_right_and_does_nothing_from_its_start_again(
    database: Mongo, settings: Settings, strategy: str
) -> None:
    kill_and_resume(database, settings, chats=800, kills=1, seed=7, strategy=strategy, rate=4_000)
