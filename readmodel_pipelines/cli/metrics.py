"""Metrics from the command line: served until somebody ends it, or printed once."""

from __future__ import annotations

import threading

import typer

from readmodel_pipelines.cli.voice import complain, voice
from readmodel_pipelines.metrics import Exporter, serving, text
from readmodel_pipelines.settings import load_settings


def show(*, seconds: float) -> None:
    """One scrape on stdout."""
    with Exporter(load_settings(), seconds, complain) as exporter:
        shown = text(exporter)
    voice.result({"verb": "metrics", "text": shown}, [shown.rstrip("\n")])


def serve(*, host: str, port: int, seconds: float) -> None:
    """Answer scrapes until Ctrl-C or a polite kill."""
    with Exporter(load_settings(), seconds, complain) as exporter, serving(exporter, host, port) as at:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{at}/metrics"
        voice.note(f"Metrics at {address}; Ctrl-C ends it.")
        try:
            # Whoever starts it hears at once whether there is something to tell.
            exporter.look()
            threading.Event().wait()
        except KeyboardInterrupt:
            voice.document({"verb": "metrics", "served": address})
            raise typer.Exit(0) from None
