"""The verbosity: `--quiet`, `--verbose`, `--json`. Every command takes them, before or after its name.

Results go to stdout once, as lines for people or with `--json` as one document. Everything else goes to stderr: errors
always, notes and progress unless `--quiet`, details with `--verbose`. Like a log level, the verbosity belongs to the
process: `voice` is its only instance, and the command line sets it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import typer
from typer.main import get_command

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.wording import one_line

SECONDS_BETWEEN_LINES = 5.0
"""Between two lines of progress."""
NOBODY_READS = 141
"""The exit code of a program that writes to a closed pipe, as in shells."""


@dataclass(slots=True)
class Voice:
    """The verbosity of the command line, and the line as typed."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    typed: Sequence[str] = ()
    _head: dict[str, Any] | None = None
    _items: int = 0

    def listen(self, typed: Sequence[str]) -> None:
        """Start a new command line."""
        self.typed, self._head = tuple(typed), None

    def result(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """The result of the command: the document with `--json`, else the lines."""
        self.document(document)
        # Each is one line, even if a name in it contains line breaks.
        told = list(map(one_line, lines))
        # With --quiet an empty result prints nothing, because cron would mail an empty line.
        if told:
            self.line("\n".join(told))

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the one document of `--json`; in ASCII, so that no terminal, pipe or locale can damage it."""
        if not self.as_json:
            return
        if self._head is None:
            _write(json.dumps(document))
            return
        rest = {name: value for name, value in document.items() if name not in self._head}
        self._head = None
        _write(f"], {json.dumps(rest)[1:]}" if rest else "]}")

    def begin(self, head: Mapping[str, Any], name: str) -> None:
        """Begin the document with the list `name`, whose items are printed one by one because it can be very long.

        The next call of `document` ends it, also with an error.
        """
        if self.as_json:
            self._head, self._items = dict(head), 0
            _write(f"{json.dumps(head)[:-1]}, {json.dumps(name)}: [", end="")

    def item(self, item: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print the next item of the list, or its lines for people."""
        if self.as_json:
            _write(f"{', ' if self._items else ''}{json.dumps(item)}", end="")
            self._items += 1
            return
        for line in map(one_line, lines):
            _write(line)

    def line(self, text: str) -> None:
        """Print a part of the result now; with `--json` it waits for the document."""
        if not self.as_json:
            _write(plain(text))

    def say(self, text: str) -> None:
        """Print progress between results."""
        if not self.quiet:
            self.line(text)

    def note(self, text: str) -> None:
        """Print a note that is useful but not part of the result."""
        if not self.quiet:
            complain(one_line(text))

    def detail(self, text: str) -> None:
        """Print a detail that helps to diagnose a problem."""
        if self.verbose:
            complain(one_line(text))


voice = Voice()


def complain(text: str) -> None:
    """Print lines to stderr, whatever the verbosity; does nothing if stderr is gone."""
    with suppress(OSError):
        typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """Lines without control characters, which data may hold and a terminal would obey."""
    return "\n".join(map(one_line, text.split("\n")))


class OutputLost(ReadModelError):
    """The output could not be written, because its disk is full. The work is done."""

    exit_code = 6


def _write(text: str, end: str = "\n") -> None:
    """Write to stdout and flush.

    Raises:
        OutputLost: the disk is full.
        typer.Exit: the reader is gone, as after `| head`, so nothing more can be printed.
    """
    try:
        typer.echo(f"{text}{end}", nl=False)
    except BrokenPipeError:
        raise typer.Exit(NOBODY_READS) from None
    except OSError as error:
        raise OutputLost(
            f"The output could not be written: {error.strerror}.",
            hint="The work itself is finished. Free space for stdout or redirect it, then run the command again.",
        ) from None


def _set(ctx: typer.Context, option: typer.CallbackParam, value: bool) -> None:
    # The first option of a command line resets the values of an earlier one in this process.
    setattr(voice, str(option.name), value or (ctx.parent is not None and getattr(voice, str(option.name))))


_option: Any = partial(typer.Option, callback=_set, expose_value=False, is_eager=True)


@cache
def voice_options() -> list[Any]:
    """The parameters of the three options, the same for all commands."""
    only = typer.Typer(add_completion=False)

    @only.command()
    def speak(
        quiet: bool = _option(False, "--quiet", "-q", help="Only results and errors: no progress, no notes."),
        verbose: bool = _option(False, "--verbose", "-v", help="Also settings, server, commands, times."),
        as_json: bool = _option(False, "--json", help="Print one JSON document on stdout, nothing else."),
    ) -> None: ...

    return get_command(only).params
