"""The embedded MongoDB server: one per data folder, started by whoever comes first, met by everybody after.

What stays true:

- At most one mongod serves a data folder, and it outlives the process that started it.
- It is a single-node replica set on one private Unix socket: no TCP port, nothing for other users.
- Every start, stop and repair happens under the lock file, so whoever holds it may trust what it sees. Meeting a
  server that runs needs neither lock nor program: `ensure_running` then costs a ping.
- The lock that mongod holds on `mongod.lock` decides whether it lives: a process id alone may be stale or reused.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded.mongod_program import REPLICA_SET, SOCKET_NAME
from readmodel_pipelines.errors import EmbeddedServerError

if TYPE_CHECKING:
    from subprocess import Popen

    from pymongo import MongoClient

    from readmodel_pipelines.settings import Settings

START_SECONDS = 60.0
STOP_SECONDS = 30.0

# The smaller of the systems' limits for AF_UNIX paths (macOS 103, Linux 107). A comma or colon would break `--bind_ip`
# or the replica set's member name, hence the few characters.
_USABLE_SOCKET = re.compile(r"[A-Za-z0-9/._-]{1,103}")
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

# Servers that this process started: keeps the pipe above open, and lets us collect a child that ended.
_children: dict[Path, Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of a data folder's server; `pid` and `version` only while it runs."""

    running: bool
    uri: str
    data_dir: Path
    socket: Path
    pid: int | None
    version: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the server of one data folder keeps its things: `home` is ours alone, so we may set its mode."""

    home: Path
    socket: Path

    @property
    def db(self) -> Path:
        return self.home / "db"

    @property
    def log(self) -> Path:
        return self.home / "mongod.log"

    @property
    def pid_file(self) -> Path:
        return self.db / "mongod.lock"

    @property
    def near_socket(self) -> Path:
        """The socket itself, or a link to it when the path of `home` does not fit into a socket's address."""
        return self.home / SOCKET_NAME

    @property
    def uri(self) -> str:
        return f"mongodb://{quote_plus(str(self.socket))}/?directConnection=true"


def ensure_running(settings: Settings, *, die_with_parent: bool = False) -> str:
    """Give the connection string of the data folder's server, which is a writable primary; start it if need be.

    `die_with_parent` ends a server *started by this call* as soon as this process has ended, in whatever way. It is
    killed, not shut down: meant for tests.

    Raises:
        EmbeddedServerError: no usable mongod, it did not start, or its folder belongs to somebody else.
    """
    place = _place(settings)
    if not _is_ready(place):
        _make_private(settings.data_dir.expanduser().resolve(), place)
        with _locked(place):
            if not _is_ready(place):
                _start(place, settings, die_with_parent=die_with_parent)
    return place.uri


def stop(settings: Settings) -> bool:
    """Shut the data folder's server down and wait until it is gone; False when none ran.

    Raises:
        EmbeddedServerError: it does not end, or its folder belongs to somebody else.
    """
    place = _place(settings)
    if not place.home.is_dir():
        return False
    _own(place.home)
    with _locked(place):
        ended = _end(place)
        if place.socket != place.near_socket:
            place.near_socket.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                place.socket.parent.rmdir()
    return ended


def status(settings: Settings) -> ServerStatus:
    """Look at the data folder's server; starts and creates nothing.

    Raises:
        EmbeddedServerError: there is no embedded server on this system.
    """
    from pymongo.errors import PyMongoError

    place = _place(settings)
    version = None
    if _accepts(place):
        with contextlib.suppress(PyMongoError), _client(place) as client:
            version = str(client.admin.command("buildInfo")["version"])
    running = version is not None
    return ServerStatus(
        running=running,
        uri=place.uri,
        data_dir=place.home.parent,
        socket=place.socket,
        pid=_pid(place) if running else None,
        version=version,
    )


def _place(settings: Settings) -> _Place:
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "There is no embedded MongoDB server on Windows.", hint=f"To go on, {mongod_program.BRING_A_URI}."
        )
    home = settings.data_dir.expanduser().resolve() / "mongod"
    near = home / SOCKET_NAME
    if _USABLE_SOCKET.fullmatch(str(near)):
        return _Place(home, near)
    far = _far_socket(home, near)
    if _USABLE_SOCKET.fullmatch(str(far)):
        return _Place(home, far)
    raise EmbeddedServerError(
        f"Neither the data folder ({home.parent}) nor the temporary folder ({far.parent.parent}) has a path that fits "
        "into the address of a Unix socket (103 characters; letters, digits and `/._-` only).",
        hint="Set READMODEL_DATA_DIR to a folder with a shorter path.",
    )


def _far_socket(home: Path, near: Path) -> Path:
    import hashlib
    import tempfile

    folder = f"readmodel-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    # Two processes may have different TMPDIRs and shall meet all the same, so the link that the starter left decides.
    # Its name must match: in a copied or moved data folder it leads to the server of the original.
    with contextlib.suppress(OSError):
        linked = near.readlink()
        if linked.parent.name == folder:
            return linked
    return Path(tempfile.gettempdir()).resolve() / folder / SOCKET_NAME


