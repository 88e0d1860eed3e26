"""Options that several commands share, and the completion of `--type`. Completion asks no server.

Closed choices are literals, which Typer shows, completes and checks. `--type` is open, because READMODEL_PROJECTIONS
adds read models; the command itself refuses unknown ones.
"""

import os
from typing import Annotated

import typer

from readmodel_pipelines.projections.names import ALL, BUILT_IN

# A test keeps it equal to that of a summary, which imports bson.
DEFAULT_MAX_FINDINGS = 1000


def read_model_choices() -> tuple[str, ...]:
    """The names of the registry, and `all`; reads READMODEL_PROJECTIONS only if it is set."""
    if not os.environ.get("READMODEL_PROJECTIONS"):
        return (*BUILT_IN, ALL)
    from readmodel_pipelines.errors import ReadModelError
    from readmodel_pipelines.projections.registry import names, projections_for
    from readmodel_pipelines.settings import load_settings

    try:
        return (*names(projections_for(load_settings())), ALL)
    except ReadModelError:
        # The command reports the error in the settings; its help still works.
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
        help="Continue although there is no event at all. Otherwise this is an error (exit code 5): "
        "the usual reason is a mistyped name.",
    ),
]
MaxFindings = Annotated[
    int,
    typer.Option(
        "--max-findings",
        metavar="N",
        min=0,
        max=1_000_000,
        help="Maximum number of findings to keep. Counts are always complete.",
    ),
]
Launch = Annotated[
    bool, typer.Option("--launch", help="Let Dagster at READMODEL_DAGSTER_URL run it, and follow the run.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
