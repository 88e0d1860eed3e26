"""What the doctor found, as lines or as a document: a mark, a name and a sentence, and below it what to do."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator

from readmodel_pipelines.cli.voice import plain, voice
from readmodel_pipelines.doctor import Check, Diagnosis, Health, examine
from readmodel_pipelines.settings import load_settings

_MARKS = {Health.OK: "✓", Health.WARNING: "!", Health.PROBLEM: "✗"}
_NARROWEST = 60


def show(*, role: str) -> int:
    """Examine everything and say what was found; gives the exit code."""
    diagnosis = examine(load_settings(), role)
    voice.result({"verb": "doctor", **diagnosis.as_json()}, [plain(line) for line in _lines(diagnosis)])
    return diagnosis.exit_code


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    shown = [item for item in diagnosis.checks if item.state is Health.PROBLEM or not voice.quiet]
    width = max((len(item.name) for item in shown), default=0)
    for item in shown:
        yield from _check_lines(item, width)
    if voice.verbose:
        yield from _settings_lines(diagnosis)
    if voice.quiet:
        return
    yield ""
    yield _ending(diagnosis)


def _check_lines(check: Check, width: int) -> Iterator[str]:
    column = " " * (width + 4)
    yield from _wrapped(check.found, f"{_MARKS[check.state]} {check.name:<{width}}  ", column)
    for detail in check.details:
        yield from _wrapped(detail, column, f"{column}  ")
    if check.hint:
        yield from _wrapped(check.hint, f"{column}→ ", f"{column}  ")


def _wrapped(text: str, first: str, others: str) -> list[str]:
    """On a terminal wrapped at its width; elsewhere one line, for `grep`."""
    if not sys.stdout.isatty():
        return [f"{first}{text}"]
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _settings_lines(diagnosis: Diagnosis) -> Iterator[str]:
    width = max(len(item.variable) for item in diagnosis.settings)
    yield ""
    for item in diagnosis.settings:
        source = "environment" if item.from_environment else "default"
        yield f"  {item.variable:<{width}}  {source:<11}  {item.value}"


def _ending(diagnosis: Diagnosis) -> str:
    problems, warnings = diagnosis.number(Health.PROBLEM), diagnosis.number(Health.WARNING)
    if diagnosis.not_checked:
        return f"Without MongoDB nobody could look at: {', '.join(diagnosis.not_checked)}."
    told = [
        f"{number} {word}{'s' if number > 1 else ''}"
        for number, word in ((problems, "problem"), (warnings, "warning"))
        if number
    ]
    if not told:
        return "All is well."
    return f"{' and '.join(told)}." if problems else f"All is well, with {told[0]}."
