"""A small pool of worker processes: each opens its own connections once, takes tasks one after another, and tells.

Not `multiprocessing`'s: a Dagster run that a Celery worker executes is a daemonic process, which may have no children
of that kind. A worker, whose program is this module, imports from where its parent does, and from no folder that it
happens to be started in. It ends with its parent, however that ends: it reads the end of its pipe, and on Linux the
kernel ends it, for what holds the interpreter's lock for long lets no thread read.
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
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from readmodel_pipelines.errors import ReadModelError, kind_and_words

Send = Callable[[Any], None]
"""Tells the parent something meanwhile."""

Work = Callable[..., AbstractContextManager[Callable[[Any, Send], Any]]]
"""A function of a module, given the set-up: opens what tasks need, and gives what does one and returns its result.

In the process that has it done it is given besides what that has opened already.
"""


_SILENCE = 1.0
_PR_SET_PDEATHSIG = 1

# What cannot be loaded says why: nobody reads what a worker writes on its own.
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
        for connection, process in processes.items():
            connection.close()
            process.kill()
            process.wait()


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
            # Ctrl-C reaches the parent alone, which ends them.
            start_new_session=True,
        )
    return ours, process


def _path() -> list[str]:
    """Where this process imports from. The current folder may be another one by now: its place is that of this code."""
    home = str(Path(__file__).parents[2])
    return [home if not Path(place).is_absolute() and Path(place).exists() else place for place in sys.path]


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
            hint="Completed work is saved. Start it again to continue. If memory ran out, lower READMODEL_WORKERS.",
        ) from None
    return kind, message


def serve(connection: Connection) -> None:
    """In a worker: do what the parent asks until it is gone."""
    inbox: SimpleQueue[bytes] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv_bytes())
        except (EOFError, OSError):
            # Not at the next task: nobody is left for whom this one is done.
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    if sys.platform == "linux":
        # When the parent's thread ends that started this process, which waits for it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        work, setup = pickle.loads(inbox.get())  # noqa: S301 - our own
    except Exception as error:  # noqa: BLE001 - whatever importing it raises
        connection.send(("not loaded", kind_and_words(error)))
        return
    try:
        with work(setup) as do:
            while True:
                task = pickle.loads(inbox.get())  # noqa: S301 - our own
                connection.send(("done", do(task, lambda told: connection.send(("sent", told)))))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent raises it
        connection.send(("raised", _portable(error)))


def _portable(error: Exception) -> tuple[bytes, str]:
    """The error for the way to the parent, and its text: not all can be pickled, and not everywhere unpickled."""
    text = "".join(traceback.format_exception(error))
    try:
        return pickle.dumps(error), text
    except Exception:  # noqa: BLE001 - whatever its own code raises
        return b"", text


def _error_of(pickled: bytes, text: str) -> Exception:
    try:
        error = pickle.loads(pickled)  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its own code raises
        error = None
    return error if isinstance(error, Exception) else RuntimeError(text)
