"""The embedded server from the command line: start, stop, status."""

from __future__ import annotations

from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.settings import Settings, load_settings

_NOT_USED = "READMODEL_MONGODB_URI is set, so the embedded server is not used."


def start() -> None:
    """Start it, or say that it runs.

    Raises:
        UsageError: commands would not use it.
    """
    settings = load_settings()
    if settings.mongodb_uri is not None:
        raise UsageError(_NOT_USED, hint="Unset it to work with the embedded server.")
    already = embedded.status(settings).running
    embedded.ensure_running(settings)
    _show("start", settings, "already running" if already else "started")


def stop() -> None:
    """Shut it down, or say that none ran."""
    settings = load_settings()
    _note_when_not_used(settings)
    ended = embedded.stop(settings)
    said = "The embedded server was stopped." if ended else "No embedded server was running."
    voice.result({"verb": "stop", "stopped": ended}, [said])


def status() -> None:
    """Say what is known of it."""
    settings = load_settings()
    _note_when_not_used(settings)
    _show("status", settings, "")


def _note_when_not_used(settings: Settings) -> None:
    if settings.mongodb_uri is not None:
        voice.note(f"{_NOT_USED} Commands go to {settings.shown_uri()}.")


def _show(verb: str, settings: Settings, word: str) -> None:
    found = embedded.status(settings)
    rows = {
        "running": word or ("yes" if found.running else "no"),
        "uri": found.uri,
        "data dir": str(found.data_dir),
        "pid": "-" if found.pid is None else str(found.pid),
        "version": found.version or "-",
    }
    document = {
        "verb": verb,
        "running": found.running,
        "uri": found.uri,
        "data_dir": str(found.data_dir),
        "pid": found.pid,
        "version": found.version,
    }
    voice.result(document, [f"{name:<9} {value}" for name, value in rows.items()])
