"""`metrics`: serves metrics until it is ended, or prints them once."""

import threading
from typing import Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import OPERATE
from readmodel_pipelines.cli.terminal.voice import complain, voice

app = typer.Typer()


@command(app, "metrics", "Serve metrics for Prometheus, or print them once.", heading=OPERATE)
def metrics(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to serve at; 0 picks a free one and prints it.")
    ] = 9464,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 is every one. Without password and TLS."),
    ] = "127.0.0.1",
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics once and exit, for a textfile collector.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3_600, metavar="SECONDS", help="Longest wait of a scrape for MongoDB.")
    ] = 5.0,
) -> None:
    """Serve metrics of queue, findings, verifications and rebuilds, for Prometheus.

    Each scrape reads counts by index and single documents from MongoDB, never an event. If MongoDB does not answer,
    readmodel_up is 0 and the exit code is 0, also with --once. Does not start the embedded server.
    """
    from readmodel_pipelines.metrics.exporter import Exporter, serving, text
    from readmodel_pipelines.settings import load_settings

    with Exporter(load_settings(), timeout, complain) as exporter:
        if once:
            shown = text(exporter)
            voice.result({"verb": "metrics", "text": shown}, shown.splitlines())
            return
        with serving(exporter, host, port) as at:
            address = f"http://{f'[{host}]' if ':' in host else host}:{at}/metrics"
            voice.note(f"Metrics at {address}; Ctrl-C ends it.")
            try:
                # Checked at once, so that an unusable setup is reported when it starts.
                exporter.look()
                threading.Event().wait()
            except KeyboardInterrupt:
                voice.document({"verb": "metrics", "served": address})
