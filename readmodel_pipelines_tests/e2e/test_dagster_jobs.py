"""The Dagster jobs and assets against a real MongoDB: what they write and what they record."""

from __future__ import annotations

from uuid import uuid4

import dagster as dg
import pytest
from dagster import DagsterEventType

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    BOTH,
    CHATS,
    SAMPLE,
    TASKS,
    log_of,
    materialize,
    materialized,
    observed,
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
    plotted = set(said) - {"verb", "findings", "outcomes", "rebuild", "strategy", "state"}
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
    said = observed(instance, result)[CHATS]
    assert (said["aggregate_id"], said["outcome"], said["written"]) == (chat_id, "missing", "inserted")
    assert "chats_read_model: 1 aggregates compared: 1 missing; written: 1 inserted." in log_of(instance, result)


def test_one_aggregate_neither_renews_its_read_model_nor_is_drawn_into_its_plots(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    result = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=SAMPLE[0]["aggregate_id"])

    assert not materialized(instance, result)
    assert [name for name, value in observed(instance, result)[CHATS].items() if type(value) in (int, float)] == []


def test_runs_over_an_aggregate_and_over_a_read_model_are_found_by_their_tags_whoever_launched_them(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance
) -> None:
    chat_id, other = SAMPLE[0]["aggregate_id"], SAMPLE[-1]["aggregate_id"]
    one = run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=f" {chat_id.upper()}")
    run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id=other)
    assert not run(instance, "rebuild_aggregate", aggregate_type="chat", aggregate_id="no id").success
    asset = materialize(instance, CHATS)
    materialize(instance, CHATS, TASKS)
    queue = RepairQueue(sample, settings)
    queue.add(chat_id, "chat")
    repair = run(instance, "repair_read_models")
    queue.add(chat_id, "chat")
    queue.add(other, "chat")
    assert run(instance, "repair_read_models").success

    def found(**tags: str) -> set[str]:
        filters = dg.RunsFilter(tags={f"readmodel/{name}": value for name, value in tags.items()})
        return {item.run_id for item in instance.get_runs(filters)}

    assert found(aggregate_id=chat_id) == {one.run_id, repair.run_id}
    assert asset.run_id in found(aggregate_type="chat")
    assert len(found(aggregate_type="chat")) == 4


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


def test_a_run_logs_its_progress_with_outcomes_and_its_phases(sample: Mongo, instance: dg.DagsterInstance) -> None:
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, run_config={"resources": {"mongo": {"config": {"progress_seconds": 0}}}}
    )

    said = log_of(instance, result)
    assert f"{len(SAMPLE):,} of about {len(SAMPLE):,} events read" in said
    assert "chats_read_model: 40 missing" in said
    phases = ["1 of 1 ranges to do, by this process.", "Every range is done.", "Catch-up: "]
    assert [phase for phase in phases if phase in said] == phases
    assert sorted(phases, key=said.index) == phases
    assert "events read" not in log_of(instance, materialize(instance, CHATS))


def test_a_shadow_logs_its_gate_and_its_swap(sample: Mongo, instance: dg.DagsterInstance) -> None:
    said = log_of(instance, run(instance, "rebuild_read_models", "chat", strategy="shadow"))

    phases = ["Every range is done.", "Gate: ", "A copy of the live collection", "Swap: ", "Catch-up: "]
    assert sorted(phases, key=said.index) == phases


def test_a_run_ends_with_a_table_of_outcomes_by_read_model(sample: Mongo, instance: dg.DagsterInstance) -> None:
    sample[CHATS].insert_one({"chat_id": str(uuid4())})
    lines = {
        line.data["outcome or write"]: line.data
        for line in materialized(instance, materialize(instance, CHATS, TASKS))[CHATS]["outcomes"].records
    }

    assert (lines["missing"][CHATS], lines["orphan"][CHATS], lines["deleted"][CHATS]) == (40, 1, 1)
    tasks = sample[TASKS].count_documents({})
    assert (lines["inserted"][CHATS], lines["inserted"][TASKS], lines["same"][TASKS]) == (40, tasks, 40 - tasks)
    assert all(line["meaning"] for line in lines.values())
    verified = run(instance, "verify_read_models", "chat")
    written = {line.data["outcome or write"] for line in observed(instance, verified)[CHATS]["outcomes"].records}
    assert "inserted" not in written
