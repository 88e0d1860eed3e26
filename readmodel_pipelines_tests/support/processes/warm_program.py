"""A `readmodel` that starts warm, for a hundred commands: what commands import is imported once for all of them.

Each is a process of its own, with the arguments, environment, folder, input and outputs that it was called with. What
looks at the environment when it is imported (the choices of `--type`) each imports by itself.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "typer",
    *(f"readmodel_pipelines.{name}" for name in ("doctor", "projector", "rebuild", "repair", "verification")),
)
"""What commands import, but for what looks at the environment."""
_LONGEST_CALL = 1 << 20
_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as to:
    to.connect({address!r})
    call = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(to, [call], [0, 1, 2])
    to.shutdown(socket.SHUT_WR)
    sys.exit(int(to.recv(16) or 1))
"""


@contextmanager
def warm_program(folder: Path) -> Iterator[Path]:
    """A folder for the PATH, with `readmodel` in it."""
    address, programs = folder / "warm.sock", folder / "bin"
    programs.mkdir()
    program = programs / "readmodel"
    program.write_text(_PROGRAM.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", __name__, str(address)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield programs
        finally:
            # And whatever command still goes on.
            os.killpg(server.pid, signal.SIGKILL)


def _serve(address: str) -> None:
    # Reports are written with the second.
    for name in (*IMPORTED, "pandas"):
        import_module(name)
    # No command looks for garbage in all that again.
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(caller)
            caller.close()
            _bury()


def _bury() -> None:
    """Take notice of answers that are given."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _answer(caller: socket.socket) -> None:
    call, streams, _, _ = socket.recv_fds(caller, _LONGEST_CALL, 3)
    while more := caller.recv(_LONGEST_CALL):
        call += more
    command = os.fork()
    if command == 0:
        caller.close()
        arguments, environment, folder = json.loads(call)
        _be(arguments, environment, folder, streams)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    # As a shell tells of a process that a signal ended.
    caller.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _be(arguments: list[str], environment: dict[str, str], folder: str, streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    run_and_exit()


def run_and_exit() -> None:
    """Run the program with the arguments in `sys.argv`, then end this process with its exit code."""
    code = 1
    try:
        from readmodel_pipelines.cli.main import main

        main()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
