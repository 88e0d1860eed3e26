"""`history`: shows the stream of one aggregate, and the version that the stored document equals."""

from typing import TYPE_CHECKING, Annotated

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import LOOK
from readmodel_pipelines.cli.terminal.options import ReadModelName
from readmodel_pipelines.cli.terminal.voice import voice

if TYPE_CHECKING:
    from readmodel_pipelines.history.steps import Step

app = typer.Typer()


@command(app, "history", "Show what each event of an aggregate changed.", heading=LOOK)
def history(
    read_model: ReadModelName,
    aggregate_id: Annotated[str, typer.Option("--id", metavar="UUID", help="The aggregate.", show_default=False)],
    at_version: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, metavar="N", help="End at this version.", show_default=False)
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End before the first event that occurred after this time. UTC, unless it has an offset.",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the events that changed this field.", show_default=False)
    ] = None,
) -> None:
    """Show the changes of each event of an aggregate, and the last event that set each field.

    Also shows the document at that moment, and the version that the stored document equals. Shows a malformed stream up
    to its damaged event. Writes nothing.
    """
    from readmodel_pipelines.cli.reconcile import target_of
    from readmodel_pipelines.history.formatting import end_as_json, lines_of_end, lines_of_step, step_as_json
    from readmodel_pipelines.history.history import HistoryRequest, moment_of
    from readmodel_pipelines.history.history import history as told_of
    from readmodel_pipelines.mongo.connection import open_database

    settings, names = target_of(read_model, aggregate_id, everything=False)
    request = HistoryRequest(at_version, None if at is None else moment_of(at), field)
    several, begun = len(names) > 1, False
    aggregate_id = aggregate_id.strip().lower()

    def begin() -> None:
        nonlocal begun
        if not begun:
            voice.begin({"verb": "history", "aggregate_id": aggregate_id}, "events")
            begun = True

    def tell(step: "Step") -> None:
        # Only now, because an unknown id is an error and not a history without events.
        begin()
        voice.item(step_as_json(step) if voice.as_json else {}, lines_of_step(step, several=several))

    with open_database(settings, "read_only", tell=voice.note) as database:
        found = told_of(database, settings, names, aggregate_id, request, tell)
    begin()
    what = f"--type {read_model} --id {aggregate_id}"
    voice.result(end_as_json(found), lines_of_end(found, what, whole=request.whole))
