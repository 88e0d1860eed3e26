"""The short form of the differential campaign: a second implementation that shares no code agrees with every verb."""

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.campaign.trial import Trial
from readmodel_pipelines_tests.support.campaign.verbs import play
from readmodel_pipelines_tests.support.scene import Mongo


@pytest.mark.parametrize("seed", [0, 1], ids=["tasks from chats", "tasks from task streams"])
def test_every_verb_agrees_with_a_second_implementation(database: Mongo, settings: Settings, seed: int) -> None:
    play(Trial(database, settings, seed, number=40, slow=3), processes=False)
