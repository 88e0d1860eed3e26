"""Asking before something that cannot be undone: at a terminal alone, for nowhere else is there anybody to answer."""

import sys

import typer

from readmodel_pipelines.errors import UsageError


def make_sure(question: str, *, yes: bool, kept: str, if_so: str = "") -> None:
    """Go on when `--yes` was given, or somebody at the terminal says so.

    Raises:
        UsageError: nobody did; `kept` says what was left as it is.
    """
    if yes or (sys.stdin.isatty() and typer.confirm(question, err=True)):
        return
    raise UsageError(kept, hint=f"Say --yes {if_so}".rstrip() + ".")
