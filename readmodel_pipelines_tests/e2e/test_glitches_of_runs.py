"""What a run of Dagster's cannot outlast has its step tried again, which goes on where it was; a failure has not."""

from collections.abc import Iterator

import pytest
from dagster import DagsterEventType, ExecuteInProcessResult

from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.orchestration import failure
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers.faulty_line import Cut, FaultyLine, faulty_line
from readmodel_pipelines_tests.support.trials.glitches import small_steps
from readmodel_pipelines_tests.support.verbs.dagster_runs import Dagster


@pytest.fixture
def line(mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyLine]:
    """What runs go over from now on; they wait for nothing, nor does Dagster between two tries."""
    with faulty_line(mongodb_uri) as running:
        monkeypatch.setenv("READMODEL_MONGODB_URI", running.uri)
        monkeypatch.setenv("READMODEL_FAILOVER_SECONDS", "0")
        monkeypatch.setattr(failure, "_SECONDS_BETWEEN", 0)
        yield running


def retries(result: ExecuteInProcessResult) -> int:
    return sum(event.event_type is DagsterEventType.STEP_UP_FOR_RETRY for event in result.all_events)


def test_a_run_that_could_not_outlast_a_glitch_goes_on_by_itself_where_it_was(
    sample: Mongo, settings: Settings, dagster: Dagster, line: FaultyLine
) -> None:
    with small_steps():
        with line.cut(None):
            calm = dagster.run("rebuild_read_models", "task", resume=False)
            reads = line.seen["find"]
        assert (calm.success, retries(calm)) == (True, 0)
        # The driver itself tries twice. What happens beside the work now and then (a lease is renewed) finds nothing.
        with line.cut(Cut("find", reads // 2, "reply", times=2)):
            result = dagster.run("rebuild_read_models", "chat", resume=False)
            assert line.cuts == 2
    assert (result.success, retries(result)) == (True, 1)
    records = list(sample[REBUILDS].find({"kind": "rebuild", "names": "chat"}))
    assert [(record["state"], record["runs"]) for record in records] == [("done", 2)]
    assert ReadModelProjector(sample, settings, "chat").verify_all().ok


def test_a_failure_in_words_is_not_tried_again(database: Mongo, dagster: Dagster, line: FaultyLine) -> None:
    result = dagster.run("rebuild_read_models", "chat")
    assert (result.success, retries(result)) == (False, 0)
