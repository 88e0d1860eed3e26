"""`reports`: serves the reports of Dagster's runs to a browser until it is ended."""

import threading
from typing import Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import LOOK
from readmodel_pipelines.cli.terminal.voice import voice

app = typer.Typer()


@command(app, "reports", "Serve the reports of Dagster's runs to a browser.", heading=LOOK)
def reports(
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on. 0: a free one, which is printed.")
    ] = 9465,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all. No password, no TLS.")
    ] = "127.0.0.1",
) -> None:
    """Serve the reports that Dagster's runs wrote to READMODEL_REPORTS_DIR, the newest first.

    Start it on the machine of the runs, and set READMODEL_REPORTS_URL to its address. The pages of runs and checks then
    link their report. It opens no database.
    """
    from readmodel_pipelines.settings import load_settings
    from readmodel_pipelines.verification.folder import folder_of_reports
    from readmodel_pipelines.verification.serving import serving_reports

    folder = folder_of_reports(load_settings())
    with serving_reports(folder, host, port) as at:
        address = f"http://{f'[{host}]' if ':' in host else host}:{at}/"
        voice.note(f"Reports of {folder} at {address}; Ctrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            voice.document({"verb": "reports", "served": address})
