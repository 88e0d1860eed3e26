"""`ensure-indexes`: creates the missing indexes."""

import typer

from readmodel_pipelines.cli.terminal.command import command, opened
from readmodel_pipelines.cli.terminal.help import SET_UP
from readmodel_pipelines.cli.terminal.voice import voice

app = typer.Typer()


@command(app, "ensure-indexes", "Create the missing indexes.", heading=SET_UP)
def ensure_indexes() -> None:
    """Create the missing indexes.

    On events, read models, repair queue and this project's own collections. Changes no document and drops no index.
    """
    from readmodel_pipelines.mongo import indexes

    with opened("indexes") as (database, settings):
        made = indexes.ensure_indexes(database, settings)
    width = max(map(len, made))
    lines = [f"{name:<{width}}  {'created ' + ', '.join(new) if new else 'complete'}" for name, new in made.items()]
    voice.result({"verb": "ensure_indexes", "made": made}, [*lines, "No index is missing."])
