"""The job that shows the history of one aggregate on the page of its run, for people without a shell."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections import deque
from typing import Any

import dagster as dg

from readmodel_pipelines.events.ids import UUID
from readmodel_pipelines.history.formatting import malformed_in_words, rows_of_step, stored_in_words, value_in_words
from readmodel_pipelines.history.history import History, HistoryRequest, history, moment_of
from readmodel_pipelines.history.steps import Step
from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.config import HistoryConfig
from readmodel_pipelines.orchestration.partitions import DATABASE_TAG, tag_run
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.tables import table
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.wording import one_line

_LONGEST_VALUE = 200
_OF_EVENTS = {
    "version": "Version of the event",
    "occurred_at": "Time of the event, by the clock of its writer",
    "event_type": "Type of the event",
    "read_model": "Read model with the changed field; empty if the event changed none",
    "field": "Changed field",
    "before": "Value before the event, as Extended JSON",
    "after": "Value after the event, as Extended JSON",
}
_OF_BLAME = {
    "read_model": None,
    "field": "Field of the document",
    "value": "Value at the last event shown",
    "version": "Version of the event that last changed it",
    "event_type": "Type of that event",
}


@dg.op
def show_history_of_aggregate(context: dg.OpExecutionContext, config: HistoryConfig, mongo: MongoResource) -> None:
    """Read the events of one aggregate, and show the changes of each and the version that the stored document matches.

    Writes nothing to MongoDB.
    """
    aggregate_id = config.aggregate_id.strip().lower()
    names = [] if config.aggregate_type == ALL else [config.aggregate_type]
    tag_run(context, names, [aggregate_id] if UUID.fullmatch(aggregate_id) else [])
    # The newest lines: a stream may have a million events.
    rows: deque[dict[str, Any]] = deque(maxlen=config.max_rows)
    told = 0

    def tell(step: Step) -> None:
        nonlocal told
        for row in rows_of_step(step, _LONGEST_VALUE):
            rows.append(row)
            told += 1

    with mongo.opened(context, retried=True) as (settings, database):
        at = None if config.at is None else moment_of(config.at)
        request = HistoryRequest(config.at_version, at, config.field)
        found = history(database, settings, names, aggregate_id, request, tell)
    what = f"--type {config.aggregate_type} --id {aggregate_id}"
    sentences = [line.strip() for line in (*malformed_in_words(found), *stored_in_words(found, what))]
    for line in sentences:
        context.log.info(one_line(line))
    said: dict[str, Any] = {"aggregate_id": aggregate_id, "stands": one_line(" ".join(sentences))}
    said["history"] = table(rows, _OF_EVENTS, numbers=["version"])
    said["set_last_by"] = table(_blame(found), _OF_BLAME, numbers=["version"])
    said["events"] = f"{found.shown:,} of {found.last_version:,}"
    if told > len(rows):
        said["left_out"] = (
            f"{told - len(rows):,} older lines are not shown. Raise max_rows, or run `readmodel history {what}` for "
            "all of them."
        )
    context.add_output_metadata(said)


@dg.job(owners=OWNERS, tags={DATABASE_TAG: SETTINGS_AT_LOAD.fingerprint()})
def show_history() -> None:
    """Show how a chat or a task got its values: the changes of each event, and the last change of each field.

    Type the id in the Launchpad and launch. The page of the run has the tables. They also show the stream version that
    the stored document matches, and so which update was lost. Reads the events and documents of that aggregate, and
    writes nothing.
    """
    show_history_of_aggregate()


def _blame(found: History) -> list[dict[str, Any]]:
    return [
        {
            "read_model": name,
            "field": field,
            "value": one_line(value_in_words((item.document or {}).get(field, ABSENT))),
            "version": by.version,
            "event_type": one_line(by.event_type),
        }
        for name, item in found.read_models.items()
        for field, by in item.blame.items()
    ]
