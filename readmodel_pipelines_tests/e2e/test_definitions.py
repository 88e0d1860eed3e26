"""What Dagster loads: complete, described, configured by the files of the checkout, and deaf to the environment."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest
import yaml
from dagster import DagsterEventType
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from readmodel_pipelines.cli.dagster import follow, launch
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.orchestration import config as configs
from readmodel_pipelines.orchestration.config import AggregateConfig
from readmodel_pipelines.projections.registry import built_in, names
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.numbers import ends_of, numbers_in
from readmodel_pipelines_tests.support.pages.terminal import free_port
from readmodel_pipelines_tests.support.verbs.command_line import readmodel
from readmodel_pipelines_tests.support.waiting import wait_until

PROJECT = Path(__file__).parents[2]
STARTING = DagsterEventType.PIPELINE_STARTING
PARTITIONED = ("rebuild_read_models", "verify_read_models")
OF_READ_MODELS = ("rebuild_aggregate", *PARTITIONED, "rebuild_slices", "show_history", "repair_read_models")
JOBS = (*OF_READ_MODELS, "requeue_dead_letters", "purge_dagster_history")
RUN_STATUS_SENSORS = ("free_leases_of_failed_repairs", "free_leases_of_canceled_repairs")
SENSORS = (
    "repair_queue_sensor",
    "watch_verifications",
    "tell_of_failed_checks",
    "tell_of_failed_runs",
    *RUN_STATUS_SENSORS,
)
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
        for field, definition in getattr(schema and schema.config_type, "fields", {}).items():
            yield f"{name}: {field}", definition


def test_the_definitions_load_with_the_jobs_and_assets_of_the_registry() -> None:
    dg.Definitions.validate_loadable(defs)

    assert {job.name for job in defs.resolve_all_job_defs()} >= set(JOBS)
    assert set(assets()) == {"events", "repair_queue", *READ_MODELS}
    assert {item.read_model for item in built_in("chat")} == READ_MODELS


def descriptions() -> Iterator[tuple[str, str | None]]:
    """Whatever has a page, a line or a help text of its own, by what it is, with what it says."""
    for job in defs.resolve_all_job_defs():
        # The one behind the assets' own button has no page.
        if not job.name.startswith("__"):
            yield f"job {job.name}", job.description
        for node in job.graph.nodes:
            yield f"op {node.name}", node.definition.description
    for spec in defs.resolve_all_asset_specs():
        yield f"asset {spec.key.to_user_string()}", spec.description
    for key in defs.resolve_asset_graph().asset_check_keys:
        yield f"check {key.to_user_string()}", defs.resolve_asset_graph().get_check_spec(key).description
    for ticking in (*automation(), *map(defs.resolve_sensor_def, RUN_STATUS_SENSORS)):
        yield f"{type(ticking).__name__} {ticking.name}", ticking.description
    for name, field in config_fields():
        yield f"config {name}", field.description


def automation() -> list[Any]:
    """The sensors and schedules that Dagster lets somebody own: those of run statuses it does not."""
    return [
        *(defs.resolve_sensor_def(name) for name in SENSORS if name not in RUN_STATUS_SENSORS),
        *(item for item in defs.schedules or () if isinstance(item, dg.ScheduleDefinition)),
    ]


def test_the_page_of_the_web_ui_names_everything_that_there_is() -> None:
    page = (PROJECT / "readmodel_pipelines" / "docs" / "web_ui.md").read_text(encoding="utf-8")
    schedules = {item.name for item in defs.schedules or () if isinstance(item, dg.ScheduleDefinition)}
    checks = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    there = {*JOBS, *SENSORS, *READ_MODELS, "repair_queue", *checks, *schedules}
    assert [name for name in sorted(there) if f"`{name}`" not in page] == []


def test_everything_that_a_person_meets_says_what_it_is() -> None:
    said = dict(descriptions())

    assert [name for name, text in said.items() if len((text or "").strip()) < 20] == []
    kinds = {name.partition(" ")[0] for name in said}
    assert kinds == {"job", "op", "asset", "check", "SensorDefinition", "RunStatusSensorDefinition", "config"} | {
        "ScheduleDefinition"
    }
    assert {
        "asset events",
        "op rebuild_assets",
        "op verify_read_model_checks",
        "config mongo: progress_seconds",
    } <= set(said)
    assert "READMODEL_MONGODB_URI" in (graphs()[0].resource_defs["mongo"].description or "")


def test_what_is_launched_or_looked_at_says_what_it_does_to_the_database() -> None:
    said = {name: text or "" for name, text in descriptions() if not name.startswith("config")}
    does = re.compile(r"\b(?:reads?|writes?|changes?|inserts?|deletes?|rebuilds?|appends?|repairs?)\b", re.IGNORECASE)

    assert [name for name, text in said.items() if not does.search(text)] == []


def test_whatever_can_be_owned_has_the_owners_of_the_settings() -> None:
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    owned = [*defs.resolve_all_asset_specs(), *jobs, *automation()]

    assert len(owned) == 4 + len(JOBS) + 4 + 4
    assert [item for item in owned if list(item.owners or ()) != ["team:read-models"]] == []


@pytest.mark.parametrize("owner", ["team:chat", "team:chat-and_tasks.2", "jane.doe+oncall@example.co.uk"])
def test_owners_that_the_settings_take_are_taken_by_dagster(owner: str) -> None:
    assert Settings(owners=owner).owners == owner
    assert list(dg.AssetSpec("owned", owners=[owner]).owners) == [owner]


@pytest.mark.parametrize("name", ["rebuild_aggregate", "show_history"])
def test_a_job_over_one_aggregate_launches_nothing_until_an_id_is_typed(name: str) -> None:
    job = defs.resolve_job_def(name)
    (op,) = (node.name for node in job.graph.nodes)

    assert not job.run_config
    with pytest.raises(dg.DagsterInvalidConfigError, match="aggregate_id"):
        dg.validate_run_config(job, {"ops": {op: {"config": {}}}})
    assert dg.validate_run_config(job, {"ops": {op: {"config": {"aggregate_id": "x"}}}})


def test_every_config_field_has_a_default_or_says_what_to_give() -> None:
    fields = dict(config_fields())

    assert len(fields) >= 8
    required = {name for name, field in fields.items() if field.is_required}
    assert required == {"rebuild_one_aggregate: aggregate_id", "show_history_of_aggregate: aggregate_id"}
    assert "for example" in str(fields["rebuild_one_aggregate: aggregate_id"].description)


@pytest.mark.parametrize("source", ["chat", "task"])
def test_partitions_and_aggregate_types_are_the_names_of_the_registry(source: Any) -> None:
    registered = names(built_in(source))

    assert get_args(AggregateConfig.model_fields["aggregate_type"].annotation) == (*registered, "all")
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


def test_read_models_and_the_queue_are_made_from_the_events_and_only_read_models_are_materializable() -> None:
    graph = defs.resolve_asset_graph()
    materializable = {key.to_user_string() for key in graph.materializable_asset_keys}

    assert materializable == READ_MODELS
    for made in (*READ_MODELS, "repair_queue"):
        assert [key.to_user_string() for key in graph.get(dg.AssetKey(made)).parent_keys] == ["events"]
    versions = {name: spec.code_version for name, spec in assets().items() if name in READ_MODELS}
    assert versions == {item.read_model: str(item.schema_version) for item in built_in("chat")}
    assert [name for name, spec in assets().items() if spec.kinds != {"mongodb"}] == []
    tagged = {name: spec.tags.get("readmodel/aggregate_type") for name, spec in assets().items()}
    assert tagged == {"events": None, "repair_queue": None, "chats_read_model": "chat", "tasks_read_model": "task"}
    assert {spec.group_name for spec in assets().values()} == {"application", "read_models", "repair"}


def test_every_sensor_is_on_and_a_repair_run_can_neither_hang_for_a_day_nor_be_retried_by_dagster() -> None:
    loaded = [defs.resolve_sensor_def(name) for name in SENSORS]
    off = [sensor.name for sensor in loaded if sensor.default_status is not dg.DefaultSensorStatus.RUNNING]
    assert off == ["tell_of_failed_checks", "tell_of_failed_runs"], "the settings name nobody to tell"
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


def test_the_checkout_s_instance_lets_one_rebuild_of_a_read_model_run_and_retries_crashes_only(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        (limit,) = (item for item in queue.tag_concurrency_limits if item["key"] == "readmodel/rebuild")
        assert (limit["limit"], limit["value"]) == (1, {"applyLimitPerUniqueValue": True})
        held, free = (
            defs.resolve_job_def(job).get_tags_for_partition_key("chat", selected_asset_keys=None)
            for job in PARTITIONED
        )
        assert held[limit["key"]].startswith("chat@")
        assert limit["key"] not in free

        assert instance.run_retries_enabled
        assert instance.get_settings("run_retries")["retry_on_asset_or_op_failure"] is False
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds > 0
        assert instance.telemetry_enabled is False


def test_a_repair_starts_while_slices_of_a_backfill_run_and_more_of_them_wait(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    code = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(executable_path="python"), "ours")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        def add(job: str, status: dg.DagsterRunStatus, tags: Mapping[str, str]) -> str:
            origin = RemoteRepositoryOrigin(code, "__repository__").get_job_origin(job)
            run = dg.DagsterRun(job, status=status, remote_job_origin=origin, tags=tags)
            return instance.add_run(run).run_id

        def next_to_start() -> list[str]:
            daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
            runs = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
            return [run.run_id for run in runs]

        def wait(job: str, partition: str | None = None) -> str:
            known = defs.resolve_job_def(job)
            named = known.get_tags_for_partition_key(partition, selected_asset_keys=None) if partition else {}
            backfill = {"dagster/backfill": "b"} if partition else {}
            return add(job, dg.DagsterRunStatus.QUEUED, {**known.tags, **named, **backfill})

        slices = [wait("rebuild_slices", f"chat_{number:02d}_of_16") for number in range(1, 17)]
        assert next_to_start() == slices[:3], "a backfill alone"
        repair = wait("repair_read_models")
        assert next_to_start() == [repair, *slices[:3]]
        for run_id in slices[:3]:
            instance.report_dagster_event(dg.DagsterEvent(STARTING.value, "rebuild_slices"), run_id)
        assert next_to_start() == [repair], "a backfill that runs already"


def test_the_checkout_loads_without_a_warning_of_ours_and_without_reading_a_setting() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate"],
        cwd=PROJECT,
        env={**os.environ, "READMODEL_TASK_SOURCE": "no such source", "READMODEL_TIMEZONE": "Mars/Olympus"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert "Validation successful for code location readmodel_pipelines" in said
    # Dagster speaks of the successor of this very command.
    warned = [line for line in said.splitlines() if "Warning" in line and "definitions_validate_command" not in line]
    assert warned == []


@pytest.mark.whole
def test_the_command_of_readme_md_serves_the_web_ui_of_a_checkout(tmp_path: Path) -> None:
    # As README.md and web_ui.md have it, but for the port.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("READMODEL_", "DAGSTER_"))}
    port = free_port()
    with subprocess.Popen(
        [Path(sys.executable).parent / "dg", "dev", "--port", str(port)],
        cwd=PROJECT,
        env={**clean, "READMODEL_DATA_DIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:

        def answers() -> bool:
            assert process.poll() is None, "it ended by itself"
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
                return bool(answer.status == 200)
            return False

        try:
            wait_until(answers)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


# What `--launch` asks of them

WANTED = [
    ("rebuild_read_models", "rebuild-readmodel --type all --all --strategy shadow --off-peak --allow-deletions"),
    ("rebuild_read_models", "rebuild-readmodel --type chat --all --dry-run --max-findings 7"),
    ("rebuild_aggregate", "rebuild-readmodel --type chat --id 6f1c2d3e-0000-4000-8000-000000000001"),
    ("verify_read_models", "verify-consistency --type all --all --sample 5 --bucket 1/7 --since last"),
    ("verify_read_models", "verify-consistency --type chat --all --enqueue-repairs --max-findings 7"),
    ("repair_read_models", "repair-queue work --limit 1 --batch-size 2 --id x"),
]


@pytest.mark.parametrize(("job", "line"), WANTED)
def test_the_jobs_take_the_config_that_is_given_to_them(job: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[follow.Run] = []
    monkeypatch.setattr(launch, "launch_runs", lambda _settings, _verb, wanted: bool(runs.extend(wanted)) or True)
    assert readmodel(*line.split(), "--launch").exit_code == 0
    assert len(runs) == (2 if "--type all" in line else 1)
    for wanted in runs:
        assert wanted.job == job
        found = defs.resolve_job_def(job)
        taken = dg.validate_run_config(found, {"ops": {wanted.op: {"config": wanted.config}}})
        assert taken["ops"][wanted.op]["config"].items() >= wanted.config.items()
        partitions = found.partitions_def
        assert (wanted.partition in partitions.get_partition_keys()) if partitions else not wanted.partition


def test_the_installed_web_server_knows_every_query() -> None:
    # Two seconds, which processes that run other tests need not spend.
    from dagster_graphql.schema import create_schema
    from graphql import parse, validate

    schema = create_schema().graphql_schema
    queries = [launch._LOCATIONS, launch._TAGS, launch._LAUNCH, follow._NEWS, follow._DAEMON]
    assert [error.message for query in queries for error in validate(schema, parse(query))] == []


def kinds_of(kind: type[configs.Config]) -> Iterator[type[configs.Config]]:
    for below in kind.__subclasses__():
        yield below
        yield from kinds_of(below)


NUMBERS = [
    pytest.param(kind, name, field, id=f"{kind.__name__}.{name}")
    for kind in dict.fromkeys(kinds_of(configs.Config))
    for name, field in kind.model_fields.items()
    if numbers_in(field.annotation)
]


@pytest.mark.parametrize(("kind", "name", "field"), NUMBERS)
def test_a_number_of_a_launch_has_a_range_that_its_description_says(kind: Any, name: str, field: Any) -> None:
    lowest, highest = ends_of(field)
    assert {str(lowest), str(highest)} <= set(re.findall(r"\d+", field.description))
    for mistyped in (float("inf"), float("nan"), -float("inf"), 1e30, 10**30, int("9" * 4_000), -1, "", "five", [1]):
        with pytest.raises(dg.Failure) as refused:
            kind(**{name: mistyped})
        assert f"{name} is " in str(refused.value.description)
        assert len(str(refused.value.description)) < 500
