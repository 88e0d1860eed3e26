"""Options that several commands take, and what the shell completes them to. Completion asks no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from readmodel_pipelines.cli.choices import read_model_choices

DEFAULT_MAX_FINDINGS = 1000


def one_of(choices: str) -> dict[str, Any]:
    """How an option shows the values between `|` that it takes, and completes them; who reads it refuses others."""
    return {"metavar": choices, "autocompletion": _completing(choices)}


def _completing(choices: str) -> Callable[[str], list[str]]:
    def begins_with(incomplete: str) -> list[str]:
        return [choice for choice in choices.split("|") if choice.startswith(incomplete)]

    return begins_with


ReadModel = Annotated[
    str,
    typer.Option(
        "--type",
        help="Read model: chat is chats_read_model, task is tasks_read_model, all is every one of them.",
        **one_of("|".join(read_model_choices())),
    ),
]
AggregateId = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="One aggregate. Either this or --all.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="Every aggregate. Either this or --id.")]
MaxFindings = Annotated[
    int, typer.Option("--max-findings", min=0, help="Keep at most so many findings; counts are always whole.")
]
Launch = Annotated[
    bool,
    typer.Option(
        "--launch", help="Submit it to Dagster at READMODEL_DAGSTER_URL instead of running it here, and follow the run."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
