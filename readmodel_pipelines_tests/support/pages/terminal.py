"""Where the commands of the pages are run: a folder that looks like a checkout, a home and a MongoDB of its own.

The blocks of a page run one after another as if typed into one terminal: what a block exports, and where it goes to,
holds for the next. A command must end with 0. Marks before a block say otherwise:

    exits N: WHY      one command of it, and only one, ends with N
    serves PORT       its last command serves on that port: Ctrl-C ends it once it answers; any free port will do
    serves            it goes on for ever: it is ended by Ctrl-C once it said something
    given: SYMPTOM    a runbook begins: a new terminal, and a new database with that wrong (`symptoms.py`)
    then: CHANGE      before, that happens (`symptoms.py`)
    run by TEST       another test runs it, and says so
"""

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from readmodel_pipelines_tests.support.pages.blocks import ROOT, Block

_BLOCK_SECONDS = 240.0
_SERVE_SECONDS = 240.0
_END_SECONDS = 240.0
_MARK = re.compile(
    r"exits (?P<exits>\d+): .+|serves(?: (?P<port>\d+))?|given: (?P<given>.+)|then: (?P<then>.+)|run by (?P<test>\S+)"
)

# Every failed command is told, with the line of the page; `make` is held to its Makefile and not run a second time.
_PRELUDE = """\
set -u
failed() {{
    printf '%s %s %s\\n' "$1" "$2" "${{3//$'\\n'/ }}" >>{report}
    [ "$1" = "$allowed" ] || exit "$1"
}}
trap 'failed "$?" "$LINENO" "$BASH_COMMAND"' ERR
make() {{ command make --dry-run "$@" >/dev/null; }}
"""


@dataclass(frozen=True, slots=True)
class Marks:
    """What the marks before a block ask for."""

    exits: int = 0
    serves: bool = False
    port: int | None = None
    before: tuple[str, ...] = ()
    run_by: str = ""


def marks_of(block: Block) -> Marks:
    exits, serves, port, before, run_by = 0, False, None, [], ""
    for text in block.marks:
        found = _MARK.fullmatch(text)
        assert found is not None, f"{block}: nobody knows the mark <!-- {text} -->"
        exits = int(found["exits"] or exits)
        serves |= text.startswith("serves")
        port = int(found["port"]) if found["port"] else port
        before += [text] if found["given"] or found["then"] else []
        run_by = found["test"] or run_by
    return Marks(exits, serves, port, tuple(before), run_by)


class Terminal:
    """One page's terminal, in `folder`. `stands_for` says what placeholders on the page mean here.

    Commands are looked for in `programs` first, but for those that serve: they are ended by a signal.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str],
        stands_for: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        self._folder, self._stands_for, self._programs = folder, stands_for or {}, programs
        self._checkout, self._report = folder / "checkout", folder / "failed"
        for part in (self._checkout, folder / "home", folder / "tmp"):
            part.mkdir()
        for item in ROOT.iterdir():
            if not item.name.startswith(".") or item.name == ".ci":
                (self._checkout / item.name).symlink_to(item)
        (folder / "prelude").write_text(_PRELUDE.format(report=shlex.quote(str(self._report))))
        self.open_anew()
        self._env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
            **env,
        }

    def open_anew(self) -> None:
        """Forget what was exported, and where it went."""
        (self._folder / "state").write_text("")

    def run(self, block: Block) -> str:
        """Run it; gives what it wrote.

        Raises:
            AssertionError: a command did not end as the page says; tells which, and what was written.
        """
        __tracebackhide__ = True
        marks = marks_of(block)
        self._report.write_text("")
        port = free_port() if marks.port is not None else None
        with (self._folder / "output").open("wb") as out:
            process = subprocess.Popen(
                ["bash", self._script(block, marks, port)],
                cwd=self._checkout,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wrong = self._serves(process, port) if marks.serves else self._ends(process, marks.exits)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = self._output()
        assert not wrong, f"{block}: {wrong}\n{block.code}--- it wrote\n{said}"
        return said

    def _script(self, block: Block, marks: Marks, port: int | None) -> str:
        """Padded, so that the shell counts the lines as the page does."""
        code = block.code
        for text, meaning in self._stands_for.items():
            code = code.replace(text, meaning)
        if port is not None:
            assert str(marks.port) in code, f"{block}: no port {marks.port} in it"
            code = code.replace(str(marks.port), str(port))
        state = shlex.quote(str(self._folder / "state"))
        script = self._folder / "script"
        warm = f"{self._programs}:" if self._programs and not marks.serves else ""
        script.write_text(
            f". {state}; . {shlex.quote(str(self._folder / 'prelude'))}; allowed={marks.exits}; PATH={warm}$PATH\n"
            + "\n" * (block.line - 2)
            + code
            + f"trap - ERR; PATH=${{PATH#{warm}}}; {{ export -p; printf 'cd %q\n' \"$PWD\"; }} >{state}\n"
        )
        return str(script)

    def _ends(self, process: subprocess.Popen[bytes], allowed: int) -> str:
        try:
            code = process.wait(_BLOCK_SECONDS)
        except subprocess.TimeoutExpired:
            return f"it did not end within {_BLOCK_SECONDS:.0f} s"
        failed = [line.split(" ", 2) for line in self._report.read_text().splitlines()]
        for given, line, command in failed:
            if int(given) != allowed:
                return f"line {line}, `{command}`, ended with {given}"
        if code:
            return f"the shell ended with {code}"
        if allowed and len(failed) != 1:
            return f"{len(failed)} commands ended with {allowed}, and not one"
        return ""

    def _serves(self, process: subprocess.Popen[bytes], port: int | None) -> str:
        deadline = time.monotonic() + _SERVE_SECONDS
        while not (_answers(port) if port is not None else self._output()):
            if process.poll() is not None:
                return f"it ended by itself with {process.returncode}"
            if time.monotonic() > deadline:
                return f"it served nothing within {_SERVE_SECONDS:.0f} s"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "Ctrl-C did not end it"
        return ""

    def _output(self) -> str:
        return (self._folder / "output").read_text(errors="replace")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
