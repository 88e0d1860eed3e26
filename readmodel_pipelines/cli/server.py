"""`server …`: the embedded server: start, stop, status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import UsageError

if TYPE_CHECKING:
    from readmodel_pipelines.settings import Settings

_NOT_USED = "READMODEL_MONGODB_URI is set, so the embedded server is not used."

app = group("server", "Start, stop or show the embedded server.\n\nIt is used when READMODEL_MONGODB_URI is not set.")


@command(app, "start", "Start the embedded server if it does not run.")
def start() -> None:
    """Start the embedded server if it does not run. It runs until `readmodel server stop`."""
    from readmodel_pipelines.embedded import server
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    if settings.mongodb_uri is not None:
        raise UsageError(_NOT_USED, hint="Unset READMODEL_MONGODB_URI to use the embedded server.")
    already = server.status(settings).running
    server.ensure_running(settings)
    _show("start", settings, "already running" if already else "started")


@command(app, "stop", "Stop the embedded server and keep its data.")
def stop() -> None:
    """Stop the embedded server and keep its data."""
    from readmodel_pipelines.embedded import server

    ended = server.stop(_settings())
    said = "The embedded server was stopped." if ended else "No embedded server was running."
    voice.result({"verb": "stop", "stopped": ended}, [said])


@command(app, "status", "Show whether the embedded server runs, and where.")
def status() -> None:
    """Show whether the embedded server runs, its address and its program. Starts nothing."""
    _show("status", _settings())


def _settings() -> Settings:
    """The settings; warns if commands use another server."""
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    if settings.mongodb_uri is not None:
        voice.note(f"{_NOT_USED} Commands go to {settings.shown_uri()}.")
    return settings


def _show(verb: str, settings: Settings, word: str = "") -> None:
    from readmodel_pipelines.embedded import server

    found = server.status(settings)
    about = {"uri": found.uri, "data_dir": str(found.data_dir), "pid": found.pid, "version": found.version}
    rows = {"running": word or ("yes" if found.running else "no"), **about}
    lines = [f"{name.replace('_', ' '):<9} {value or '-'}" for name, value in rows.items()]
    voice.result({"verb": verb, "running": found.running, **about}, lines)
