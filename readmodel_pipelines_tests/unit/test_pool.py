"""Work spread over processes: what goes wrong in a worker is told in the parent, what it sends adds up."""

import ctypes
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

import readmodel_pipelines
from readmodel_pipelines import spread
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.events.values import BadField
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.workers import pool
from readmodel_pipelines.workers.pool import WorkerDied, work_off
from readmodel_pipelines_tests.support.waiting import wait_until

MANY = 2
LARGE = b"more than a pipe holds" * 100_000


class NotToBePickled(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no")


def fail_in(process: int, to_load: str) -> str:
    """Unpickled in this process it is a text; in another one it cannot be loaded."""
    if process != os.getpid():
        raise ImportError(to_load)
    return to_load


class OnlyHere(Exception):
    """Whatever it is in the process that made it, it is nothing that can be raised in another one."""

    def __reduce__(self) -> Any:
        return fail_in, (os.getpid(), "a message")


class NotToBeLoaded:
    def __reduce__(self) -> Any:
        return fail_in, (os.getpid(), "no such module")


ERRORS = [
    ReadModelError("a message", hint="a hint"),
    BulkWriteError({"writeErrors": [], "nInserted": 0, "what": "a message"}),
    # Unpickling it calls it with one argument of three.
    BadField("a message", 1, "wanted"),
    NotToBePickled("a message"),
    OnlyHere("a message"),
    UnicodeEncodeError("utf-8", "half \ud83d", 5, 6, "a message"),
]
KINDS = [type(error).__name__ for error in ERRORS]
UNCHANGED = ("ReadModelError", "BulkWriteError", "UnicodeEncodeError")


@contextmanager
def raising(_: Any) -> Iterator[Callable[[int, Any], None]]:
    def do(task: int, _: Any) -> None:
        raise ERRORS[task]

    yield do


@pytest.mark.parametrize("number", [KINDS.index("ReadModelError"), KINDS.index("OnlyHere")])
def test_what_a_worker_raises_is_raised_in_the_parent(number: int) -> None:
    with pytest.raises(Exception, match="a message") as raised:
        list(work_off(raising, None, [number, number], MANY))
    assert_told(raised.value, number)


@pytest.mark.parametrize("number", range(len(ERRORS)), ids=KINDS)
def test_an_error_that_cannot_go_to_another_process_goes_there_as_a_text(number: int) -> None:
    assert_told(pool._error_of(*pool._portable(ERRORS[number])), number)


def assert_told(raised: BaseException, number: int) -> None:
    if KINDS[number] in UNCHANGED:
        assert type(raised) is type(ERRORS[number])
        assert str(raised) == str(ERRORS[number])
    else:
        assert KINDS[number] in str(raised)


def kinds_of(error: type[ReadModelError]) -> list[type[ReadModelError]]:
    return [error, *(kind for below in error.__subclasses__() for kind in kinds_of(below))]


@pytest.mark.parametrize("kind", kinds_of(ReadModelError), ids=lambda kind: kind.__name__)
def test_an_error_is_told_in_the_parent_as_it_would_be_here(kind: type[ReadModelError]) -> None:
    error = kind("half \ud83d", hint="a hint")
    there = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(there), str(there), there.hint) == (kind, str(error), "a hint")


@contextmanager
def telling_where(_: Any) -> Iterator[Callable[[int, Any], list[str]]]:
    yield lambda *_: [str(module.__file__) for module in (uuid, readmodel_pipelines)]


