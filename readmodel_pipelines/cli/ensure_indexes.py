"""`ensure-indexes`: makes the indexes that are missing."""

from typing import Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import SET_UP
from readmodel_pipelines.cli.terminal.voice import voice

app = typer.Typer()


@command(app, "ensure-indexes", "Make the indexes that are missing.", heading=SET_UP)
def ensure_indexes(
    no_version_index: Annotated[
        bool,
        typer.Option(
            "--no-version-index",
            help="Leave out the index on the events that only `verify-consistency --tier versions` needs.",
        ),
    ] = False,
) -> None:
    """Make the indexes that are missing.

    On events, read models, repair queue and what verifications remember. Changes no document and drops no index.
    """
    from readmodel_pipelines.mongo import indexes

    with opened("indexes") as (database, settings):
        made = indexes.ensure_indexes(database, settings, for_versions=not no_version_index)
    width = max(map(len, made))
    lines = [f"{name:<{width}}  {'made ' + ', '.join(new) if new else 'all there'}" for name, new in made.items()]
    voice.result({"verb": "ensure_indexes", "made": made}, [*lines, "Every index is there."])
