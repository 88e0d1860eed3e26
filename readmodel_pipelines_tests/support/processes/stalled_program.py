"""Commands that stand still before the n-th thing that they ask a server, with all their threads, until let go on.

Each is a process of its own, of one that has imported what commands import. Everything about it lies in a folder: what
it said, the commands that it sent, where it stands still, its exit code.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from readmodel_pipelines_tests.support.processes.warm_program import IMPORTED, run_and_exit

_LOOK = 0.02


@dataclass(frozen=True)
class Stalled:
    """A command of the program; with number 0 it never stands still."""

    folder: Path

    @property
    def said(self) -> str:
        """All of its output."""
        return (self.folder / "said").read_text()

    @property
    def sent(self) -> list[str]:
        """The names of the commands that it sent, in their order, but for the one before which it stands still."""
        return (self.folder / "sent").read_text().split()

    @property
    def code(self) -> int | None:
        """Its exit code; None of one that goes on."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / "code").read_text())
        return None

    @property
    def stands_still(self) -> bool:
        """Whether it came so far."""
        return (self.folder / "still").exists()

    def let_go_on(self) -> None:
        """It sends what it was about to."""
        (self.folder / "go").touch()

    def end(self) -> None:
        """Kill one that goes on; it says where it is first."""
        if self.code is None:
            process = int((self.folder / "process").read_text())
            for number in (signal.SIGABRT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.kill(process, number)


class Program:
    """Starts such commands."""

    def __init__(self, calls: "subprocess.Popen[str]", folder: Path) -> None:
        self._calls = calls
        self._folder = folder
        self._number = 0

    def start(self, words: Sequence[str], environment: Mapping[str, str], before: int = 0) -> Stalled:
        """`before` is the number of the command before which it stands still."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        (folder / "said").touch()
        assert self._calls.stdin is not None
        self._calls.stdin.write(json.dumps([str(folder), list(words), dict(environment), before]) + "\n")
        self._calls.stdin.flush()
        return Stalled(folder)


@contextmanager
def stalled_program(folder: Path) -> Iterator[Program]:
    """What was started ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as calls:
        try:
            yield Program(calls, folder)
        finally:
            os.killpg(calls.pid, signal.SIGKILL)


class _Listener:
    """The n-th command is not sent yet; what other threads send meanwhile neither."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._lock = threading.Lock()
        self._sent = (folder / "sent").open("w")
        self._count = 0

    def started(self, event: object) -> None:
        with self._lock:
            self._count += 1
            if self._count == self._number:
                (self._folder / "still").touch()
                while not (self._folder / "go").exists():
                    time.sleep(_LOOK)
            print(getattr(event, "command_name", ""), file=self._sent, flush=True)

    def succeeded(self, event: object) -> None: ...

    def failed(self, event: object) -> None: ...


def _serve() -> None:
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        if os.fork() == 0:
            _run(*json.loads(line))
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    # Whoever asked is gone, however it ended.
    os.killpg(0, signal.SIGKILL)


def _run(folder: str, words: list[str], environment: dict[str, str], number: int) -> None:
    command = os.fork()
    if command == 0:
        _be(Path(folder), words, environment, number)
    (Path(folder) / "process").write_text(str(command))
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    half = Path(folder) / "half a code"
    half.write_text(str(code))
    half.rename(Path(folder) / "code")
    os._exit(0)


def _be(folder: Path, words: list[str], environment: dict[str, str], number: int) -> None:
    said = os.open(folder / "said", os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable(2)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["readmodel", *words]
    from pymongo import monitoring

    class Listener(_Listener, monitoring.CommandListener): ...

    monitoring.register(Listener(folder, number))
    run_and_exit()


if __name__ == "__main__":
    _serve()
