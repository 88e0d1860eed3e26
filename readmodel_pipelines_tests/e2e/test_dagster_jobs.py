"""The Dagster jobs and assets against a real MongoDB: what they write and what they record."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest
from dagster import DagsterEventType

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.orchestration.metadata import Progress
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.e2e.runs import (
    BOTH,
    CHATS,
    SAMPLE,
    TASKS,
    Mongo,
    log_of,
    materialize,
    materialized,
    run,
    values,
    with_events,
)


@pytest.mark.parametrize(("partition", "read_model"), BOTH)
def test_runs_of_a_partition_carry_its_aggregate_type_and_only_rebuilds_the_tag_that_makes_them_wait(
    sample: Mongo, instance: dg.DagsterInstance, partition: str, read_model: str
) -> None:
    rebuild = run(instance, "rebuild_read_models", partition).dagster_run.tags
    verify = run(instance, "verify_read_models", partition).dagster_run.tags

    assert (rebuild["readmodel/aggregate_type"], rebuild["readmodel/rebuild"]) == (partition, partition)
    assert verify["readmodel/aggregate_type"] == partition
    assert "readmodel/rebuild" not in verify


@pytest.mark.parametrize(("partition", "read_model"), BOTH)
def test_a_rebuild_records_numbers_to_plot_on_the_asset_of_its_read_model_only(
    sample: Mongo, instance: dg.DagsterInstance, partition: str, read_model: str
) -> None:
    result = run(instance, "rebuild_read_models", partition)

    assert set(materialized(instance, result)) == {read_model}
    said = materialized(instance, result)[read_model]
    documents = sample[read_model].count_documents({})
    assert (said["verb"], said["checked"], said["inserted"]) == ("rebuild", 40, documents)
    assert (said["missing"], said["discrepancies"], said["dagster/row_count"]) == (documents,) * 3
    assert said["events"] == len(SAMPLE)
    slowest, fastest = said["seconds"] + 0.001, max(said["seconds"] - 0.001, 1e-9)
    assert said["events"] / slowest < said["events_per_second"] < said["events"] / fastest
    assert (said["strategy"], said["state"]) == ("in_place", "done")
    plotted = set(said) - {"verb", "findings", "rebuild", "strategy", "state"}
    assert all(type(said[name]) in (int, float) for name in plotted)
    assert plotted >= {"same", "different", "unexpected", "orphan", "malformed"}
    assert plotted >= {"replaced", "deleted", "superseded", "failed"}
    assert f"{documents} inserted" in log_of(instance, result)


def test_materializing_one_asset_writes_that_read_model_alone(sample: Mongo, instance: dg.DagsterInstance) -> None:
    result = materialize(instance, TASKS)

    assert result.success
    assert set(materialized(instance, result)) == {TASKS}
    assert sample[TASKS].count_documents({}) > 0
    assert sample[CHATS].count_documents({}) == 0


def test_a_dry_run_writes_nothing_records_no_materialization_and_predicts_the_rebuild(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    dry = run(instance, "rebuild_read_models", "chat", dry_run=True)

    assert dry.success
    assert not materialized(instance, dry)
    assert sample[CHATS].count_documents({}) == 0
    (output,) = [event for event in dry.all_events if event.event_type is DagsterEventType.STEP_OUTPUT]
    predicted = values(output.step_output_data.metadata)
    done = materialized(instance, run(instance, "rebuild_read_models", "chat"))[CHATS]
    counts = ("checked", "same", "missing", "inserted", "replaced", "deleted", "failed")
    assert predicted["verb"] == "dry_run"
    assert {name: predicted[name] for name in counts} == {name: done[name] for name in counts}


def test_a_dry_run_of_one_aggregate_writes_nothing(sample: Mongo, instance: dg.DagsterInstance) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    dry = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id, dry_run=True)

    assert dry.success
    assert not materialized(instance, dry)
    assert sample[CHATS].count_documents({}) == 0
    assert "a rebuild would write: 1 inserted" in log_of(instance, dry)


def test_rebuilding_one_aggregate_records_its_summary_and_says_the_outcome(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    chat_id = SAMPLE[0]["aggregate_id"]
    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=chat_id)

    assert [item["chat_id"] for item in sample[CHATS].find()] == [chat_id]
    said = materialized(instance, result)[CHATS]
    assert (said["aggregate_id"], said["checked"], said["inserted"]) == (chat_id, 1, 1)
    assert "dagster/row_count" not in said
    assert "chats_read_model: 1 aggregates compared: 1 missing; written: 1 inserted." in log_of(instance, result)


def test_legacy_tasks_are_rebuilt_in_the_partition_of_tasks(
    database: Mongo, legacy_settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    with_events(database, legacy_settings, [*chat_events(5), *task_events(7)])

    result = materialize(instance, CHATS, TASKS)
    assert result.success
    assert (materialized(instance, result)[CHATS]["inserted"], materialized(instance, result)[TASKS]["inserted"]) == (
        5,
        7,
    )
    assert run(instance, "verify_read_models", "task").success


def test_progress_is_told_by_time_with_rate_and_what_is_left() -> None:
    told: list[str] = []
    clock = iter([0.0, 1.0, 4.9, 5.0, 6.0, 10.0])
    now: Callable[[], float] = lambda: next(clock)  # noqa: E731
    progress = Progress(told.append, every=5.0, now=now)
    for done in (10_000, 49_000, 50_000, 60_000, 100_000):
        progress(done, 200_000)

    assert told == [
        "50,000 of about 200,000 events read, 10,000 events/s, about 15 s left.",
        "100,000 of about 200,000 events read, 10,000 events/s, about 10 s left.",
    ]


def test_a_run_logs_its_progress(sample: Mongo, instance: dg.DagsterInstance) -> None:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, run_config={"resources": {"mongo": {"config": {"progress_seconds": 0}}}}
    )

    assert f"{len(SAMPLE):,} of about {len(SAMPLE):,} events read" in log_of(instance, result)
    assert "events read" not in log_of(instance, materialize(instance, CHATS))
