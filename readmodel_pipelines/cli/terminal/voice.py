"""How much a command says: `--quiet`, `--verbose`, `--json`. Every command takes them, before its name or behind it.

Results go to stdout, once, as lines for people or with `--json` as one document. Everything else goes to stderr: errors
always, notes and progress unless `--quiet`, what goes on under the hood with `--verbose`. As the level of a logger this
belongs to the process and not to what is passed around: `voice` is the only one, and the command line sets it.
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
"""Of progress that is told line by line."""
NOBODY_READS = 141
"""The exit code of a program that writes to a pipe whose other end is gone, as shells say it."""


@dataclass(slots=True)
class Voice:
    """What was asked for on the command line, and all of it as it was typed."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    typed: Sequence[str] = ()
    _head: dict[str, Any] | None = None
    _items: int = 0

    def listen(self, typed: Sequence[str]) -> None:
        """Another command line begins."""
        self.typed, self._head = tuple(typed), None

    def result(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """What the command was asked for: the document with `--json`, else the lines."""
        self.document(document)
        # Each is one line, whatever is named in it.
        told = list(map(one_line, lines))
        # A command that has nothing to tell with --quiet tells nothing: cron would mail an empty line.
        if told:
            self.line("\n".join(told))

    def document(self, document: Mapping[str, Any]) -> None:
        """The one document of `--json`; in ASCII, so that no terminal, pipe or locale can spoil it."""
        if not self.as_json:
            return
        if self._head is None:
            _write(json.dumps(document))
            return
        rest = {name: value for name, value in document.items() if name not in self._head}
        self._head = None
        _write(f"], {json.dumps(rest)[1:]}" if rest else "]}")

    def begin(self, head: Mapping[str, Any], name: str) -> None:
        """Begin the document with the list `name`, whose items come one by one: there may be very many.

        What `document` is given next ends it, an error as well.
        """
        if self.as_json:
            self._head, self._items = dict(head), 0
            _write(f"{json.dumps(head)[:-1]}, {json.dumps(name)}: [", end="")

    def item(self, item: Mapping[str, Any], lines: Iterable[str]) -> None:
        """The next of that list, or its lines for people."""
        if self.as_json:
            _write(f"{', ' if self._items else ''}{json.dumps(item)}", end="")
            self._items += 1
            return
        for line in map(one_line, lines):
            _write(line)

    def line(self, text: str) -> None:
        """A part of the result that is there already; with `--json` it waits for the document."""
        if not self.as_json:
            _write(plain(text))

    def say(self, text: str) -> None:
        """What goes on, between results."""
        if not self.quiet:
            self.line(text)

    def note(self, text: str) -> None:
        """Something worth knowing that nobody asked for."""
        if not self.quiet:
            complain(one_line(text))

    def detail(self, text: str) -> None:
        """Something that only somebody wants to know who looks for what is wrong."""
        if self.verbose:
            complain(one_line(text))


voice = Voice()


def complain(text: str) -> None:
    """Lines on stderr, whatever was asked for; where nobody can read them, there is nobody to be told."""
    with suppress(OSError):
        typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """Lines without anything that a terminal would obey: data may hold control characters."""
    return "\n".join(map(one_line, text.split("\n")))


class OutputLost(ReadModelError):
    """The output could not be written, because its disk is full. The work is done."""

    exit_code = 6


def _write(text: str, end: str = "\n") -> None:
    """Write to stdout, all of it, now.

    Raises:
        OutputLost: the disk is full.
        typer.Exit: whoever read it is gone, as after `| head`: there is nothing left to say.
    """
    try:
        typer.echo(f"{text}{end}", nl=False)
    except BrokenPipeError:
        raise typer.Exit(NOBODY_READS) from None
    except OSError as error:
        raise OutputLost(
            f"The output could not be written: {error.strerror}.",
            hint="What was to be done is done. Make room where stdout goes, or let it go elsewhere, and ask again.",
        ) from None


def _set(ctx: typer.Context, option: typer.CallbackParam, value: bool) -> None:
    # The first of a command line forgets what an earlier one in this process said.
    setattr(voice, str(option.name), value or (ctx.parent is not None and getattr(voice, str(option.name))))


_option: Any = partial(typer.Option, callback=_set, expose_value=False, is_eager=True)


@cache
def voice_options() -> list[Any]:
    """The three options, as a command's parameters; the same for all."""
    only = typer.Typer(add_completion=False)

    @only.command()
    def speak(
        quiet: bool = _option(False, "--quiet", "-q", help="Only results and errors: no progress, no notes."),
        verbose: bool = _option(False, "--verbose", "-v", help="Also settings, server, commands, times."),
        as_json: bool = _option(False, "--json", help="Print one JSON document on stdout, nothing else."),
    ) -> None: ...

    return get_command(only).params
