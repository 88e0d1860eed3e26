"""The differential campaign: 50 seeds of 500 streams each, in which every verb agrees with a second implementation."""

import uuid

import pytest

from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.campaign.trial import Trial
from readmodel_pipelines_tests.support.campaign.verbs import play


@pytest.mark.parametrize("seed", range(50))
def test_every_verb_agrees_with_a_second_implementation(mongodb_uri: str, seed: int) -> None:
    settings = Settings(mongodb_uri=mongodb_uri, database=f"campaign_{uuid.uuid4().hex[:12]}")
    with open_database(settings) as database:
        play(Trial(database, settings, seed, number=500))
        database.client.drop_database(database.name)
