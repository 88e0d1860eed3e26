"""What Dagster loads: complete, described, configured by the files of the checkout, and deaf to the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest
import yaml
from pymongo.database import Database

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.orchestration.jobs import AggregateConfig
from readmodel_pipelines.projections.registry import built_in, names
from readmodel_pipelines.settings import Settings

PROJECT = Path(__file__).parents[2]
PARTITIONED = ("rebuild_read_models", "verify_read_models")
JOBS = ("rebuild_aggregate", *PARTITIONED, "rebuild_slices", "repair_read_models")
SENSORS = ("repair_queue_sensor", "free_leases_of_failed_repairs", "free_leases_of_canceled_repairs")
READ_MODELS = {"chats_read_model", "tasks_read_model"}


def graphs() -> list[dg.JobDefinition]:
    """The jobs, and the one behind the assets' own button."""
    return [*(defs.resolve_job_def(job) for job in JOBS), defs.resolve_implicit_global_asset_job_def()]


def assets() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def config_fields() -> Iterator[tuple[str, Any]]:
    """Every field that the Launchpad offers, by «op or resource: field»."""
    holders = [node.definition for graph in graphs() for node in graph.graph.nodes]
    resources = graphs()[0].resource_defs
    for name, schema in [
        *((holder.name, holder.config_schema) for holder in holders),
        ("mongo", resources["mongo"].config_schema),
    ]:
        for field, definition in getattr(schema.config_type, "fields", {}).items():
            yield f"{name}: {field}", definition


def test_the_definitions_load_with_the_jobs_and_assets_of_the_registry() -> None:
    dg.Definitions.validate_loadable(defs)

    assert {job.name for job in defs.resolve_all_job_defs()} >= set(JOBS)
    assert set(assets()) == {"events", "repair_queue", *READ_MODELS}
    assert {item.read_model for item in built_in("chat")} == READ_MODELS


def test_everything_that_a_person_meets_says_what_it_is() -> None:
    undescribed = [name for name, field in config_fields() if not (field.description or "").strip()]
    undescribed += [graph.name for graph in graphs()[:-1] if not (graph.description or "").strip()]
    undescribed += [
        node.name for graph in graphs() for node in graph.graph.nodes if not (node.definition.description or "").strip()
    ]
    undescribed += [name for name, spec in assets().items() if not (spec.description or "").strip()]
    undescribed += [name for name in SENSORS if not (defs.resolve_sensor_def(name).description or "").strip()]
    checks = [spec for item in defs.asset_checks or () for spec in getattr(item, "check_specs", ())]
    undescribed += [spec.name for spec in checks if not (spec.description or "").strip()]

    assert undescribed == []
    assert "READMODEL_MONGODB_URI" in (graphs()[0].resource_defs["mongo"].description or "")


def test_every_config_field_has_a_default_or_says_what_to_give() -> None:
    fields = dict(config_fields())

    assert len(fields) >= 8
    required = {name for name, field in fields.items() if field.is_required}
    assert required == {"rebuild_one_aggregate: aggregate_type", "rebuild_one_aggregate: aggregate_id"}
    assert "for example" in str(fields["rebuild_one_aggregate: aggregate_id"].description)


@pytest.mark.parametrize("source", ["chat", "task"])
def test_partitions_and_aggregate_types_are_the_names_of_the_registry(source: Any) -> None:
    registered = names(built_in(source))

    assert get_args(AggregateConfig.model_fields["aggregate_type"].annotation) == registered
    for job in PARTITIONED:
        partitions = defs.resolve_job_def(job).partitions_def
        assert partitions is not None
        assert tuple(partitions.get_partition_keys()) == registered


@pytest.mark.parametrize("job", PARTITIONED)
def test_the_config_of_each_partition_is_one_that_the_job_takes(job: str) -> None:
    definition = defs.resolve_job_def(job)
    for partition in names(built_in("chat")):
        config = definition.get_run_config_for_partition_key(partition)
        (op,) = config["ops"].values()
        assert op["config"]["max_findings"] == 50
        assert dg.validate_run_config(definition, config)


