"""Look after it: `doctor`, `metrics`."""

from __future__ import annotations

from typing import Annotated

import typer

from readmodel_pipelines.cli.failures import in_words
from readmodel_pipelines.cli.help import OPERATE

app = typer.Typer()


@app.command("doctor", rich_help_panel=OPERATE, short_help="Look at everything, and say what to do about the rest.")
def doctor(
    role: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="ROLE",
            help="What the user is meant for, a role of `readmodel rights`; it need not have the rights of others.",
        ),
    ] = "dagster",
) -> None:
    """Look at everything that rebuilds, repairs and verifications need, and say what to do about what is not right.

    Settings, connection, version, replica set, clock, rights, collections, indexes, how the main queries would be
    answered, history of changes, repair queue, findings, leases, rebuilds. Writes nothing and starts nothing; --verbose
    shows every setting. The exit code is 1 when there are problems, 0 with warnings alone, and 3 without MongoDB.
    """
    with in_words("doctor"):
        from readmodel_pipelines.cli.doctor import show

        code = show(role=role)
    raise typer.Exit(code)


@app.command("metrics", rich_help_panel=OPERATE, short_help="Serve metrics for Prometheus, or print them once.")
def metrics(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to serve at; 0 takes a free one and says which.")
    ] = 9464,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one. There is no password and no TLS.")
    ] = "127.0.0.1",
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics and end, for a textfile collector; serve nothing.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long a scrape waits for MongoDB at most.")
    ] = 5.0,
) -> None:
    """Serve metrics of queue, findings, verifications and rebuilds, for Prometheus.

    MongoDB is asked at each scrape: counts by index and single documents, no event. It need not be there: then the
    metrics say readmodel_up 0, also with --once, and the exit code is 0. The embedded server is not started.
    """
    with in_words("metrics"):
        from readmodel_pipelines.cli.metrics import serve, show

        if once:
            show(seconds=timeout)
        else:
            serve(host=host, port=port, seconds=timeout)
