"""The embedded server against a real mongod: who starts it, who finds it, who may reach it, and how it survives."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded.server import ensure_running, status, stop
from readmodel_pipelines.errors import EmbeddedServerError
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.servers.embedded import server_folder
from readmodel_pipelines_tests.support.waiting import wait_until

LONG = "a" * 90

STARTER = """
import sys
from pathlib import Path
from readmodel_pipelines.embedded.server import ensure_running, status
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.servers.embedded import server_folder
settings = Settings(data_dir=Path(sys.argv[1]), mongod=None)
sys.stdin.readline()
print(ensure_running(settings, die_with_parent=len(sys.argv) > 2), status(settings).pid, flush=True)
sys.stdin.readline()
"""


def settings_for(folder: Path, **more: Any) -> Settings:
    return Settings(**{"data_dir": folder, "mongod": None, **more})


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with server_folder() as name:
        yield name.resolve()


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def settings(folder: Path) -> Iterator[Settings]:
    """A data folder without a server; a server that the test starts ends with it."""
    settings = settings_for(folder / "data")
    yield settings
    stop(settings)


@pytest.fixture(scope="module")
def running() -> Iterator[Settings]:
    """A server that nobody stops, shared by the tests that only look."""
    with temporary_folder() as folder:
        settings = settings_for(folder / "data")
        ensure_running(settings, die_with_parent=True)
        yield settings
        stop(settings)


@contextlib.contextmanager
def starters(settings: Settings, count: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Other processes, each about to call `ensure_running` as soon as it gets a line."""
    command = [sys.executable, "-c", STARTER, str(settings.data_dir), *arguments]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write(uri: str, value: str) -> None:
    with MongoClient[dict[str, Any]](uri) as client:
        client.shop.things.insert_one({"_id": value})


def read(uri: str) -> list[str]:
    with MongoClient[dict[str, Any]](uri) as client:
        return sorted(thing["_id"] for thing in client.shop.things.find())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kill_server(settings: Settings) -> None:
    pid = status(settings).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not status(settings).running, every=0.02)


def listening(pid: int) -> tuple[list[str], int]:
    """The Unix sockets on which a process listens, and how many TCP sockets it has. Linux only."""
    mine = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            mine.add(file.readlink().name.removeprefix("socket:[").removesuffix("]"))
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    # Field 3 holds the flags; 0x10000 marks a socket that accepts connections.
    paths = {row[7] for row in unix if len(row) > 7 and row[6] in mine and row[3] == "00010000"}
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    tcp = [line.split()[9] for table in tables for line in table.read_text().splitlines()[1:]]
    return sorted(paths), len(mine.intersection(tcp))


def test_the_server_is_a_writable_primary_with_transactions_and_change_streams(running: Settings) -> None:
    with MongoClient[dict[str, Any]](ensure_running(running)) as client:
        hello = client.admin.command("hello")
        assert (hello["isWritablePrimary"], hello["setName"]) == (True, "rs0")
        with client.shop.orders.watch(max_await_time_ms=1000) as changes:
            with client.start_session() as session, session.start_transaction():
                client.shop.orders.insert_one({"_id": 1}, session=session)
            assert next(changes)["fullDocument"] == {"_id": 1}


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="asks Linux's /proc")
def test_the_server_listens_on_no_tcp_port_and_on_one_socket(running: Settings) -> None:
    now = status(running)
    assert now.pid is not None
    assert listening(now.pid) == ([str(now.socket)], 0)


def test_a_running_server_is_described_and_its_socket_and_folder_are_private(running: Settings) -> None:
    now = status(running)
    assert now.running
    assert now.version is not None
    assert now.version[0].isdigit()
    assert now.data_dir == running.data_dir
    os.kill(now.pid or -1, 0)
    quoted = str(now.socket).replace("/", "%2F")
    assert ensure_running(running) == now.uri == f"mongodb://{quoted}/?directConnection=true"
    assert stat.S_ISSOCK(now.socket.stat().st_mode)
    assert [mode(path) for path in (now.socket, now.socket.parent, running.data_dir)] == [0o600, 0o700, 0o700]


_FIND_IT = """
import pathlib, sys, time
from readmodel_pipelines.embedded.server import ensure_running
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.servers.embedded import server_folder
settings = Settings(data_dir=pathlib.Path(sys.argv[1]), mongod=pathlib.Path("/nonexistent/mongod"))
# Nobody may wait: who pauses fails.
time.sleep = None
ensure_running(settings)
"""


