"""The embedded MongoDB server: one per data folder, started by the first process that needs it, used by all others.

Invariants:

- At most one mongod serves a data folder, and it outlives the process that started it.
- It is a single-node replica set on one private Unix socket: no TCP port, nothing for other users.
- Every start, stop and repair holds the lock file, so its holder can rely on the state that it reads. Using a running
  server needs neither lock nor program: `ensure_running` then costs a ping.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded.mongod_program import REPLICA_SET, SOCKET_NAME
from readmodel_pipelines.embedded.place import Place
from readmodel_pipelines.errors import EmbeddedServerError

if TYPE_CHECKING:
    from pymongo import MongoClient

    from readmodel_pipelines.settings import Settings

START_SECONDS = 60.0
STOP_SECONDS = 30.0

_NOT_YET_INITIALIZED = 94
_PAUSE = 0.02

# Ends mongod when the pipe on stdin closes, which the kernel does however our process ends. PR_SET_PDEATHSIG would be
# Linux only, would fire when the starting *thread* ends, and would need code between fork and exec. The shell stays
# mongod's parent so that the process id it kills cannot have been reused.
_DIE_WITH_PIPE = (
    'exec 3<&0; "$@" </dev/null 3<&- & mongod=$!; '
    '{ read -r _ <&3; kill -KILL "$mongod"; } & watch=$!; exec 3<&-; '
    'wait "$mongod"; code=$?; kill "$watch"; exit "$code"'
)

# Servers that this process started: keeps the pipe above open, and lets us reap a child that ended.
_children: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of a data folder's server; `pid` and `version` only while it runs."""

    running: bool
    uri: str
    data_dir: Path
    socket: Path
    pid: int | None
    version: str | None


def ensure_running(settings: Settings, *, die_with_parent: bool = False) -> str:
    """The connection string of the data folder's server, which is a writable primary; starts it if needed.

    `die_with_parent` kills a server *started by this call* when this process ends, in any way. It is meant for tests.

    Raises:
        EmbeddedServerError: there is no usable mongod, it did not start, or its folder belongs to another user.
    """
    place = Place.of(settings)
    if not _is_ready(place):
        place.make_private()
        with place.locked():
            if not _is_ready(place):
                _start(place, settings, die_with_parent=die_with_parent)
    return place.uri


def stop(settings: Settings) -> bool:
    """Shut the data folder's server down and wait for its end; False if none ran.

    Raises:
        EmbeddedServerError: it does not end, or its folder belongs to another user.
    """
    place = Place.of(settings)
    if not place.home.is_dir():
        return False
    with place.locked():
        ended = _end(place)
        if place.socket != place.near_socket:
            place.near_socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.socket.parent.rmdir()
    return ended


def status(settings: Settings) -> ServerStatus:
    """The state of the data folder's server; starts and creates nothing.

    Raises:
        EmbeddedServerError: there is no embedded server on this system.
    """
    from pymongo.errors import PyMongoError

    place = Place.of(settings)
    version = None
    if place.accepts():
        with contextlib.suppress(PyMongoError), _client(place) as client:
            version = str(client.admin.command("buildInfo")["version"])
    running = version is not None
    return ServerStatus(
        running=running,
        uri=place.uri,
        data_dir=place.home.parent,
        socket=place.socket,
        pid=place.pid() if running else None,
        version=version,
    )


def _is_ready(place: Place) -> bool:
    from pymongo.errors import PyMongoError

    if not place.accepts():
        return False
    try:
        with _client(place) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


def _client(place: Place) -> MongoClient[dict[str, Any]]:
    from pymongo import MongoClient

    return MongoClient(place.uri, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000, socketTimeoutMS=10_000)


def _start(place: Place, settings: Settings, *, die_with_parent: bool) -> None:
    process = None
    to_start = not place.accepts()
    try:
        if to_start:
            binary = mongod_program.find_mongod(settings.mongod)
            mongod_program.probe(binary)
            # A server that lost its socket (temporary folders get cleaned) or whose starter died early still holds the
            # data files, and nobody can reach it any more.
            _end(place)
            process = _spawn(place, binary, die_with_parent=die_with_parent)
        _wait_until_primary(place, process)
    except BaseException:
        if to_start:
            _collect(place, patience=0)
        raise


def _spawn(place: Place, binary: Path, *, die_with_parent: bool) -> subprocess.Popen[bytes]:
    _collect(place)
    place.near_socket.unlink(missing_ok=True)
    if place.socket != place.near_socket:
        place.near_socket.symlink_to(place.socket)
    if place.log.exists():
        place.log.replace(place.log.with_suffix(".log.1"))
    command = mongod_program.command(binary, db=place.db, socket=place.socket)
    if die_with_parent:
        command = ["/bin/sh", "-c", _DIE_WITH_PIPE, "sh", *command]
    with place.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE if die_with_parent else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.home,
            start_new_session=True,
        )
    _children[place.home] = process
    return process


def _wait_until_primary(place: Place, process: subprocess.Popen[bytes] | None) -> None:
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + START_SECONDS
    obstacle = "nothing listens on its socket"
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise _not_started(place, f"ended while starting (code {process.returncode})")
        if place.accepts():
            try:
                if _advance(place):
                    return
                obstacle = "it is not a writable primary yet"
            except PyMongoError as error:
                obstacle = str(error)
        time.sleep(_PAUSE)
    raise _not_started(place, f"was not ready after {START_SECONDS:.0f} s ({obstacle})")


def _not_started(place: Place, what: str) -> EmbeddedServerError:
    error = mongod_program.first_error(place.log)
    return EmbeddedServerError(f"The embedded mongod {what}: {error}", hint=f"Its complete log: {place.log}")


def _advance(place: Place) -> bool:
    """Do the next step towards a writable primary; True if it is one. Uses a new client for every step."""
    from pymongo.errors import OperationFailure

    with _client(place) as client:
        admin = client.admin
        if admin.command("hello")["isWritablePrimary"]:
            return True
        host = str(place.socket)
        try:
            config = admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [{"_id": 0, "host": host}]})
            return False
        if config["members"][0]["host"] != host:
            # The data folder was moved, so the server's address differs from its own configuration.
            config["members"][0]["host"] = host
            config["version"] += 1
            admin.command("replSetReconfig", config, force=True)
    return False


def _end(place: Place) -> bool:
    """End the mongod that holds the data files, if any. The caller holds the lock, so no new one can appear."""
    if not place.holds_data():
        _collect(place)
        return False
    started = time.monotonic()
    sent: set[signal.Signals] = set()
    while place.holds_data():
        waited = time.monotonic() - started
        if waited > STOP_SECONDS + 5:
            raise EmbeddedServerError(
                f"The mongod that holds {place.db} does not end.",
                hint=(
                    f"End the process whose id is in {place.pid_file} (it may run in another container), then try "
                    "again."
                ),
            )
        wanted = signal.SIGTERM if waited < STOP_SECONDS else signal.SIGKILL
        pid = place.pid()
        if wanted not in sent and pid is not None and _is_mongod(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, wanted)
            sent.add(wanted)
        time.sleep(_PAUSE)
    _collect(place)
    return True


def _is_mongod(pid: int) -> bool:
    # The id may come from another container with the same folder, and belong to another process here.
    try:
        return SOCKET_NAME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


def _collect(place: Place, *, patience: float = 2) -> None:
    """Reap a child that is ending; after `patience` it is killed (for example if its data folder was deleted)."""
    process = _children.pop(place.home, None)
    if process is None:
        return
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