def test_read_models_are_made_from_the_events_and_materializable_and_the_events_are_not() -> None:
    graph = defs.resolve_asset_graph()
    materializable = {key.to_user_string() for key in graph.materializable_asset_keys}

    assert materializable == READ_MODELS
    for read_model in READ_MODELS:
        assert [key.to_user_string() for key in graph.get(dg.AssetKey(read_model)).parent_keys] == ["events"]
    assert {kind for spec in assets().values() for kind in spec.kinds} == {"mongodb"}
    assert {spec.group_name for spec in assets().values()} == {"application", "read_models", "repair"}


def test_every_sensor_is_on_and_a_repair_run_can_neither_hang_for_a_day_nor_be_retried_by_dagster() -> None:
    loaded = [defs.resolve_sensor_def(name) for name in SENSORS]
    assert {sensor.default_status for sensor in loaded} == {dg.DefaultSensorStatus.RUNNING}
    assert loaded[0].minimum_interval_seconds == 15
    tags = defs.resolve_job_def("repair_read_models").tags
    assert (tags["dagster/max_retries"], tags["dagster/max_runtime"]) == ("0", "3600")


def test_every_run_works_in_one_process() -> None:
    assert {graph.executor_def.name for graph in graphs()} == {"in_process"}


def test_the_location_has_the_same_name_whichever_way_it_is_started() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    (entry,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    module = entry["python_module"]

    assert module["module_name"] == f"{project['root_module']}.definitions" == "readmodel_pipelines.definitions"
    assert module["location_name"] == project["code_location_name"] == "readmodel_pipelines"


def test_the_instance_of_the_checkout_lets_one_rebuild_of_a_read_model_run_and_retries_crashes_only(
    tmp_path: Path,
) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        (limit,) = queue.tag_concurrency_limits
        assert (limit["limit"], limit["value"]) == (1, {"applyLimitPerUniqueValue": True})
        held, free = (
            defs.resolve_job_def(job).get_tags_for_partition_key("chat", selected_asset_keys=None)
            for job in PARTITIONED
        )
        assert held[limit["key"]] == "chat"
        assert limit["key"] not in free

        assert instance.run_retries_enabled
        assert instance.get_settings("run_retries")["retry_on_asset_or_op_failure"] is False
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds > 0
        assert instance.telemetry_enabled is False


@pytest.mark.parametrize("from_file", [[], ["-w", "workspace.yaml"]], ids=["pyproject.toml", "workspace.yaml"])
def test_the_checkout_loads_without_a_warning_of_ours_and_without_reading_a_setting(from_file: list[str]) -> None:
    ended = dagster("definitions", "validate", *from_file, READMODEL_TASK_SOURCE="no such source")

    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert "Validation successful for code location readmodel_pipelines" in said
    # Dagster speaks of the successor of this very command.
    warned = [line for line in said.splitlines() if "Warning" in line and "definitions_validate_command" not in line]
    assert warned == []


def test_a_process_of_its_own_rebuilds_an_aggregate_with_the_instance_of_the_checkout(
    database: Database[dict[str, Any]], settings: Settings, tmp_path: Path
) -> None:
    assert settings.mongodb_uri is not None
    events = list(chat_events(3))
    ensure_indexes(database, settings, built_in("chat"))
    database.events.insert_many(events)
    chat_id = events[0]["aggregate_id"]
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    config = tmp_path / "config.yaml"
    op = {"config": {"aggregate_type": "chat", "aggregate_id": chat_id}}
    config.write_text(yaml.safe_dump({"ops": {"rebuild_one_aggregate": op}}))

    ended = dagster(
        *("job", "execute", "-m", "readmodel_pipelines.definitions", "-j", "rebuild_aggregate", "-c", str(config)),
        DAGSTER_HOME=str(tmp_path),
        READMODEL_MONGODB_URI=settings.mongodb_uri.get_secret_value(),
        READMODEL_DATABASE=settings.database,
    )

    assert ended.returncode == 0, ended.stderr
    (document,) = database.chats_read_model.find()
    assert (document["chat_id"], document["created_by"]) == (chat_id, events[0]["data"]["created_by"])


def dagster(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Dagster's own command, as from a shell in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
