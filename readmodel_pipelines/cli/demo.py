"""The demo from the command line: gives it a voice and the summaries' look, and serves Dagster's UI at its end."""

from __future__ import annotations

import typer

from readmodel_pipelines.cli import dagster_ui
from readmodel_pipelines.cli.output import human_lines
from readmodel_pipelines.demo.run import refuse_other_servers, run_demo
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import load_settings


def play(*, chats: int, ui: bool, port: int | None) -> bool:
    """Run it; True when it found every damage and ended with healthy read models."""
    settings = load_settings()
    refuse_other_servers(settings)
    free = dagster_ui.choose_port(port) if ui else None
    clean = run_demo(settings, chats=chats, say=typer.echo, show=_show)
    typer.echo(
        "The embedded server goes on; `readmodel verify-consistency --type all --all` meets it, "
        "`readmodel server stop` ends it."
    )
    if free is not None:
        typer.echo("9. Start Dagster's UI" if clean else "The demo did not end well. Dagster's UI starts all the same.")
        dagster_ui.serve(settings, free, typer.echo)
    return clean


def _show(summary: Summary, findings: int) -> None:
    typer.echo("\n".join(f"   {line}".rstrip() for line in human_lines(summary, shown_findings=findings)) + "\n")
