"""Asks for confirmation before an irreversible action; only at a terminal, because nobody can answer elsewhere."""

import sys

import typer

from readmodel_pipelines.errors import UsageError


def make_sure(question: str, *, yes: bool, kept: str, if_so: str = "") -> None:
    """Continue if `--yes` was given, or if the person at the terminal confirms.

    Raises:
        UsageError: nobody confirmed. `kept` is its message, and says what stays unchanged.
    """
    if yes or (sys.stdin.isatty() and typer.confirm(question, err=True)):
        return
    raise UsageError(kept, hint=f"Add --yes {if_so}".rstrip() + ".")
