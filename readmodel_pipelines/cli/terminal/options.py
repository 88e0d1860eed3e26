"""Options that several commands take, and what the shell completes `--type` to. Completion asks no server.

Choices that are closed are literals, which Typer shows, completes and checks. Those of `--type` are not: the setting
READMODEL_PROJECTIONS adds to them, and whoever reads the option refuses others.
"""

import os
from typing import Annotated

import typer

from readmodel_pipelines.projections.names import ALL, BUILT_IN

# A test keeps it in step with that of a summary, which imports bson.
DEFAULT_MAX_FINDINGS = 1000


def read_model_choices() -> tuple[str, ...]:
    """The names of the registry, and `all`; only where READMODEL_PROJECTIONS adds some is it read."""
    if not os.environ.get("READMODEL_PROJECTIONS"):
        return (*BUILT_IN, ALL)
    from readmodel_pipelines.errors import ReadModelError
    from readmodel_pipelines.projections.registry import names, projections_for
    from readmodel_pipelines.settings import load_settings

    try:
        return (*names(projections_for(load_settings())), ALL)
    except ReadModelError:
        # The command says what is wrong with the settings; its help is there all the same.
        return (*BUILT_IN, "…", ALL)


_CHOICES = read_model_choices()


ReadModelName = Annotated[
    str,
    typer.Option(
        "--type",
        help="Read model: chat is chats_read_model, task is tasks_read_model, all is every read model.",
        metavar="|".join(_CHOICES),
        autocompletion=lambda incomplete: [choice for choice in _CHOICES if choice.startswith(incomplete)],
    ),
]
AggregateId = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="One aggregate. Either this or --all.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="Every aggregate. Either this or --id.")]
AllowNoEvents = Annotated[
    bool,
    typer.Option(
        "--allow-no-events",
        help="With --all: continue although there is no event at all. Otherwise this is an error (exit code 5): "
        "the usual reason is a mistyped name.",
    ),
]
MaxFindings = Annotated[
    int,
    typer.Option(
        "--max-findings", min=0, max=1_000_000, help="Maximum number of findings to keep. Counts are always complete."
    ),
]
Launch = Annotated[
    bool, typer.Option("--launch", help="Let Dagster at READMODEL_DAGSTER_URL run it, and follow the run.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
