"""A small pool of worker processes: each opens its own connections once, takes tasks one after another, and tells.

Not `multiprocessing`'s: a Dagster run that a Celery worker executes is a daemonic process, which may have no children
of that kind. A worker ends with its parent, however that ends: it reads the end of its pipe.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from readmodel_pipelines.errors import ReadModelError

Send = Callable[[Any], None]
"""Tells the parent something meanwhile."""

Work = Callable[[Any], AbstractContextManager[Callable[[Any, Send], Any]]]
"""A function of a module, given the set-up: opens what tasks need, and gives what does one and returns its result."""


_SILENCE = 1.0


class WorkerDied(ReadModelError):
    """A worker process ended without a word: killed, or out of memory."""

    code = "worker_died"


def work_off(
    work: Work, setup: Any, tasks: Sequence[Any], workers: int, told: Callable[[Any], None] = lambda _: None
) -> Iterator[tuple[Any, Any]]:
    """Do the tasks in so many processes; with one, in this process. Gives (task, result) as they come.

    `told` is given what workers send meanwhile, and None once in a second when nobody sends anything. `setup`, tasks,
    results and what is sent are pickled.

    Raises:
        WorkerDied: a worker ended; the others are ended too.
        ReadModelError: what a worker raised.
    """
    if workers <= 1 or len(tasks) <= 1:
        with work(setup) as do:
            for task in tasks:
                yield task, do(task, told)
    else:
        with _Pool(work, setup, min(workers, len(tasks))) as pool:
            yield from pool.run(deque(tasks), told)


class _Pool:
    def __init__(self, work: Work, setup: Any, workers: int) -> None:
        self._setup = (work, setup)
        self._workers = workers
        self._processes: dict[Connection, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Pool:
        for _ in range(self._workers):
            ours, theirs = Pipe()
            process = subprocess.Popen(
                [sys.executable, "-m", "readmodel_pipelines.workers.process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C reaches the parent alone, which ends them.
                start_new_session=True,
            )
            theirs.close()
            self._processes[ours] = process
            with suppress(OSError):
                ours.send(self._setup)
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.kill()
            process.wait()

    def run(self, tasks: deque[Any], told: Callable[[Any], None]) -> Iterator[tuple[Any, Any]]:
        at_work: dict[Connection, Any] = {}
        for connection in self._processes:
            self._next(connection, tasks, at_work)
        while at_work:
            heard = [connection for connection in wait(list(at_work), _SILENCE) if isinstance(connection, Connection)]
            if not heard:
                told(None)
            for connection in heard:
                kind, message = self._receive(connection)
                if kind == "raised":
                    raise message
                if kind == "sent":
                    told(message)
                    continue
                task = at_work.pop(connection)
                self._next(connection, tasks, at_work)
                yield task, message

    def _next(self, connection: Connection, tasks: deque[Any], at_work: dict[Connection, Any]) -> None:
        if tasks:
            at_work[connection] = tasks.popleft()
            with suppress(OSError):
                # Whether it is still there is seen when it is listened to.
                connection.send(at_work[connection])

    def _receive(self, connection: Connection) -> tuple[str, Any]:
        try:
            kind, message = connection.recv()
        except (EOFError, OSError):
            code = self._processes[connection].wait()
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise WorkerDied(
                f"A worker process was {how}.",
                hint="What was finished is kept: start it again to go on. If memory ran out, take fewer workers.",
            ) from None
        return kind, message


def serve(connection: Connection) -> None:
    """In a worker: do what the parent asks until it is gone."""
    inbox: deque[Any] = deque()
    arrived = threading.Semaphore(0)

    def listen() -> None:
        try:
            while True:
                inbox.append(connection.recv())
                arrived.release()
        except (EOFError, OSError):
            # Not at the next task: nobody is left for whom this one is done.
            os._exit(1)

    def receive() -> Any:
        arrived.acquire()
        return inbox.popleft()

    threading.Thread(target=listen, daemon=True).start()
    work, setup = receive()
    try:
        with work(setup) as do:
            while True:
                task = receive()
                connection.send(("done", do(task, lambda told: connection.send(("sent", told)))))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        connection.send(("raised", _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error if it survives the way to the parent: not all can be pickled and unpickled; else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its own code raises
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
