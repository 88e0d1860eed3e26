"""A small pool of worker processes: each opens its own connections once, runs tasks one after another, and reports.

It does not use `multiprocessing`: a Dagster run in a Celery worker is a daemonic process, which may have no such
children. A worker's program is this module. It imports from the same places as its parent, and not from the current
folder. It ends with its parent in any case: it reads the end of its pipe, and on Linux the kernel also kills it,
because code that holds the interpreter's lock for long blocks the reading thread.
"""

import ctypes
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
from contextvars import copy_context
from functools import partial
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from readmodel_pipelines.errors import ReadModelError, kind_and_words

Send = Callable[[Any], None]
"""Sends something to the parent during a task."""

Work = Callable[..., AbstractContextManager[Callable[[Any, Send], Any]]]
"""A function of a module that gets the setup, opens what tasks need, and returns the function that runs a task.

In the parent process it also gets the objects that are open already.
"""


_SILENCE = 1.0
_PR_SET_PDEATHSIG = 1

# Import errors are sent to the parent, because nobody reads the output of a worker.
_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from multiprocessing.connection import Connection
parent = Connection({to})
try:
    from readmodel_pipelines.workers.pool import serve
except Exception as error:
    parent.send(("not loaded", f"{{type(error).__name__}}: {{error}}"))
    raise SystemExit(1)
serve(parent)
"""


class WorkerDied(ReadModelError):
    """A worker process was killed, ran out of memory, or could not start."""

    exit_code = 4


def work_off(
    work: Work,
    setup: Any,
    tasks: Sequence[Any],
    workers: int,
    told: Callable[[Any], None] = lambda _: None,
    *here: Any,
    only_reads: bool = False,
    given: Callable[[Any], Any] = lambda task: task,
) -> Iterator[tuple[Any, Any]]:
    """Run the tasks in several processes, or in this one with the objects open `here`. Yields (task, result).

    `told` is called with messages of workers, and with None once per second without any. `given` makes what a worker
    gets of a task, at that moment. `setup`, what workers get, results and messages are pickled. If the work
    `only_reads`, one of several workers is a thread here, which has nothing to load; nothing can end it at once.

    Raises:
        WorkerDied: a worker ended; the others are ended too.
        ReadModelError: an error raised by a worker.
    """
    if workers <= 1 or len(tasks) <= 1:
        with work(setup, *here) as do:
            for task in tasks:
                yield task, do(given(task), told)
    else:
        thread = _a_thread(work, setup, *here) if only_reads and here else None
        yield from _in_processes(work, setup, deque(tasks), min(workers, len(tasks)), told, thread, given)


def _in_processes(
    work: Work,
    setup: Any,
    tasks: deque[Any],
    workers: int,
    told: Callable[[Any], None],
    thread: Connection | None,
    given: Callable[[Any], Any],
) -> Iterator[tuple[Any, Any]]:
    processes: dict[Connection, subprocess.Popen[bytes]] = {}
    at_work: dict[Connection, Any] = {}

    def give_next(connection: Connection) -> None:
        if tasks:
            at_work[connection] = tasks.popleft()
            _send(connection, given(at_work[connection]))

    try:
        if thread is not None:
            give_next(thread)
        for _ in range(workers - (thread is not None)):
            connection, process = _start()
            processes[connection] = process
            _send(connection, (work, setup))
            give_next(connection)
        while at_work:
            heard = [connection for connection in wait(list(at_work), _SILENCE) if isinstance(connection, Connection)]
            if not heard:
                told(None)
            for connection in heard:
                kind, message = _receive(connection, processes.get(connection))
                if kind == "not loaded":
                    raise WorkerDied(
                        f"A worker process cannot load the code: {message}.",
                        hint="Fix the installation, or use no worker processes: READMODEL_WORKERS=1.",
                    )
                if kind == "raised":
                    raise _error_of(*message)
                if kind == "sent":
                    told(message)
                    continue
                task = at_work.pop(connection)
                give_next(connection)
                yield task, message
    finally:
        if thread is not None:
            thread.close()
        for connection, process in processes.items():
            connection.close()
            process.kill()
            process.wait()


def _a_thread(work: Work, setup: Any, *here: Any) -> Connection:
    """A worker in this process, which ends when this connection is closed and it wants to say something."""
    ours, theirs = Pipe()

    def run() -> None:
        # Whoever closes the other end wants nothing more.
        with theirs, suppress(OSError, EOFError):
            _serve(theirs, theirs.recv, lambda: work(setup, *here))

    threading.Thread(target=copy_context().run, args=[run], name="worker", daemon=True).start()
    return ours


def _start() -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            # Otherwise the current folder would come before all others.
            [
                sys.executable,
                "-I" if sys.flags.isolated else "-P",
                "-c",
                _PROGRAM.format(path=_path(), to=theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Only the parent gets Ctrl-C, and ends the workers.
            start_new_session=True,
        )
    return ours, process


def _path() -> list[str]:
    """The import path of this process. The current folder may have changed, so its entry is replaced by the place of
    this code.
    """
    home = str(Path(__file__).parents[2])
    return [home if not Path(place).is_absolute() and Path(place).exists() else place for place in sys.path]


def _send(connection: Connection, message: Any) -> None:
    with suppress(OSError):
        # A dead worker is detected when its pipe is read.
        connection.send(message)


def _receive(connection: Connection, process: subprocess.Popen[bytes] | None) -> tuple[str, Any]:
    try:
        kind, message = connection.recv()
    except (EOFError, OSError):
        if process is None:
            raise
        code = process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise WorkerDied(
            f"A worker process was {how}.",
            hint="Completed work is saved. Start it again to continue. If memory ran out, lower READMODEL_WORKERS.",
        ) from None
    return kind, message


def serve(connection: Connection) -> None:
    """In a worker: run the parent's tasks until it is gone."""
    inbox: SimpleQueue[bytes] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv_bytes())
        except (EOFError, OSError):
            # At once and not before the next task, because nobody waits for the current one.
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    if sys.platform == "linux":
        # When the parent's thread that started this process ends; it waits for this process.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        work, setup = pickle.loads(inbox.get())  # noqa: S301 - our own
    except Exception as error:  # noqa: BLE001 - any error of the import
        connection.send(("not loaded", kind_and_words(error)))
        return
    _serve(connection, lambda: pickle.loads(inbox.get()), lambda: work(setup))  # noqa: S301 - our own


def _serve(
    connection: Connection,
    next_task: Callable[[], Any],
    opened: Callable[[], AbstractContextManager[Callable[[Any, Send], Any]]],
) -> None:
    sending = threading.Lock()

    def send(kind: str, message: Any) -> None:
        # A task may have threads of its own.
        with sending:
            connection.send((kind, message))

    try:
        with opened() as do:
            while True:
                send("done", do(next_task(), partial(send, "sent")))
    except Exception as error:  # noqa: BLE001 - the parent raises it, whatever it is
        send("raised", _portable(error))


def _portable(error: Exception) -> tuple[bytes, str]:
    """The error and its text for the parent: not every error can be pickled and unpickled."""
    text = "".join(traceback.format_exception(error))
    try:
        return pickle.dumps(error), text
    except Exception:  # noqa: BLE001 - any error of its own code
        return b"", text


def _error_of(pickled: bytes, text: str) -> Exception:
    try:
        error = pickle.loads(pickled)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - any error of its own code
        error = None
    return error if isinstance(error, Exception) else RuntimeError(text)
