"""The demo from the command line: gives it a voice and the summaries' look, and serves Dagster's UI at its end."""

from __future__ import annotations

from functools import partial

from readmodel_pipelines.cli import dagster_ui
from readmodel_pipelines.cli.interrupted import Interrupted
from readmodel_pipelines.cli.output import human_lines
from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.demo.run import FAULTS, note_event, refuse_other_servers, run_demo
from readmodel_pipelines.demo.traffic import traffic_in_background
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import load_settings

_SECONDS_BETWEEN_EVENTS = 1.0


def play(*, chats: int, ui: bool, port: int | None) -> bool:
    """Run it; True when it found every damage and ended with healthy read models."""
    settings = load_settings()
    refuse_other_servers(settings)
    free = dagster_ui.choose_port(port) if ui else None
    shown: list[Summary] = []

    def show(summary: Summary, findings: int) -> None:
        shown.append(summary)
        lines = human_lines(summary, shown_findings=findings)
        voice.say("\n".join(f"   {line}".rstrip() for line in lines) + "\n")

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
            hint="The next `readmodel demo` drops what this one made; `readmodel server stop` ends the server.",
            done={"step": step, "steps": [summary.as_json() for summary in shown]},
        ) from None
    if free is not None:
        voice.say("12. Start Dagster's UI" if clean else "The demo did not end well. Dagster's UI starts all the same.")
        voice.say(
            "   An application goes on saving events meanwhile, and some of its updates fail: see repair_queue\n"
            "   fill, its sensor launch repair_read_models, and the queue drain."
        )
        with (
            open_database(settings) as database,
            traffic_in_background(
                settings,
                seconds_between=_SECONDS_BETWEEN_EVENTS,
                faults=FAULTS,
                before_save=partial(note_event, database, settings),
            ),
        ):
            dagster_ui.serve(settings, free, voice.note if voice.as_json else voice.line)
    voice.say(
        "The embedded server goes on; `readmodel verify-consistency --type all --all` meets it, "
        "`readmodel server stop` ends it."
    )
    document = {"verb": "demo", "clean": clean, "steps": [summary.as_json() for summary in shown]}
    voice.result(document, ["Every damage was found and mended." if clean else "The demo did not end well."])
    return clean
