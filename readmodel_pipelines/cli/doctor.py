"""`doctor`: prints its results as lines or as a JSON document. Each has a mark, a name, a sentence and a hint."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import OPERATE
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.wording import count

if TYPE_CHECKING:
    from readmodel_pipelines.doctor.check import Diagnosis

_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}
_NARROWEST = 60

app = typer.Typer()


@command(app, "doctor", "Check the setup and suggest fixes.", heading=OPERATE)
def doctor(
    role: Annotated[
        str,
        typer.Option("--for", metavar="ROLE", help="Role of `readmodel rights` that the database user should have."),
    ] = "dagster",
) -> int:
    """Check the whole setup and suggest a fix for each problem.

    Checks settings, connection, version, replica set, clock, rights, collections, indexes, plans of the main queries,
    oplog, repair queue, findings, leases and rebuilds. Writes nothing and starts nothing. --verbose shows every
    setting. The exit code is 1 with a problem, 0 with warnings only, and 3 without MongoDB.
    """
    from readmodel_pipelines.doctor.examine import examine
    from readmodel_pipelines.settings import load_settings

    diagnosis = examine(load_settings(), role)
    voice.result({"verb": "doctor", **diagnosis.as_json()}, _lines(diagnosis))
    return diagnosis.exit_code


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    shown = [check for check in diagnosis.checks if check.state == "problem" or not voice.quiet]
    width = max((len(check.name) for check in shown), default=0)
    column = " " * (width + 4)
    for check in shown:
        yield from _wrapped(check.found, f"{_MARKS[check.state]} {check.name:<{width}}  ", column)
        for detail in check.details:
            yield from _wrapped(detail, column, f"{column}  ")
        if check.hint:
            yield from _wrapped(check.hint, f"{column}→ ", f"{column}  ")
    if voice.verbose:
        yield ""
        width = max(len(item["variable"]) for item in diagnosis.settings)
        for item in diagnosis.settings:
            yield f"  {item['variable']:<{width}}  {item['from']:<11}  {item['value']}"
    if not voice.quiet:
        yield ""
        yield _ending(diagnosis)


def _wrapped(text: str, first: str, others: str) -> list[str]:
    """Wrapped to the terminal's width; a single line elsewhere, for `grep`."""
    if not sys.stdout.isatty():
        return [f"{first}{text}"]
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _ending(diagnosis: Diagnosis) -> str:
    if diagnosis.not_checked:
        return f"Not checked without MongoDB: {', '.join(diagnosis.not_checked)}."
    states = [check.state.value for check in diagnosis.checks]
    told = [count(states.count(word), word) for word in ("problem", "warning") if word in states]
    if not told:
        return "All is well."
    return f"{' and '.join(told)}." if "problem" in states else f"All is well, with {told[0]}."
