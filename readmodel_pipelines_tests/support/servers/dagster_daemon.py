"""A real `dagster-daemon` in a process group of its own, with an instance of its own, that ends with the test."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from sqlalchemy.exc import OperationalError

from readmodel_pipelines_tests.support.waiting import wait_until

PROJECT = Path(__file__).parents[3]


_LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


class Daemon:
    """Started and killed as often as a test wants; runs that it launched outlive it, as in production.

    Its instance is the project's, but for what `changed` says otherwise.
    """

    def __init__(self, home: Path, changed: Mapping[str, Any] | None = None) -> None:
        self.home = home
        self._groups: list[int] = []
        self._earlier: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        config = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
        (home / "dagster.yaml").write_text(yaml.safe_dump(_merged(config, changed or {})))
        # Made once before anybody shares it: several processes that open a fresh one at once fail.
        self.instance = dg.DagsterInstance.from_config(str(home))

    def start(self) -> None:
        with (self.home / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-w", str(PROJECT / "workspace.yaml")],
                cwd=PROJECT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DAGSTER_HOME": str(self.home)}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Whatever is put into the database meanwhile, its sensors see all at once; `runs` begin anew behind it."""
        assert self._process is not None
        try:
            while not self._stopped_with_no_lock():
                self._process.send_signal(signal.SIGCONT)
                time.sleep(0.1)
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _stopped_with_no_lock(self) -> bool:
        """Whether its history can be read while it stands still: it may have stopped with a lock of SQLite's."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # A look that its code server is taking for it right now.
        time.sleep(0.3)
        try:
            self._earlier = {run.run_id for run in self.instance.get_runs()}
        except OperationalError:
            return False
        return True

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """Those since it was paused last."""
        wanted = dg.RunsFilter(statuses=list(statuses) or None)
        return [run for run in self.instance.get_runs(wanted) if run.run_id not in self._earlier]

    def backfill(
        self, job: str, partitions: Sequence[str], tags: Mapping[str, str], *, from_failure: bool = False
    ) -> str:
        """Launch a backfill as the web UI does, for the daemon to work off; gives its id."""
        repository = {"repositoryLocationName": "readmodel_pipelines", "repositoryName": "__repository__"}
        params = {
            "selector": {"partitionSetName": f"{job}_partition_set", "repositorySelector": repository},
            "partitionNames": list(partitions),
            "fromFailure": from_failure,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        # What it prints is mixed with the code server's log.
        launched = self.home / "launched.json"
        program = "from dagster_graphql.cli import main; main()"
        said = subprocess.run(
            [
                *(sys.executable, "-c", program, "-w", str(PROJECT / "workspace.yaml")),
                *("-t", _LAUNCH, "-v", json.dumps({"params": params}), "-o", str(launched)),
            ],
            cwd=PROJECT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        answer: dict[str, Any] = json.loads(launched.read_text())["data"]["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def kill(self) -> None:
        """SIGKILL, to the daemon alone: its code server notices and ends."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Whatever it started, too; runs are in process groups of their code server."""
        for group in self._groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for pid in left_behind(self.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self.instance.dispose()

    def log(self) -> str:
        return (self.home / "daemon.log").read_text(errors="replace")[-4_000:]

    def process_of_the_run(self) -> int:
        """Waits for the first run, and gives the process that executes it, as Dagster's own event says."""
        found: list[str] = []

        def looked() -> list[str]:
            for run in self.runs():
                said = " ".join(entry.user_message for entry in self.instance.all_logs(run.run_id))
                found[:] = re.findall(r"Executing steps in process \(pid: (\d+)\)", said)
            return found

        wait_until(looked, every=0.05)
        return int(found[0])


def left_behind(home: Path) -> Iterator[int]:
    """Processes of the instance in this folder: runs outlive their daemon and their code server."""
    wanted = f"DAGSTER_HOME={home}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def _merged(config: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    deeper = {
        name: _merged(config[name], value)
        for name, value in changed.items()
        if isinstance(value, dict) and isinstance(config.get(name), dict)
    }
    return {**config, **changed, **deeper}


@contextmanager
def running(home: Path, changed: Mapping[str, Any] | None = None) -> Iterator[Daemon]:
    daemon = Daemon(home, changed)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()
