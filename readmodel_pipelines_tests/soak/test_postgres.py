"""Dagster as deploying.md and backing_up.md have it, word for word: its processes over a PostgreSQL, upgraded too."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from readmodel_pipelines_tests.e2e.conftest import _environment, sample  # noqa: F401
from readmodel_pipelines_tests.support.pages.blocks import ROOT, Block, blocks_of
from readmodel_pipelines_tests.support.pages.terminal import free_port, marks_of
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers import postgres
from readmodel_pipelines_tests.support.verbs.dagster_runs import BOTH, SAMPLE
from readmodel_pipelines_tests.support.verbs.repairing import task
from readmodel_pipelines_tests.support.waiting import wait_until

PAGE = ROOT / "readmodel_pipelines" / "docs" / "deploying.md"
BACKUP = PAGE.with_name("backing_up.md")
CODE_SERVER, WEB_SERVER = "4266", "3000"
_LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename } }
"""

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not())


class Deployment:
    """What the page says, in `home`, with other ports; the environment of a process holds what the page gives it."""

    def __init__(self, home: Path, socket_folder: str) -> None:
        self.home = home
        self.ports = {CODE_SERVER: str(free_port()), WEB_SERVER: str(free_port())}
        blocks = [*blocks_of(PAGE, "sh"), *blocks_of(BACKUP, "sh")]
        self.commands = {self._program(block): block for block in blocks if marks_of(block).run_by}
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("READMODEL_", "DAGSTER_"))
        } | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://{postgres.USER}:{quote(postgres.PASSWORD, safe='')}@"
            f"/{postgres.DATABASE}?host={socket_folder}",
        }
        storage, workspace = (block.code for block in blocks_of(PAGE, "yaml"))
        (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text() + storage)
        (home / "workspace.yaml").write_text(self._with_ports(workspace))

    @staticmethod
    def _program(block: Block) -> str:
        return " ".join(block.code.split()[:2])

    def _with_ports(self, text: str) -> str:
        for written, port in self.ports.items():
            text = text.replace(written, port)
        return text

    def start(self, program: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self.home / f"{program}.log").open("wb") as log:
            return subprocess.Popen(
                ["bash", "-euc", self._with_ports(self.commands.pop(program).code)],
                cwd=self.home,
                env={**self.environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def launches(self, job: str, partition: str) -> bool:
        """Launch a run as the web UI does; False while the web server does not answer, or has not loaded the code."""
        selector = {"repositoryLocationName": "readmodel_pipelines", "repositoryName": "__repository__", "jobName": job}
        tags = [{"key": "dagster/partition", "value": partition}]
        params = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[WEB_SERVER]}/graphql",
            json.dumps({"query": _LAUNCH, "variables": {"params": params}}).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
                launched = json.load(answer)["data"]["launchRun"]["__typename"]
        except (urllib.error.URLError, ConnectionError):
            return False
        assert launched in ("LaunchRunSuccess", "PipelineNotFoundError"), launched
        return bool(launched == "LaunchRunSuccess")

    def run(self, program: str) -> str:
        """Run a command of the page to its end; gives what it wrote."""
        process = self.start(program)
        assert process.wait(60) == 0, self.log(program)
        return self.log(program)

    def log(self, program: str) -> str:
        return (self.home / f"{program}.log").read_text(errors="replace")


@contextmanager
def at_work(deployment: Deployment) -> Iterator[list[subprocess.Popen[bytes]]]:
    """All three at once over a database without a table: whoever comes first makes them."""
    only_the_code_server = {name: value for name, value in os.environ.items() if name.startswith("READMODEL_")}
    processes = [
        deployment.start("dagster api", only_the_code_server),
        deployment.start("dagster-daemon run"),
        deployment.start("dagster-webserver -w"),
    ]
    try:
        yield processes
        # As a supervisor stops them.
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(60)
    finally:
        for process in processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command_lines_of(groups: Collection[int]) -> str:
    """What stands on the command lines of these process groups: everybody on the machine can read it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                if os.getpgid(int(folder.name)) in groups:
                    found.append((folder / "cmdline").read_text(errors="replace"))
    return "\n".join(found)


def test_the_documented_processes_repair_and_rebuild_and_keep_their_history_in_postgres(
    sample: Mongo,  # noqa: F811
    tmp_path: Path,
) -> None:
    import psycopg2

    # The sensor launches its repair; beside it, people launch two rebuilds.
    sample.repair_queue.insert_one(task(SAMPLE[0]["aggregate_id"]))
    expected = [("rebuild_read_models", "SUCCESS")] * 2 + [("repair_read_models", "SUCCESS")]

    with postgres.running() as folder:
        deployment = Deployment(tmp_path, folder)

        def rows(query: str) -> list[tuple[Any, ...]]:
            login = {"user": postgres.USER, "password": postgres.PASSWORD, "dbname": postgres.DATABASE}
            with closing(psycopg2.connect(host=folder, **login)) as connection, connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())

        with at_work(deployment) as processes:
            for partition, _ in BOTH:
                wait_until(partial(deployment.launches, "rebuild_read_models", partition))
            seen = command_lines_of({process.pid for process in processes})
            wait_until(lambda: sorted(rows("select pipeline_name, status from runs")) == expected)

        for _, read_model in BOTH:
            assert sample[read_model].count_documents({}) > 0
        assert sample.repair_queue.count_documents({"status": "completed"}) == 1
        materialized = {name for (name,) in rows("select asset_key from event_logs where asset_key is not null")}
        assert materialized >= {json.dumps([read_model]) for _, read_model in BOTH}
        assert rows("select count(*) from job_ticks where status = 'SUCCESS'")[0][0] == 1
        assert not list(tmp_path.rglob("*.db")), "nothing of the history is in SQLite"

        deployment.run("dagster instance")
        deployment.run("pg_dump --format")
        assert not deployment.commands, "every command of the page was run"
        restored = subprocess.run(
            ["pg_restore", "--file", "-", tmp_path / "dagster.dump"], capture_output=True, text=True, check=True
        ).stdout
        assert "repair_read_models" in restored

    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for secret in (postgres.PASSWORD, quote(postgres.PASSWORD, safe="")):
        assert secret not in written + restored + seen
