"""How much a command says: `--quiet`, `--verbose`, `--json`. Every command takes them, before its name or behind it.

Results go to stdout, once, as lines for people or with `--json` as one document. Everything else goes to stderr: errors
always, notes and progress unless `--quiet`, what goes on under the hood with `--verbose`. As the level of a logger this
belongs to the process and not to what is passed around: `voice` is the only one, and the command line sets it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import typer
from typer.main import get_command

SECONDS_BETWEEN_LINES = 5.0
"""Of progress that is told line by line."""


@dataclass(slots=True)
class Voice:
    """What was asked for on the command line, and all of it as it was typed."""

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    typed: Sequence[str] = ()

    def result(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """What the command was asked for: the document with `--json`, else the lines."""
        self.document(document)
        told = list(lines)
        # A command that has nothing to tell with --quiet tells nothing: cron would mail an empty line.
        if told:
            self.line("\n".join(told))

    def document(self, document: Mapping[str, Any]) -> None:
        """The one document of `--json`; in ASCII, so that no terminal, pipe or locale can spoil it."""
        if self.as_json:
            typer.echo(json.dumps(document))

    def line(self, text: str) -> None:
        """A part of the result that is there already; with `--json` it waits for the document."""
        if not self.as_json:
            typer.echo(text)

    def say(self, text: str) -> None:
        """What goes on, between results."""
        if not self.quiet:
            self.line(text)

    def note(self, text: str) -> None:
        """Something worth knowing that nobody asked for."""
        if not self.quiet:
            complain(text)

    def detail(self, text: str) -> None:
        """Something that only somebody wants to know who looks for what is wrong."""
        if self.verbose:
            complain(text)


voice = Voice()


def complain(text: str) -> None:
    """A line on stderr, whatever was asked for."""
    typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """The text without anything that a terminal would obey: data may hold control characters."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


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
