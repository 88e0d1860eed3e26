"""Full rebuilds through Dagster: the strategies, resuming by launching again, slices, the off-peak schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, TASKS, materialize, materialized, run, sentence


def records(database: Mongo) -> list[dict[str, Any]]:
    return list(database[REBUILDS].find({"kind": "rebuild"}).sort("started_at"))


def slices(instance: dg.DagsterInstance, name: str, backfill: str) -> list[dg.ExecuteInProcessResult]:
    """A run for each slice of a read model, one after the other, as a backfill launches them."""
    job = defs.resolve_job_def("rebuild_slices")
    assert job.partitions_def is not None
    keys = [key for key in job.partitions_def.get_partition_keys() if key.startswith(f"{name}_")]
    assert len(keys) == 16
    return [
        job.execute_in_process(instance=instance, partition_key=key, tags={"dagster/backfill": backfill})
        for key in keys
    ]


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_the_job_rebuilds_with_either_strategy(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance, strategy: str
) -> None:
    result = run(instance, "rebuild_read_models", "task", strategy=strategy)
    assert result.success
    said = materialized(instance, result)[TASKS]
    assert (said["strategy"], said["state"], said["inserted"]) == (strategy, "done", said["dagster/row_count"])
    assert ReadModelProjector(sample, settings, "task").verify_all().ok


def test_a_partition_that_is_launched_again_goes_on_where_it_was(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    monkeypatch.setenv(
        "READMODEL_OFF_PEAK_WINDOW", f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    )
    paused = run(instance, "rebuild_read_models", "chat", off_peak=True)
    assert paused.success
    assert materialized(instance, paused)[CHATS]["state"] == "paused"
    done = run(instance, "rebuild_read_models", "chat")
    assert materialized(instance, done)[CHATS]["state"] == "done"
    assert [record["runs"] for record in records(sample)] == [2]
    assert ReadModelProjector(sample, settings, "chat").verify_all().ok


def test_refused_deletions_fail_the_run_in_words(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert ReadModelProjector(sample, settings).rebuild_all().ok
    sample[CHATS].insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(101)])
    refused = run(instance, "rebuild_read_models", "chat", strategy="shadow")
    assert "101" in sentence(refused)
    assert sample[CHATS].count_documents({}) == 141
    assert run(instance, "rebuild_read_models", "chat", strategy="shadow", allow_deletions=True).success
    assert sample[CHATS].count_documents({}) == 40


@pytest.mark.parametrize("strategy", ["in_place"])
def test_all_slices_are_one_rebuild_that_the_last_one_finishes(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance, strategy: str
) -> None:
    results = slices(instance, "chat", "night one")
    assert all(result.success for result in results)
    states = [record["state"] for record in records(sample)]
    assert states == ["done"]
    assert [bool(materialized(instance, result)) for result in results].count(True) >= 1
    assert ReadModelProjector(sample, settings, "chat").verify_all().ok


def test_materializing_in_a_shadow_swaps_both_read_models(
    sample: Mongo, settings: Settings, instance: dg.DagsterInstance
) -> None:
    result = materialize(instance, CHATS, TASKS, strategy="shadow")
    assert result.success
    assert [record["read_models"] for record in records(sample)] == [[CHATS, TASKS]]
    assert ReadModelProjector(sample, settings).verify_all().ok


def test_an_asset_has_the_schema_version_of_its_projection_for_its_code_version() -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    for projection in built_in("chat"):
        assert specs[projection.read_model].code_version == str(projection.schema_version)


def test_the_off_peak_schedule_launches_both_partitions_when_the_window_begins(
    sample: Mongo, instance: dg.DagsterInstance
) -> None:
    schedule = defs.resolve_schedule_def("off_peak_rebuild")
    assert schedule.cron_schedule == "0 22 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 11, 1, 22, tzinfo=UTC), repository_def=defs.get_repository_def()
    )
    requests = schedule.evaluate_tick(context).run_requests or []
    assert [request.partition_key for request in requests] == ["chat", "task"]
    config = requests[0].run_config["ops"]["rebuild_read_model"]["config"]
    assert (config["off_peak"], config["resume"]) == (True, True)
    assert run(instance, "rebuild_read_models", "chat", **{**config, "off_peak": False}).success