def _make_private(data_dir: Path, place: _Place) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in dict.fromkeys((place.home, place.db, place.socket.parent)):
            folder.mkdir(mode=0o700, exist_ok=True)
            _own(folder)
    except OSError as error:
        raise EmbeddedServerError(
            f"The folder of the embedded server cannot be made: {error}.",
            hint="Set READMODEL_DATA_DIR to a folder in which you may write.",
        ) from error


def _own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{folder} belongs to somebody else (user id {found.st_uid}) or is not a folder; the embedded server of "
            f"user id {os.geteuid()} does not use it.",
            hint="Run as the owner, or set READMODEL_DATA_DIR to a folder of your own.",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


@contextlib.contextmanager
def _locked(place: _Place) -> Iterator[None]:
    import fcntl

    with (place.home / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said aloud because a process forked meanwhile holds a copy of the file, and closing ours would not do.
            fcntl.flock(file, fcntl.LOCK_UN)


def _accepts(place: _Place) -> bool:
    """Whether something listens on the socket and may be believed. The driver would wait for what we know at once."""
    try:
        folder = place.socket.parent.lstat()
        if folder.st_uid != os.geteuid() or place.socket.is_symlink():
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(place.socket))
    except OSError:
        return False
    return True


def _is_ready(place: _Place) -> bool:
    from pymongo.errors import PyMongoError

    if not _accepts(place):
        return False
    try:
        with _client(place) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


def _client(place: _Place) -> MongoClient[dict[str, Any]]:
    from pymongo import MongoClient

    return MongoClient(place.uri, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000, socketTimeoutMS=10_000)


def _start(place: _Place, settings: Settings, *, die_with_parent: bool) -> None:
    process = None
    to_start = not _accepts(place)
    try:
        if to_start:
            binary = mongod_program.find_mongod(settings.mongod)
            mongod_program.probe(binary)
            # A server that lost its socket (temporary folders get cleaned) or whose starter died early holds the data
            # files all the same, and nobody can reach it any more.
            _end(place)
            process = _spawn(place, binary, die_with_parent=die_with_parent)
        _wait_until_primary(place, process)
    except BaseException:
        if to_start:
            _collect(place, patience=0)
        raise


def _spawn(place: _Place, binary: Path, *, die_with_parent: bool) -> Popen[bytes]:
    import subprocess

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


def _wait_until_primary(place: _Place, process: Popen[bytes] | None) -> None:
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + START_SECONDS
    obstacle = "nothing listens on its socket"
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise _not_started(place, f"ended while starting (code {process.returncode})")
        if _accepts(place):
            try:
                if _advance(place):
                    return
                obstacle = "it is not a writable primary yet"
            except PyMongoError as error:
                obstacle = str(error)
        time.sleep(_PAUSE)
    raise _not_started(place, f"was not ready after {START_SECONDS:.0f} s ({obstacle})")


def _not_started(place: _Place, what: str) -> EmbeddedServerError:
    error = mongod_program.first_error(place.log)
    return EmbeddedServerError(f"The embedded mongod {what}: {error}", hint=f"Its whole log: {place.log}")


def _advance(place: _Place) -> bool:
    """Do the next step towards a writable primary; True when it is one. Takes a new client for every step."""
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
            # The data folder was moved: the server does not find itself in its own configuration.
            config["members"][0]["host"] = host
            config["version"] += 1
            admin.command("replSetReconfig", config, force=True)
    return False


def _end(place: _Place) -> bool:
    """End the mongod that holds the data files, if any. The caller holds the lock, so no new one can appear."""
    if not _holds_data(place):
        _collect(place)
        return False
    started = time.monotonic()
    sent: set[signal.Signals] = set()
    while _holds_data(place):
        waited = time.monotonic() - started
        if waited > STOP_SECONDS + 5:
            raise EmbeddedServerError(
                f"The mongod that holds {place.db} does not end.",
                hint=f"End the process that {place.pid_file} names (maybe in another container), then try again.",
            )
        wanted = signal.SIGTERM if waited < STOP_SECONDS else signal.SIGKILL
        pid = _pid(place)
        if wanted not in sent and pid is not None and _is_mongod(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, wanted)
            sent.add(wanted)
        time.sleep(_PAUSE)
    _collect(place)
    return True


def _holds_data(place: _Place) -> bool:
    import fcntl

    try:
        with place.pid_file.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _pid(place: _Place) -> int | None:
    try:
        return int(place.pid_file.read_text())
    except (OSError, ValueError):
        return None


def _is_mongod(pid: int) -> bool:
    # The number may come from another container that shares the folder, and mean somebody else's process here.
    try:
        return SOCKET_NAME.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


def _collect(place: _Place, *, patience: float = 2) -> None:
    """Take leave of a child that is ending; what outlives `patience` is killed (its data folder was deleted, say)."""
    from subprocess import TimeoutExpired

    process = _children.pop(place.home, None)
    if process is None:
        return
    try:
        process.wait(patience)
    except TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
