"""A small pool of worker processes: each opens its own connections once, takes tasks one after another, and tells.

Not `multiprocessing`'s: a Dagster run that a Celery worker executes is a daemonic process, which may have no children
of that kind. A worker, whose program is this module, ends with its parent, however that ends: it reads the end of its
pipe.
"""

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
from queue import SimpleQueue
from typing import Any

from readmodel_pipelines.errors import ReadModelError

Send = Callable[[Any], None]
"""Tells the parent something meanwhile."""

Work = Callable[..., AbstractContextManager[Callable[[Any, Send], Any]]]
"""A function of a module, given the set-up: opens what tasks need, and gives what does one and returns its result.

In the process that has it done it is given besides what that has opened already.
"""


_SILENCE = 1.0


class WorkerDied(ReadModelError):
    """A worker process ended without a word: killed, or out of memory."""


def work_off(
    work: Work, setup: Any, tasks: Sequence[Any], workers: int, told: Callable[[Any], None] = lambda _: None, *here: Any
) -> Iterator[tuple[Any, Any]]:
    """Do the tasks in so many processes; with one, in this one, with what is open `here`. Gives (task, result).

    `told` is given what workers send meanwhile, and None once in a second when nobody sends anything. `setup`, tasks,
    results and what is sent are pickled.

    Raises:
        WorkerDied: a worker ended; the others are ended too.
        ReadModelError: what a worker raised.
    """
    if workers <= 1 or len(tasks) <= 1:
        with work(setup, *here) as do:
            for task in tasks:
                yield task, do(task, told)
    else:
        yield from _in_processes(work, setup, deque(tasks), min(workers, len(tasks)), told)


def _in_processes(
    work: Work, setup: Any, tasks: deque[Any], workers: int, told: Callable[[Any], None]
) -> Iterator[tuple[Any, Any]]:
    processes: dict[Connection, subprocess.Popen[bytes]] = {}
    at_work: dict[Connection, Any] = {}

    def give_next(connection: Connection) -> None:
        if tasks:
            at_work[connection] = tasks.popleft()
            _send(connection, at_work[connection])

    try:
        for _ in range(workers):
            connection, process = _start()
            processes[connection] = process
            _send(connection, (work, setup))
            give_next(connection)
        while at_work:
            heard = [connection for connection in wait(list(at_work), _SILENCE) if isinstance(connection, Connection)]
            if not heard:
                told(None)
            for connection in heard:
                kind, message = _receive(connection, processes[connection])
                if kind == "raised":
                    raise message
                if kind == "sent":
                    told(message)
                    continue
                task = at_work.pop(connection)
                give_next(connection)
                yield task, message
    finally:
        for connection, process in processes.items():
            connection.close()
            process.kill()
            process.wait()


def _start() -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "readmodel_pipelines.workers.pool", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Ctrl-C reaches the parent alone, which ends them.
            start_new_session=True,
        )
    return ours, process


def _send(connection: Connection, message: Any) -> None:
    with suppress(OSError):
        # Whether it is still there is seen when it is listened to.
        connection.send(message)


def _receive(connection: Connection, process: subprocess.Popen[bytes]) -> tuple[str, Any]:
    try:
        kind, message = connection.recv()
    except (EOFError, OSError):
        code = process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise WorkerDied(
            f"A worker process was {how}.",
            hint="What was finished is kept: start it again to go on. If memory ran out, take fewer workers.",
        ) from None
    return kind, message


def serve(connection: Connection) -> None:
    """In a worker: do what the parent asks until it is gone."""
    inbox: SimpleQueue[Any] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv())
        except (EOFError, OSError):
            # Not at the next task: nobody is left for whom this one is done.
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    work, setup = inbox.get()
    try:
        with work(setup) as do:
            while True:
                task = inbox.get()
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


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