def test_workers_run_the_code_that_this_process_runs_whatever_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("uuid.py", "pickle.py", "readmodel_pipelines/__init__.py"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("raise SystemExit('of another version')")
    monkeypatch.chdir(tmp_path)
    for relative in ("", "."):
        monkeypatch.setattr(sys, "path", [relative, *sys.path])

    with telling_where(None) as here:
        told = [place for _, place in work_off(telling_where, None, [1, 2], MANY)]
        assert told == [here(1, None)] * 2


@pytest.mark.parametrize("everything", [True, False], ids=["nothing can be imported", "a module cannot"])
def test_a_worker_that_cannot_load_says_why_and_nobody_waits_for_it(
    everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: Any
    if everything:
        ours = [place for place in sys.path if not (Path(place) / "readmodel_pipelines").exists()]
        monkeypatch.setattr(sys, "path", [place for place in ours if "site-packages" not in place])
        broken, why = raising, "ModuleNotFoundError: No module named 'readmodel_pipelines"
    else:
        broken, why = NotToBeLoaded(), "ImportError: no such module"

    with pytest.raises(WorkerDied, match=re.escape(why)) as caught:
        list(work_off(broken, LARGE, [1, 2], MANY))

    assert "READMODEL_WORKERS=1" in caught.value.hint


@contextmanager
def noting_who(folder: str) -> Iterator[Callable[[str, Any], None]]:
    def do(task: str, _: Any) -> None:
        file = Path(folder, str(os.getpid()))
        if task == "waits":
            file.touch()
            time.sleep(600)
        # Lets no other thread of its process run meanwhile.
        alone = f"touch {file}; while kill -0 {os.getpid()} 2> {os.devnull}; do sleep 0.1; done"
        ctypes.PyDLL(None).system(alone.encode())

    yield do


_PARENT = """
from readmodel_pipelines.workers.pool import work_off
from {test} import noting_who
list(work_off(noting_who, {folder!r}, {tasks!r}, 2))
"""


def test_workers_end_with_a_parent_that_is_killed_whatever_they_do(tmp_path: Path) -> None:
    # Elsewhere no kernel ends a process with its parent.
    tasks = ["waits", "works alone" if sys.platform == "linux" else "waits"]
    program = _PARENT.format(test=__name__, folder=str(tmp_path), tasks=tasks)
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    try:
        while len(workers := [int(file.name) for file in tmp_path.iterdir()]) < MANY:
            assert parent.poll() is None
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
    try:
        wait_until(lambda: not any(map(is_there, workers)), every=0.01)
    finally:
        for worker in filter(is_there, workers):
            os.kill(worker, signal.SIGKILL)


def is_there(process: int) -> bool:
    """Whether it runs; one that nobody buried does not."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return told.stdout.strip()[:1] not in ("", "Z")


def test_what_is_sent_now_and_then_and_at_the_end_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_SAY_SECONDS", 0.0)
    counts = {"chats_read_model": Counts()}
    sent: list[Any] = []
    counting = spread._Counting(counts, sent.append)
    for events in (100, 250):
        counts["chats_read_model"].add(Counts(checked=10, same=9))
        counting(events)
    counts["chats_read_model"].add(Counts(checked=1, same=1))
    looked: list[Any] = [*sent, counting.since_last(260)]

    assert [item.events for item in looked] == [100, 150, 10]
    total = Counts()
    for item in looked:
        total.add(item.counts["chats_read_model"])
    assert total == Counts(checked=21, same=19)


@contextmanager
def telling_in_threads(_: Any) -> Iterator[Callable[[int, Any], None]]:
    def do(_: int, send: Callable[[Any], None]) -> None:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(send, [LARGE] * 8))

    yield do


def test_what_the_threads_of_a_task_send_at_once_arrives_whole() -> None:
    told: list[Any] = []
    list(work_off(telling_in_threads, None, [0, 1], MANY, told.append))
    assert [item for item in told if item is not None] == [LARGE] * 16


@contextmanager
def reading(_: Any, here: threading.Event | None = None) -> Iterator[Callable[[str, Any], int]]:
    def do(task: str, send: Callable[[Any], None]) -> int:
        if here is None and task == "fails":
            raise ERRORS[0]
        while here is not None and task == "goes on":
            here.set()
            send("read on")
        return os.getpid()

    yield do


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "worker"]


def test_work_that_only_reads_is_done_in_this_process_too_which_has_nothing_to_load() -> None:
    # A task more than processes: the thread's first one is ended long before a process is there.
    tasks = ["ends"] * 3
    processes = [
        process for _, process in work_off(reading, None, tasks, MANY, _ignored, threading.Event(), only_reads=True)
    ]
    assert os.getpid() in processes
    assert len(processes) == len(tasks)
    wait_until(lambda: not worker_threads(), every=0.01)


def test_a_thread_that_works_ends_with_the_work_of_which_another_part_failed() -> None:
    begun = threading.Event()
    with pytest.raises(ReadModelError, match="a message"):
        list(work_off(reading, None, ["goes on", "fails"], MANY, _ignored, begun, only_reads=True))
    assert begun.is_set()
    wait_until(lambda: not worker_threads(), every=0.01)


def _ignored(_: Any) -> None:
    pass
