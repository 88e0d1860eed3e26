"""The Dagster jobs and assets on documents that the real application wrote."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    BOTH,
    CHATS,
    NEVER_COUNTED,
    TASKS,
    materialize,
    materialized,
    observed,
    recorded,
    run,
    stored,
    typed,
    with_events,
)


@pytest.fixture
def recorded_events(database: Mongo, settings: Settings, corpus: Path) -> Mongo:
    return with_events(database, settings, read_documents(corpus / "small" / "events.jsonl.gz"))


def test_partition_runs_make_both_read_models_as_the_application_wrote_them(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    for partition, read_model in BOTH:
        result = run(instance, "rebuild_read_models", partition)
        assert result.success
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert materialized(instance, result)[read_model]["dagster/row_count"] == len(
            recorded(corpus / "small", read_model)
        )

        again = materialized(instance, run(instance, "rebuild_read_models", partition))[read_model]
        assert (again["inserted"], again["replaced"], again["deleted"]) == (0, 0, 0)
        assert again["same"] == again["checked"] == 200

        verified = run(instance, "verify_read_models", partition)
        assert verified.success
        assert observed(instance, verified)[read_model]["same"] == 200


def test_materialized_assets_are_as_the_application_wrote_them_in_one_pass(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    result = materialize(instance, CHATS, TASKS)
    assert result.success
    for _, read_model in BOTH:
        assert stored(recorded_events, read_model) == recorded(corpus / "small", read_model)
        assert materialized(instance, result)[read_model]["events"] == recorded_events.events.count_documents({})


def test_an_aggregate_alone_is_rebuilt_as_the_application_wrote_it(
    recorded_events: Mongo, instance: dg.DagsterInstance, corpus: Path
) -> None:
    for aggregate_type, read_model in BOTH:
        right = recorded(corpus / "small", read_model)
        chosen = sorted(right)[:: len(right) // 4]
        for aggregate_id in chosen:
            assert run(instance, "rebuild_aggregate", aggregate_type=aggregate_type, aggregate_id=aggregate_id).success
        assert stored(recorded_events, read_model) == {aggregate_id: right[aggregate_id] for aggregate_id in chosen}


def test_legacy_task_streams_give_the_tasks_that_their_repository_wrote(
    database: Mongo,
    legacy_settings: Settings,
    instance: dg.DagsterInstance,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    folder = corpus / "legacy_tasks"
    with_events(database, legacy_settings, read_documents(folder / "events.jsonl.gz"))
    versions = {item["task_id"]: item["version"] for item in read_documents(folder / "tasks_read_model.jsonl.gz")}
    right = read_documents(folder / "tasks_written_by_repository.jsonl.gz")
    uncounted = database.events.distinct("aggregate_id", {"event_type": {"$in": list(NEVER_COUNTED)}})
    for document in right:
        if document["task_id"] in uncounted:
            document["version"] = versions[document["task_id"]]

    assert run(instance, "rebuild_read_models", "task").success
    assert stored(database, TASKS) == typed(right, "task_id")
    assert run(instance, "verify_read_models", "task").success