def test_a_running_server_is_found_without_program_or_lock_and_at_once(running: Settings) -> None:
    with (running.data_dir / "mongod" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run([sys.executable, "-c", _FIND_IT, str(running.data_dir)], check=True)


def test_stop_is_idempotent_and_a_folder_that_was_open_to_others_is_closed(settings: Settings) -> None:
    home = status(settings).socket.parent
    home.mkdir(parents=True)
    home.chmod(0o755)
    ensure_running(settings, die_with_parent=True)
    assert mode(home) == 0o700
    pid = status(settings).pid
    assert stop(settings) is True
    assert stop(settings) is False
    assert not status(settings).running
    with pytest.raises(ProcessLookupError):
        os.kill(pid or -1, 0)


def test_processes_starting_at_once_get_one_server_that_outlives_them(settings: Settings) -> None:
    with starters(settings, 3) as processes:
        for process in processes:
            go(process)
        answers = {answer(process) for process in processes}
    assert len(answers) == 1
    now = status(settings)
    assert answers == {f"{now.uri} {now.pid}"}
    assert now.running


def test_a_server_that_dies_with_its_parent_ends_when_that_is_killed(settings: Settings) -> None:
    with starters(settings, 1, "die") as [process]:
        go(process)
        assert answer(process).startswith("mongodb://")
        assert status(settings).running
        process.kill()
        process.wait()
        wait_until(lambda: not status(settings).running, every=0.02)
    assert stop(settings) is False


def lose_data_folder(settings: Settings) -> None:
    while settings.data_dir.exists():  # the server still runs, and may make a file in a folder just emptied
        shutil.rmtree(settings.data_dir, ignore_errors=True)


@pytest.mark.parametrize(
    ("harm", "left"),
    [(kill_server, ["kept"]), (lambda settings: status(settings).socket.unlink(), ["kept"]), (lose_data_folder, [])],
    ids=["killed", "lost its socket", "lost its data folder"],
)
def test_a_server_that_was_harmed_is_replaced_over_the_data_that_is_left(
    settings: Settings, harm: Callable[[Settings], object], left: list[str]
) -> None:
    write(ensure_running(settings, die_with_parent=True), "kept")
    before = status(settings).pid
    harm(settings)
    assert read(ensure_running(settings, die_with_parent=True)) == left
    assert status(settings).pid != before


def test_a_moved_data_folder_still_starts(settings: Settings, folder: Path) -> None:
    write(ensure_running(settings, die_with_parent=True), "kept")
    stop(settings)
    settings.data_dir.rename(folder / "elsewhere")
    moved = settings_for(folder / "elsewhere")
    try:
        uri = ensure_running(moved, die_with_parent=True)
        assert read(uri) == ["kept"]
        write(uri, "new")
    finally:
        stop(moved)


def test_a_copy_gets_a_server_of_its_own(settings: Settings, folder: Path) -> None:
    first = settings_for(folder / LONG)
    second = settings_for(folder / f"{LONG}-copy")
    try:
        write(ensure_running(first, die_with_parent=True), "shared")
        kill_server(first)
        shutil.copytree(first.data_dir, second.data_dir, symlinks=True)
        write(ensure_running(first, die_with_parent=True), "mine")
        assert read(ensure_running(second, die_with_parent=True)) == ["shared"]
    finally:
        stop(first)
        stop(second)


def test_a_long_data_folder_path_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = settings_for(folder / LONG / "with, odd: signs")
    sock = status(far).socket
    assert not sock.is_relative_to(far.data_dir)
    try:
        uri = ensure_running(far, die_with_parent=True)
        assert mode(sock.parent) == 0o700
        # Another process may see another temporary folder.
        (folder / "t").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "t"))
        assert ensure_running(far) == uri
        assert status(far).socket == sock
    finally:
        monkeypatch.undo()
        stop(far)
    assert not sock.parent.exists()


def test_no_path_that_fits_says_to_choose_a_shorter_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / LONG))
    with pytest.raises(EmbeddedServerError, match="READMODEL_DATA_DIR"):
        ensure_running(settings_for(folder / LONG / "data"))


def test_a_server_whose_starter_died_early_is_completed(settings: Settings) -> None:
    sock = status(settings).socket
    (sock.parent / "db").mkdir(mode=0o700, parents=True)
    sock.parent.chmod(0o700)
    binary = mongod_program.find_mongod(None)
    command = mongod_program.command(binary, db=sock.parent / "db", socket=sock)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as bare:
        try:
            wait_until(lambda: status(settings).running, every=0.02)
            write(ensure_running(settings), "works")
            assert status(settings).pid == bare.pid
        finally:
            bare.kill()


def test_a_server_that_does_not_start_tells_why_and_where_the_log_is(settings: Settings) -> None:
    db = status(settings).socket.parent / "db"
    db.mkdir(parents=True)
    (db / "storage.bson").write_bytes(b"garbage")
    with pytest.raises(EmbeddedServerError, match="storage engine metadata") as caught:
        ensure_running(settings, die_with_parent=True)
    log = Path(caught.value.hint.rpartition(": ")[2])
    assert "storage engine metadata" in log.read_text()
    assert not status(settings).running


def test_a_folder_of_somebody_else_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    status(settings).socket.parent.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(EmbeddedServerError, match="READMODEL_DATA_DIR"):
        ensure_running(settings)
    monkeypatch.undo()


def test_a_socket_folder_that_somebody_else_made_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = settings_for(folder / LONG / LONG)
    trap = status(far).socket.parent
    (folder / "trap").mkdir()
    trap.symlink_to(folder / "trap")
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "trap" / "mongodb-27017.sock"))
            listener.listen()
            with pytest.raises(EmbeddedServerError, match="READMODEL_DATA_DIR"):
                ensure_running(far)
    finally:
        trap.unlink()


def test_on_windows_the_error_says_to_bring_a_uri(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    try:
        with pytest.raises(EmbeddedServerError, match="READMODEL_MONGODB_URI"):
            ensure_running(settings)
    finally:
        monkeypatch.undo()
