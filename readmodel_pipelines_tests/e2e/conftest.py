"""What the tests of Dagster share: Dagster in this process, the environment of the test's database, sample events."""

from collections.abc import Iterator

import dagster as dg
import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import name_database
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import SAMPLE, Dagster, with_events


@pytest.fixture(scope="session")
def ephemeral() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def dagster(ephemeral: dg.DagsterInstance) -> Iterator[Dagster]:
    """Knows nothing of what other tests ran; to make an instance anew costs more than many a run."""
    yield Dagster(ephemeral)
    ephemeral.wipe()


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    name_database(monkeypatch, settings)


@pytest.fixture
def sample(database: Mongo, settings: Settings) -> Mongo:
    """The database with the events of forty chats and nothing made from them yet."""
    return with_events(database, settings, SAMPLE)
