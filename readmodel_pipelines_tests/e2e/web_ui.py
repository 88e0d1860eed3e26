"""Dagster's web server over an instance of its own, which ends with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg

from readmodel_pipelines_tests.e2e.daemon import PROJECT

_START_SECONDS = 120.0


@contextmanager
def instance_at(home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that stays in a folder, as the project's dagster.yaml has it."""
    shutil.copy(PROJECT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def web_ui(home: Path) -> Iterator[str]:
    """The address of a web server over the instance in this folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dagster_webserver", "-w", str(PROJECT / "workspace.yaml")]
    with (home / "webserver.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=PROJECT,
            env={**os.environ, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(address, server)
        yield address
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{address}/server_info", timeout=5).close()  # noqa: S310 - our own
            return
        time.sleep(0.25)
    raise AssertionError("the web server did not answer")
