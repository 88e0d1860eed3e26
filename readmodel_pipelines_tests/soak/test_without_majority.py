"""A replica set of three loses its majority while commands work: each ends with words, and is done again afterwards.

READMODEL_MONGOD names the program that the members are.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bson import ObjectId
from pydantic import SecretStr
from pymongo.errors import ConnectionFailure

from readmodel_pipelines.batched import batched
from readmodel_pipelines.mongo.changes import changes_since, token_of_now
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.processes.stalled_program import Program, stalled_program
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.servers.three_members import ThreeMembers, three_members
from readmodel_pipelines_tests.support.trials.without_majority import losses, lost
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow

_AT_ONCE = 48


@pytest.fixture(scope="module")
def them() -> Iterator[ThreeMembers]:
    with three_members() as them:
        yield them


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with stalled_program(tmp_path) as program:
        yield program


def test_changes_are_not_waited_for_that_no_majority_will_ever_have(them: ThreeMembers) -> None:
    settings = Settings(mongodb_uri=SecretStr(them.uri), database=f"changes_{ObjectId()}", failover_seconds=1)
    with open_database(settings) as database:
        events = Scene(database, settings).events
        events.insert_one({})
        token = token_of_now(events)
        with them.without_majority():
            them.write_hastily()
            with pytest.raises(ConnectionFailure):
                changes_since(events, ["Chat"], token)
    them.wait_until_whole()


def test_every_command_that_loses_the_majority_ends_with_words(program: Program, them: ThreeMembers) -> None:
    told = lost(program, them, losses(program, them, most=2))
    assert told.ended
    assert told.wrong == []


def test_a_shadow_needs_a_majority_and_not_every_member(them: ThreeMembers) -> None:
    settings = Settings(mongodb_uri=SecretStr(them.uri), database=f"shadow_{ObjectId()}")
    with open_database(settings) as database:
        scene = Scene(database, settings)
        scene.fill(12)
        primary = them.primary()
        follower = next(item for item in them.members if item is not primary)
        follower.kill()
        try:
            assert in_shadow(scene).about["state"] == "done"
        finally:
            follower.start()
    them.wait_until_whole()


@pytest.mark.whole
def test_so_it_does_wherever_it_is_in_its_work(program: Program, them: ThreeMembers) -> None:
    every = losses(program, them)
    told = [lost(program, them, some) for some in batched(every, _AT_ONCE)]
    print(f"{len(every)} losses, {sum(item.ended for item in told)} ended for one")
    assert [each for item in told for each in item.wrong] == []
