"""Commands that prepare a database: make its indexes, load documents into it."""

from __future__ import annotations

from pathlib import Path

import typer

from readmodel_pipelines.mongo import indexes
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.load import load_folder, loadable_files
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import load_settings


def make_indexes(*, for_versions: bool) -> None:
    """Make what is missing and say what was made; the index for the tier of versions can be left out."""
    settings = load_settings()
    with open_database(settings, "indexes") as database:
        made = indexes.ensure_indexes(database, settings, projections_for(settings), for_versions=for_versions)
    width = max(map(len, made))
    for collection, names in made.items():
        typer.echo(f"{collection:<{width}}  {'made ' + ', '.join(names) if names else 'all there'}")
    typer.echo("Every index is there.")


def load_documents(folder: Path) -> None:
    """Load the folder's files and say for each what became of its documents."""
    settings = load_settings()
    # Looked at first: a wrong path must not start a server.
    files = loadable_files(folder, settings)
    for name in files.skipped:
        typer.echo(f"{name}: skipped, no collection is loaded from it")
    with open_database(settings, "load") as database:
        for loaded in load_folder(database, settings, files):
            there = f", {loaded.present:,} there already" if loaded.present else ""
            typer.echo(f"{loaded.file} → {settings.database}.{loaded.collection}: {loaded.inserted:,} inserted{there}")
    typer.echo("Loaded, with every index. Next: `readmodel verify-consistency --type all --all`.")
