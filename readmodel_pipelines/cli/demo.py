"""`demo`: prints the demo's steps and summaries, then serves Dagster's UI."""

from typing import TYPE_CHECKING, Annotated

import typer

from readmodel_pipelines.cli.terminal.command import Interrupted, command
from readmodel_pipelines.cli.terminal.help import SET_UP
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.wording import one_line

if TYPE_CHECKING:
    from readmodel_pipelines.reconcile.summary import Summary
    from readmodel_pipelines.settings import Settings

app = typer.Typer()


@command(app, "demo", "Try everything on sample data, then serve the web UI.", heading=SET_UP)
def demo(
    no_ui: Annotated[
        bool, typer.Option("--no-ui", help="End after the last verification; the exit code is 0 if it is clean.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="Port of the Dagster UI. Default: 3000, or a free one."),
    ] = None,
    chats: Annotated[int, typer.Option(metavar="N", min=1, max=1_000_000, help="Number of sample chats.")] = 300,
) -> bool:
    """Try everything on sample data.

    Fills the embedded server, damages documents in every way, verifies, rebuilds, verifies, then serves the Dagster UI.
    Refused if READMODEL_MONGODB_URI is set, or if READMODEL_DATABASE holds data of somebody else. Drops the data of an
    earlier demo first.
    """
    from readmodel_pipelines.cli.dagster import ui
    from readmodel_pipelines.cli.terminal.summary import human_lines
    from readmodel_pipelines.demo.run import run_demo, traffic_in_background
    from readmodel_pipelines.settings import load_settings
    from readmodel_pipelines.verification.folder import folder_of_reports
    from readmodel_pipelines.verification.serving import serving_reports

    settings = load_settings()
    free = ui.choose_port(port) if not no_ui else None
    shown: list[Summary] = []

    def show(summary: "Summary", findings: int) -> None:
        shown.append(summary)
        lines = human_lines(summary, shown_findings=findings)
        voice.say("\n".join(f"   {one_line(line)}".rstrip() for line in lines) + "\n")

    step = ""

    def say(line: str) -> None:
        nonlocal step
        step = line if line[:1].isdigit() else step
        voice.say(line)

    try:
        clean = run_demo(settings, chats=chats, say=say, show=show)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted in step {step}." if step else "Interrupted before the first step.",
            hint="`readmodel server stop` stops the server. The next `readmodel demo` drops the data of this one.",
            done={"step": step, "steps": [summary.as_json() for summary in shown]},
        ) from None
    if free is not None:
        voice.say("12. Start Dagster's UI" if clean else "The demo failed. Dagster's UI starts anyway.")
        voice.say(
            "   An application keeps saving events, and some of its updates fail.\n   Watch repair_queue fill, its "
            "sensor launch repair_read_models, and the queue drain."
        )
        with traffic_in_background(settings), serving_reports(folder_of_reports(settings), ui.HOST, 0) as at:
            address = f"http://{ui.HOST}:{free}"
            links = {"READMODEL_REPORTS_URL": f"http://{ui.HOST}:{at}", "READMODEL_DAGSTER_URL": address}
            told = voice.note if voice.as_json else voice.line
            ui.serve(settings, free, told, links, lambda: _begin_a_history(settings, address))
    voice.say(
        "The embedded server keeps running. `readmodel verify-consistency --type all --all` verifies its data; "
        "`readmodel server stop` stops it."
    )
    document = {"verb": "demo", "clean": clean, "steps": [summary.as_json() for summary in shown]}
    voice.result(document, ["All damage was found and repaired." if clean else "The demo failed."])
    return clean


def _begin_a_history(settings: "Settings", address: str) -> None:
    """Have Dagster materialize and check both read models, so that its pages show a history."""
    from pydantic import SecretStr

    from readmodel_pipelines.cli.dagster.launch import materialize
    from readmodel_pipelines.cli.dagster.web_server import WebServer
    from readmodel_pipelines.errors import ReadModelError
    from readmodel_pipelines.projections.registry import projections_for

    server = WebServer(settings.model_copy(update={"dagster_url": SecretStr(address)}))
    try:
        run = materialize(server, [item.read_model for item in projections_for(settings)])
        voice.note(f"Dagster materializes and checks both read models in this run: {run}")
    except ReadModelError as error:
        voice.note(f"Dagster's pages have no history yet: {error.message}")
