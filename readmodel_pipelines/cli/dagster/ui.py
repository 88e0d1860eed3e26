"""Dagster's UI for the demo: a child process with the same database, which ends with this one."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import readmodel_pipelines
from readmodel_pipelines.errors import ReadModelError, UsageError
from readmodel_pipelines.settings import Settings

HOST = "127.0.0.1"
USUAL_PORT = 3000

_END_SECONDS = 20.0
_PAUSE = 0.25
_LINES_SHOWN = 30
# The name in workspace.yaml.
_LOCATION = {"module_name": "readmodel_pipelines.definitions", "location_name": "readmodel_pipelines"}
# Dagster warns about its own command; its successor needs another package.
_DAGSTER_DEV = (sys.executable, "-W", "ignore:Function `dev_command`", "-m", "dagster", "dev")


def choose_port(wanted: int | None) -> int:
    """The requested port, else the usual one, else any free port.

    Raises:
        UsageError: the requested port is in use.
    """
    for port in (wanted,) if wanted is not None else (USUAL_PORT, 0):
        with socket.socket() as probe:
            # Like servers, to allow a port that was closed a moment ago.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise UsageError(f"Port {wanted} of {HOST} cannot be used.", hint="Give another --port, or none.")


def serve(
    settings: Settings, port: int, say: Callable[[str], None], env: Mapping[str, str], at_first: Callable[[], None]
) -> None:
    """Serve the UI until Ctrl-C. When it answers, print its address and run `at_first`.

    Raises:
        ReadModelError: it did not start, or ended by itself.
    """
    # A shell script starts background jobs with Ctrl-C ignored, and the child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    checkout = Path(readmodel_pipelines.__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="readmodel-ui-") as folder:
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(
            f"load_from:\n  - python_module: {json.dumps(_LOCATION | {'working_directory': str(checkout)})}\n"
        )
        # The UI shows the steps of every run better than these lines.
        log = Path(folder) / "dagster.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [*_DAGSTER_DEV, "-w", workspace, "-h", HOST, "-p", str(port), "--log-level", "warning"],
                # A checkout's dagster.yaml applies.
                cwd=checkout if (checkout / "dagster.yaml").is_file() else None,
                # Dagster and its children import nothing from the current folder.
                env={
                    **_home(Path(folder)),
                    **os.environ,
                    "READMODEL_DATABASE": settings.database,
                    **env,
                    "PYTHONSAFEPATH": "1",
                },
                stdout=out,
                stderr=out,
                # Its own process group: Ctrl-C reaches it once, through us, and no child survives us.
                start_new_session=True,
            )
        try:
            if _wait_until_it_answers(child, port):
                say(f"Dagster's UI: http://{HOST}:{port} (Ctrl-C ends it)")
                at_first()
            child.wait()
        except KeyboardInterrupt:
            say("Stopping Dagster's UI.")
            return
        finally:
            _end(child)
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
    raise ReadModelError(
        f"Dagster's UI ended by itself (code {child.returncode}).", hint="\n".join(["Its last lines were:", *said])
    )


def _home(folder: Path) -> dict[str, str]:
    """The same instance for an installed package, which contains a copy of dagster.yaml."""
    brought = Path(readmodel_pipelines.__file__).with_name("dagster.yaml")
    if not brought.is_file():
        return {}
    shutil.copy(brought, folder)
    return {"DAGSTER_HOME": str(folder)}


def _wait_until_it_answers(child: subprocess.Popen[bytes], port: int) -> bool:
    # Without a limit, because the user can end the wait with Ctrl-C.
    while child.poll() is None:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=5)) as connection,
        ):
            connection.request("GET", "/server_info")
            if connection.getresponse().status == http.client.OK:
                return True
        time.sleep(_PAUSE)
    return False


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it like Ctrl-C, so that it ends its children; then kill the rest of its process group."""
    with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
