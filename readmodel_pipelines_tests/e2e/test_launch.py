"""`--launch` with a real web server and a real daemon: the run is theirs, and the command follows it."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import pytest
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from readmodel_pipelines.cli.dagster import follow, launch
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import environment_of
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers.dagster_daemon import wait_until
from readmodel_pipelines_tests.support.servers.dagster_web import services
from readmodel_pipelines_tests.support.verbs.command_line import readmodel
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, TASKS, with_events

PROGRAM = [sys.executable, "-m", "readmodel_pipelines.cli.main"]


@dataclass(frozen=True)
class Dagster:
    """A web server and a daemon on one instance."""

    url: str
    instance: dg.DagsterInstance

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        # No database: a command that launches needs none.
        env = {name: value for name, value in os.environ.items() if not name.startswith("READMODEL_")}
        return subprocess.Popen(
            [*PROGRAM, *arguments, "--launch"],
            env=env | {"READMODEL_DAGSTER_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_of(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def settings(mongodb_uri: str) -> Settings:
    """One database for the module: the daemon's runs have it from the environment."""
    return Settings(mongodb_uri=mongodb_uri, database=f"test_{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def dagster(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("dagster")
    with services(home, environment_of(settings)) as started:
        started.start_web_server()
        started.start_daemon()
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Dagster(started.address, instance)


def test_runs_are_launched_as_the_web_ui_launches_them_and_followed_and_left_alone_on_ctrl_c(
    dagster: Dagster, database: Mongo, settings: Settings
) -> None:
    with_events(database, settings, list(chat_events(30, seed=5, mean_events=6)))
    with dagster.start("rebuild-readmodel", "--type", "all", "--all", "--json") as rebuilding:
        stdout, stderr = rebuilding.communicate(timeout=120)
    assert rebuilding.returncode == 0, stderr
    chats, tasks = json.loads(stdout)["runs"]
    assert (chats["status"], chats["metadata"]["inserted"]) == ("success", 30)
    assert f"{CHATS}: 30 aggregates compared: 30 missing; written: 30 inserted." in chats["said"]
    assert tasks["partition"] == "task"
    assert f"rebuild_read_models of chat (run {chats['run_id'][:8]}) is launched: {dagster.url}/runs/" in stderr
    assert "task: Rebuilding tasks_read_model" in stderr, "its log comes along"
    assert database[CHATS].count_documents({}) == 30
    assert database[TASKS].count_documents({}) > 0
    tags = dagster.run_of(chats["run_id"]).tags
    assert tags["dagster/partition"] == tags["readmodel/rebuild"] == tags["readmodel/aggregate_type"] == "chat"

    database[CHATS].update_one({}, {"$set": {"title": "wrong"}})
    with (
        dagster.start("verify-consistency", "--type", "chat", "--all", "--read-only") as verifying,
        dagster.start("verify-consistency", "--type", "task", "--all", "--read-only") as left,
    ):
        assert left.stderr is not None
        launched = left.stderr.readline()
        left.send_signal(signal.SIGINT)
        _, told = left.communicate(timeout=240)
        stdout, stderr = verifying.communicate(timeout=120)
    assert verifying.returncode == 1, stderr
    assert "chats_read_model: 1 of 30 aggregates are not as their events say: 1 different." in stdout
    run_id = launched.strip().rpartition("/")[2]
    assert left.returncode == 130
    assert f"No longer following; verify_read_models of task (run {run_id[:8]}) goes on." in told
    assert f"{dagster.url}/runs/{run_id}" in told
    wait_until(lambda: dagster.run_of(run_id).is_finished)
    assert dagster.run_of(run_id).is_success


# What the runs are asked for, without launching them.

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
    schema = create_schema().graphql_schema
    queries = [launch._LOCATIONS, launch._TAGS, launch._LAUNCH, follow._NEWS, follow._DAEMON]
    assert [error.message for query in queries for error in validate(schema, parse(query))] == []
