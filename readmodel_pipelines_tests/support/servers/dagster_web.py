"""Dagster as somebody uses it: code server, web server and daemon over an instance of its own, ended with the test."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import yaml

from readmodel_pipelines_tests.support.pages.terminal import free_port
from readmodel_pipelines_tests.support.servers.dagster_daemon import PROJECT, left_behind

_START_SECONDS = 240.0
# A process of its own for each run costs four seconds; that is what `test_repair_daemon` has.
_IN_THE_DAEMON = {"module": "dagster._core.launcher.sync_in_memory_run_launcher", "class": "SyncInMemoryRunLauncher"}


class Services:
    """One code server for both others, as in production; two of them would load the definitions twice."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self._environment = {**os.environ, **environment, "DAGSTER_HOME": str(home)}
        self._workspace = home / "workspace.yaml"
        self._processes: list[subprocess.Popen[bytes]] = []
        config = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
        (home / "dagster.yaml").write_text(yaml.safe_dump({**config, "run_launcher": _IN_THE_DAEMON}))
        # Made once before anybody shares it: several processes that open a fresh one at once fail.
        with dg.DagsterInstance.from_config(str(home)):
            pass
        code, self._web = free_port(), free_port()
        location = {"host": "127.0.0.1", "port": code, "location_name": "readmodel_pipelines"}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
        module = ("-m", "readmodel_pipelines.definitions", "-d", str(PROJECT))
        self._start("dagster", "api", "grpc", *module, "-h", "127.0.0.1", "-p", str(code))
        self._code = code

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._web}"

    def start_web_server(self) -> None:
        """Once, however often it is asked for."""
        _wait_for(self._code, self._processes[0])
        self._start("dagster_webserver", "-w", str(self._workspace), "-h", "127.0.0.1", "-p", str(self._web))
        _wait_for(self._web, self._processes[-1])

    def start_daemon(self) -> None:
        """Once, however often it is asked for."""
        self._start("dagster._daemon", "run", "-w", str(self._workspace))

    def end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pid in left_behind(self.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self, module: str, *arguments: str) -> None:
        if (log_file := self.home / f"{module.strip('_')}.log").exists():
            return
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=PROJECT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)


@contextmanager
def services(home: Path, environment: Mapping[str, str]) -> Iterator[Services]:
    """The code server is started and needs some seconds, in which other things can be made ready."""
    started = Services(home, environment)
    try:
        yield started
    finally:
        started.end()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"{server.args!r} did not answer")
