"""Set up a database: `ensure-indexes`, `rights`, `load`, `demo`, and the embedded server, `server …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from readmodel_pipelines.cli.failures import in_words
from readmodel_pipelines.cli.help import SET_UP, Group

app = typer.Typer()
server = typer.Typer(
    name="server",
    cls=Group,
    help="Start, stop or look at the embedded server.\n\nIt is used when READMODEL_MONGODB_URI is not set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ensure-indexes", rich_help_panel=SET_UP, short_help="Make the indexes that are missing.")
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
    with in_words("ensure_indexes"):
        from readmodel_pipelines.cli.database import make_indexes

        make_indexes(for_versions=not no_version_index)


@app.command("rights", rich_help_panel=SET_UP, short_help="Print the least-privilege roles of MongoDB users.")
def rights(
    role: Annotated[
        str | None, typer.Argument(metavar="ROLE", help="Its name; without one the roles are listed.")
    ] = None,
) -> None:
    """Print the least-privilege roles of MongoDB users, each as what makes it in mongosh.

    For the database and collections that the settings name. Opens no database and changes nothing.
    """
    with in_words("rights"):
        from readmodel_pipelines.cli.rights import list_roles, show_role

        if role is None:
            list_roles()
        else:
            show_role(role)


@app.command("load", rich_help_panel=SET_UP, short_help="Load a folder of documents, with indexes.")
def load(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of gzipped Extended JSON: *.jsonl.gz.")],
) -> None:
    """Load a folder of documents, with indexes.

    Reads events.jsonl.gz, chats_read_model.jsonl.gz, tasks_read_model.jsonl.gz and repair_queue.jsonl.gz, those that
    are there. A document that the database holds already (same _id or unique key) is left as it is.
    """
    with in_words("load"):
        from readmodel_pipelines.cli.database import load_documents

        load_documents(folder)


@app.command("demo", rich_help_panel=SET_UP, short_help="Show it all on sample data, then serve the web UI.")
def demo(
    no_ui: Annotated[bool, typer.Option("--no-ui", help="End after the last verification, with 0 when clean.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the Dagster UI; 3000 or a free one if not given."),
    ] = None,
    chats: Annotated[int, typer.Option(min=1, help="How many sample chats.")] = 300,
) -> None:
    """Show it all on sample data.

    Fills the embedded server, breaks documents in every way, verifies, rebuilds, verifies, then serves the Dagster UI.
    Only the embedded server: refused when READMODEL_MONGODB_URI is set, and when READMODEL_DATABASE holds data that
    the demo did not make. What an earlier demo made is dropped first.
    """
    with in_words("demo"):
        from readmodel_pipelines.cli.demo import play

        ok = play(chats=chats, ui=not no_ui, port=port)
    raise typer.Exit(0 if ok else 1)


@server.command("start", short_help="Start the embedded server if it does not run.")
def server_start() -> None:
    """Start the embedded server if it does not run. It goes on until `readmodel server stop`."""
    with in_words("start"):
        from readmodel_pipelines.cli.server import start

        start()


@server.command("stop", short_help="Shut the embedded server down; its data stay.")
def server_stop() -> None:
    """Shut the embedded server down; its data stay."""
    with in_words("stop"):
        from readmodel_pipelines.cli.server import stop

        stop()


@server.command("status", short_help="Say whether the embedded server runs, and where.")
def server_status() -> None:
    """Say whether the embedded server runs, where, and with what. Starts nothing."""
    with in_words("status"):
        from readmodel_pipelines.cli.server import status

        status()
