"""Commands that prepare a database: make its indexes, load documents into it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from readmodel_pipelines.cli.interrupted import Interrupted, again
from readmodel_pipelines.cli.loading import Loaded, load_folder, loadable_files
from readmodel_pipelines.cli.progress import SECONDS_BETWEEN_LINES
from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.mongo import indexes
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings, load_settings


def make_indexes(*, for_versions: bool) -> None:
    """Make what is missing and say what was made; the index for the tier of versions can be left out."""
    settings = load_settings()
    with open_database(settings, "indexes") as database:
        made = indexes.ensure_indexes(database, settings, projections_for(settings), for_versions=for_versions)
    width = max(map(len, made))
    lines = [f"{name:<{width}}  {'made ' + ', '.join(new) if new else 'all there'}" for name, new in made.items()]
    voice.result({"verb": "ensure_indexes", "made": made}, [*lines, "Every index is there."])


def load_documents(folder: Path) -> None:
    """Load the folder's files and say for each what became of its documents."""
    settings = load_settings()
    # Looked at first: a wrong path must not start a server.
    files = loadable_files(folder, settings)
    for name in files.skipped:
        voice.line(f"{name}: skipped, no collection is loaded from it")
    done: dict[str, Loaded] = {}
    said = time.monotonic()

    def so_far(loaded: Loaded) -> None:
        nonlocal said
        done[loaded.file] = loaded
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            voice.note(f"{_in_words(loaded, settings)} so far")

    with open_database(settings, "load") as database:
        try:
            for loaded in load_folder(database, settings, files, so_far):
                done[loaded.file] = loaded
                voice.line(_in_words(loaded, settings))
        except KeyboardInterrupt:
            told = "; ".join(_in_words(loaded, settings) for loaded in done.values()) or "at most a batch was loaded"
            raise Interrupted(
                f"Interrupted: {told}.",
                hint=f"What is there already is left as it is; go on with: {again()}",
                done={"files": [asdict(loaded) for loaded in done.values()]},
            ) from None
    document = {"verb": "load", "files": [asdict(loaded) for loaded in done.values()], "skipped": files.skipped}
    voice.result(document, ["Loaded, with every index. Next: `readmodel verify-consistency --type all --all`."])


def _in_words(loaded: Loaded, settings: Settings) -> str:
    there = f", {loaded.present:,} there already" if loaded.present else ""
    return f"{loaded.file} → {settings.database}.{loaded.collection}: {loaded.inserted:,} inserted{there}"
