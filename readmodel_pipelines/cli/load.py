"""`load`: inserts a folder of documents into the database, and reports the result for each file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readmodel_pipelines.cli.terminal.command import Interrupted, again, command
from readmodel_pipelines.cli.terminal.help import SET_UP
from readmodel_pipelines.cli.terminal.voice import SECONDS_BETWEEN_LINES, voice
from readmodel_pipelines.wording import Throttle, one_line

if TYPE_CHECKING:
    from readmodel_pipelines.cli.document_files import Loaded
    from readmodel_pipelines.settings import Settings

app = typer.Typer()


@command(app, "load", "Load a folder of documents, with indexes.", heading=SET_UP)
def load(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of gzipped Extended JSON: *.jsonl.gz.")],
) -> None:
    """Load a folder of documents and create the indexes.

    Reads events.jsonl.gz, chats_read_model.jsonl.gz, tasks_read_model.jsonl.gz and repair_queue.jsonl.gz, those that
    are there. A document that the database holds already (same _id or unique key) is left as it is.
    """
    from readmodel_pipelines.cli.document_files import load_files, loadable_files
    from readmodel_pipelines.mongo.connection import open_database
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    # Checked first, so that a wrong path does not start a server.
    paths, skipped = loadable_files(folder, settings)
    for name in skipped:
        voice.line(one_line(f"{name}: skipped, because it belongs to no collection"))
    done: dict[str, Loaded] = {}
    due = Throttle(SECONDS_BETWEEN_LINES)
    with open_database(settings, "load", tell=voice.note) as database:
        try:
            for loaded in load_files(database, settings, paths):
                done[loaded.file] = loaded
                if loaded.whole:
                    voice.line(_in_words(loaded, settings))
                elif due():
                    voice.note(f"{_in_words(loaded, settings)} so far")
        except KeyboardInterrupt:
            told = "; ".join(_in_words(loaded, settings) for loaded in done.values()) or "at most one batch was loaded"
            raise Interrupted(
                f"Interrupted: {told}.",
                hint=f"Loaded documents are left unchanged. Run again: {again()}",
                done={"files": [loaded.as_json() for loaded in done.values()]},
            ) from None
    document = {"verb": "load", "files": [loaded.as_json() for loaded in done.values()], "skipped": skipped}
    voice.result(document, ["Loaded, and all indexes exist. Next: `readmodel verify-consistency --type all --all`."])


def _in_words(loaded: Loaded, settings: Settings) -> str:
    there = f", {loaded.present:,} already present" if loaded.present else ""
    return one_line(f"{loaded.file} → {settings.database}.{loaded.collection}: {loaded.inserted:,} inserted{there}")
