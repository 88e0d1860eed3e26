"""Two Celery workers over a Redis, and a Dagster daemon that launches runs on them: all on this machine.

Everything lies in one folder and carries its name in the environment, so that all of it ends with the test.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from readmodel_pipelines_tests.support.servers.dagster_daemon import PROJECT, Daemon
from readmodel_pipelines_tests.support.waiting import wait_until

WORKERS = 2
_WORKER_CONFIG = """\
broker_url = {url!r}
result_backend = {url!r}
# A worker takes a run once it is free: otherwise it reserves one more, which waits behind the one that it executes.
task_acks_late = True
worker_prefetch_multiplier = 1
broker_transport_options = {{"visibility_timeout": 86_400}}
"""


@dataclass(slots=True)
class Worker:
    """A Celery worker, which executes one run at a time in a child process."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def group(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, with its children: as a machine that loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """Its processes see the environment of this one."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.workers: list[Worker] = []
        self._environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(home)}
        self._socket = home / "redis.sock"
        self._redis: subprocess.Popen[bytes] | None = None
        url = f"redis+socket://{self._socket}"
        (home / "dagster_celery_config.py").write_text(_WORKER_CONFIG.format(url=url))
        self.daemon = Daemon(
            home,
            {
                "run_launcher": {
                    "module": "dagster_celery.launcher",
                    "class": "CeleryRunLauncher",
                    "config": {"broker": url, "backend": url},
                },
                # As many as workers execute at once: a run that waits at Celery would be taken for one that hangs.
                "concurrency": {"runs": {"max_concurrent_runs": WORKERS}},
                "run_monitoring": {"poll_interval_seconds": 2},
            },
        )

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.daemon.instance

    def start(self) -> None:
        self._redis = self._process(
            "redis",
            ["redis-server", "--port", "0", "--unixsocket", str(self._socket), "--save", "", "--dir", str(self.home)],
        )
        wait_until(self._socket.exists, 20)
        for _ in range(WORKERS):
            self.start_worker()
        self.daemon.start()
        for worker in self.workers:
            self._wait_for(worker)

    def start_worker(self) -> Worker:
        name = f"worker{len(self.workers) + 1}"
        command = ["-m", "celery", "-A", "dagster_celery.app", "worker", "-Q", "dagster", "--concurrency", "1"]
        process = self._process(name, [sys.executable, *command, "-n", f"{name}@test", "--loglevel", "INFO"])
        self.workers.append(Worker(name, process))
        return self.workers[-1]

    def _wait_for(self, worker: Worker) -> None:
        wait_until(lambda: f"{worker.name}@test ready" in self.log(worker.name), 120)

    def worker_of(self, run: dg.DagsterRun) -> tuple[Worker, int] | None:
        """The worker that executes a run, and the process in which it does; None while it does not yet."""
        said = " ".join(entry.user_message for entry in self.instance.all_logs(run.run_id))
        found = re.search(r"Executing steps in process \(pid: (\d+)\)", said)
        if found is None:
            return None
        process = int(found[1])
        group = os.getpgid(process)
        (worker,) = [item for item in self.workers if item.group == group]
        return worker, process

    def runs(self, *statuses: DagsterRunStatus) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(statuses=list(statuses) or None)))

    def wait_until(self, true: Callable[[], object], seconds: float = 240.0, *, every: float = 0.25) -> None:
        """Wait, and tell what everybody was at when it takes too long."""
        try:
            wait_until(true, seconds, every=every)
        except AssertionError:
            raise AssertionError(f"the cluster did not do it in {seconds:.0f} s\n{self._told()}") from None

    def _told(self) -> str:
        failed = DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE, DagsterEventType.ENGINE_EVENT
        said = [
            f"{run.tags.get('dagster/partition')} {run.status.value}: "
            + " | ".join(entry.user_message[:300] for entry in self.instance.all_logs(run.run_id, of_type=set(failed)))
            for run in self.runs()
        ]
        logs = [f"--- {name}\n{self.log(name)[-2_000:]}" for name in ("daemon", *(item.name for item in self.workers))]
        return "\n".join([*said, *logs])

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
        # Ends whatever carries the name of our folder, too.
        self.daemon.end()
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()

    def _process(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=PROJECT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextmanager
def running(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


def why_not() -> str:
    """Why this cannot run here; empty when it can."""
    if shutil.which("redis-server") is None:
        return "no redis-server here; install it, on Debian with `apt-get install redis-server`"
    try:
        import dagster_celery.launcher  # noqa: F401
        import redis  # noqa: F401
    except ImportError:
        return "no dagster-celery here; install it with `pip install -e '.[celery]'`"
    return ""
