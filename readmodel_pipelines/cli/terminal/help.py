"""The help: commands under headings, with their subcommands, then where to start.

A command's heading is its `rich_help_panel`, one of `HEADINGS`. It imports only Typer, so help is instant.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from readmodel_pipelines.cli.terminal.voice import voice, voice_options

LOOK, MEND, QUEUE, REBUILDS = "Inspect", "Rebuild", "Repair queue", "Rebuilds"
SET_UP, OPERATE = "Set up", "Operate"
HEADINGS = (LOOK, MEND, QUEUE, REBUILDS, SET_UP, OPERATE)

# Typer's public name for it names only one kind of it.
_UsageError: Any = typer.BadParameter.__bases__[0]


class Group(TyperGroup):
    """A group whose commands take `--quiet`, `--verbose` and `--json`, as the group does."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params += voice_options()
        for command in self.commands.values():
            if not isinstance(command, Group):
                command.params += voice_options()


def group(name: str, text: str) -> typer.Typer:
    """A group of commands under one name."""
    return typer.Typer(name=name, cls=Group, help=text, no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _in_a_document(verb: Callable[[], str | None]) -> Iterator[None]:
    """With `--json`, report a usage error as a document too."""
    try:
        yield
    except _UsageError as error:
        if "--json" in voice.typed:
            about = {
                "code": "usage",
                "message": error.format_message(),
                "hint": "--help lists the commands and options.",
            }
            voice.as_json = True
            voice.document({"verb": verb(), "error": about})
        raise


ENDING = {
    "Where to start": (
        ("something is wrong", "doctor, then verify-consistency --type all --all"),
        ("one chat is stale", "rebuild-readmodel --type all --id UUID"),
        ("why, since when", "verify-consistency --type all --id UUID"),
        ("what events did", "history --type chat --id UUID"),
        ("many are stale", "repair-queue stats; rebuild-readmodel --type all --all"),
        ("a new projection", "rebuild-readmodel --type chat --all --strategy shadow"),
        ("a rebuild stopped", "doctor"),
        ("a first try", "demo"),
    ),
    "Settings": (
        ("READMODEL_MONGODB_URI", "connection string; unset: an embedded server"),
        ("READMODEL_DATABASE", "database of events and read models (flowra)"),
        ("READMODEL_…", "docs/settings.md; --verbose shows the current values"),
    ),
    "Exit codes": (
        ("0", "all well"),
        ("1", "discrepancies, undone aggregates, or an unknown id"),
        ("2", "wrong usage or a wrong setting"),
        ("3", "MongoDB or Dagster does not answer, or a right is missing"),
        ("4", "an operation failed, in MongoDB or here, or a worker was killed"),
        ("5", "no event at all (a mistyped name?); nothing was changed"),
        ("6", "the output could not be written: a full disk"),
        ("130", "interrupted; the message has the command that continues"),
        ("141", "the reader of the output is gone, as after `| head`"),
    ),
}


class Map(Group):
    """The top group; its help lists all commands."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Remember the typed arguments before they are parsed."""
        voice.listen(args)
        with _in_a_document(lambda: None):
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Report a usage error of a command, with `--json` as a document."""
        with _in_a_document(lambda: ctx.invoked_subcommand):
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands before options, because people look for commands first."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        command: Any
        for name, command in self.commands.items():
            below = command.commands if isinstance(command, TyperGroup) else {"": command}
            sections[command.rich_help_panel] += [
                (f"{name} {word}".rstrip(), item.get_short_help_str(limit=200)) for word, item in below.items()
            ]
        # One column width for all, so that the columns align.
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:<{width}}", text) for name, text in rows])
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Nothing, because the top help lists them already."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Where to start, settings, exit codes."""
        for heading, rows in ENDING.items():
            with formatter.section(heading):
                formatter.write_dl(rows)
