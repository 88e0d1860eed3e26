"""Reports work of the command line to Dagster as observations, if READMODEL_TELL_DAGSTER is set."""

from readmodel_pipelines.cli.dagster.web_server import WebServer
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import numbers, storable

_SAID_OF = {"verify": "verified", "rebuild": "rebuilt", "dry_run": "tried"}


def tell_dagster(settings: Settings, summary: Summary, aggregate_id: str | None) -> None:
    """Record the work on the pages of the assets; an error of Dagster is only a note."""
    server = WebServer(settings)
    what = f"aggregate {aggregate_id}" if aggregate_id else summary.scope.coverage or "every aggregate"
    try:
        for read_model, counts in summary.read_models.items():
            found = {name: number for name, number in counts.as_dict().items() if number}
            said = f"The command line {_SAID_OF[summary.verb]} {what}: {numbers(found) or 'none found'}."
            # As texts, because Dagster would plot numbers together with those of its own verifications.
            texts = {name: f"{number:,}" for name, number in found.items()}
            server.observe(read_model, storable(said), {"verb": summary.verb, "by": "command line", **texts})
    except ReadModelError as error:
        voice.note(f"Dagster did not record this: {error.message}")
