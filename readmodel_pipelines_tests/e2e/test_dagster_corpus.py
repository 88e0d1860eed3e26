"""The Dagster jobs and assets on documents that the real application wrote."""

from pathlib import Path

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    BOTH,
    CHATS,
    TASKS,
    Dagster,
    recorded,
    stored,
    with_events,
)


@pytest.fixture
def recorded_events(database: Mongo, settings: Settings, corpus: Path) -> Mongo:
    return with_events(database, settings, read_documents(corpus / "small" / "events.jsonl.gz"))


def test_partition_runs_make_what_the_application_wrote(recorded_events: Mongo, dagster: Dagster, corpus: Path) -> None:
    for partition, read_model in BOTH:
        result = dagster.run("rebuild_read_models", partition)
        assert result.success
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert dagster.materialized(result)[read_model]["dagster/row_count"] == len(
            recorded(corpus / "small", read_model)
        )

        again = dagster.materialized(dagster.run("rebuild_read_models", partition))[read_model]
        assert (again["inserted"], again["replaced"], again["deleted"]) == (0, 0, 0)
        assert again["same"] == again["checked"] == 200

        verified = dagster.run("verify_read_models", partition)
        assert verified.success
        assert dagster.observed(verified)[read_model]["same"] == 200


def test_one_pass_materializes_what_the_application_wrote(
    recorded_events: Mongo, dagster: Dagster, corpus: Path
) -> None:
    result = dagster.materialize(CHATS, TASKS)
    assert result.success
    for _, read_model in BOTH:
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert dagster.materialized(result)[read_model]["events"] == recorded_events.events.count_documents({})
