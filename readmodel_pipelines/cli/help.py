"""Help that reads as a map: the commands under headings, subcommands spelled out, then where to start.

A command's heading is its `rich_help_panel`, one of `HEADINGS`. Nothing is imported but Typer: help is instant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

from readmodel_pipelines.cli.voice import voice_options

LOOK, MEND, QUEUE, REBUILDS = "Look", "Mend", "Repair queue", "Rebuilds"
SET_UP, OPERATE = "Set up", "Operate"
HEADINGS = (LOOK, MEND, QUEUE, REBUILDS, SET_UP, OPERATE)

_OTHERS = "Commands"


class Group(TyperGroup):
    """A group whose commands all take `--quiet`, `--verbose` and `--json`, as it does itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params += voice_options()
        for command in self.commands.values():
            if not isinstance(command, Group):
                command.params += voice_options()


class Map(Group):
    """The topmost group; `ending` has sections of (name, text) to end its help with."""

    ending: dict[str, list[tuple[str, str]]] = {}  # noqa: RUF012 - set once, where the application is put together

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands before options: they are what somebody looks for."""
        sections: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for heading, name, command in self._spelled_out():
            sections[heading].append((name, command.get_short_help_str(limit=200)))
        # One column for all, so that the eye runs down it.
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for heading in (*HEADINGS, _OTHERS):
            if heading in sections:
                with formatter.section(heading):
                    formatter.write_dl([(f"{name:<{width}}", text) for name, text in sections[heading]])
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Nothing: the map has them."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Where to start, settings, exit codes."""
        for heading, rows in self.ending.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _spelled_out(self) -> Iterator[tuple[str, str, Any]]:
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or _OTHERS
            if isinstance(command, TyperGroup):
                yield from ((heading, f"{name} {below}", item) for below, item in command.commands.items())
            else:
                yield heading, name, command
