"""The repair job: works off the repair queue. Thin: the worker does it."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
import time
from collections.abc import Callable
from typing import Any

import dagster as dg
from pydantic import Field

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.repair_task import ids_of
from readmodel_pipelines.orchestration.config import Config
from readmodel_pipelines.orchestration.load_time import OWNERS
from readmodel_pipelines.orchestration.repair_queue import ASSET, numbers_of, table_of, text_of
from readmodel_pipelines.orchestration.resources import MongoResource, owner_of
from readmodel_pipelines.orchestration.tags import tag_run
from readmodel_pipelines.repair import RepairSummary, RepairWorker

_SHOWN = 50


class _Progress:
    """Says how far a run is after a batch, at most once in `every` seconds."""

    def __init__(self, say: Callable[[str], object], due: int, *, every: float) -> None:
        self._say = say
        self._due = due
        self._every = every
        self._said = time.monotonic()

    def __call__(self, summary: RepairSummary) -> None:
        if time.monotonic() - self._said < self._every:
            return
        self._said = time.monotonic()
        left = max(0, self._due - summary.claimed)
        rate = summary.claimed / max(summary.seconds, 1e-9)
        seconds = f", about {left / rate:,.0f} s at {rate:,.0f} tasks/s" if rate else ""
        self._say(f"{summary.in_words()} About {left:,} are left{seconds}.")


class RepairConfig(Config):
    """How much of the queue one run takes on."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Aggregates that are leased and repaired together, from 1 to 10000. "
        "Not given: READMODEL_REPAIR_BATCH_SIZE.",
    )
    limit: int = Field(
        default=10_000,
        ge=1,
        description="The run ends after about so many aggregates; the sensor launches the next one.",
    )
    task_ids: list[str] = Field(
        default=[],
        description="Repair these open tasks now, whether due or not, by their _id. Empty: whatever is due.",
    )
    lease_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Seconds until others may take over the aggregates of a run that died; renewed while it works. "
        "Not given: READMODEL_REPAIR_LEASE_SECONDS.",
    )


@dg.op
def repair_due_tasks(context: dg.OpExecutionContext, config: RepairConfig, mongo: MongoResource) -> None:
    """Take what is due from the repair queue and bring its read models in line with their events.

    Reads the events of the aggregates that the tasks name, writes only what differs in their documents, and writes into
    the tasks how they ended.
    """
    with mongo.opened() as (settings, database):
        queue = RepairQueue(database, settings)
        due = queue.stats().due
        context.log.info(
            f"Repairing in database {settings.database} of MongoDB at {settings.shown_uri()}; {due:,} tasks are due."
        )
        worker = RepairWorker(
            database,
            settings,
            holder=context.run.run_id,
            owner=owner_of(context.run.run_id),
            batch_size=config.batch_size,
            lease_seconds=config.lease_seconds,
            on_batch=_Progress(context.log.info, due, every=mongo.progress_seconds),
        )
        named = [task_id for text in config.task_ids for task_id in ids_of(text)]
        summary = worker.work(limit=config.limit, task_ids=named or None)
        stats = queue.stats()
    if summary.aggregates == 1:
        tag_run(context, [], [summary.first_taken[0][1]])
    context.log.info(summary.in_words())
    if config.task_ids and summary.claimed < len(config.task_ids):
        context.log.warning("Not every task named is open: it is completed, a dead letter, in work or not there.")
    metadata = {**numbers_of(stats), **_numbers(summary)}
    if summary.first_taken:
        metadata["taken"] = _table_of_taken(summary)
    if summary.dead_letters:
        metadata["parked_now"] = table_of(
            {
                "task": "",
                "aggregate_type": text_of(letter.aggregate_type),
                "aggregate_id": text_of(letter.aggregate_id),
                "reason": letter.reason,
                "detail": letter.detail,
                "attempts": 0,
                "since": "",
            }
            for letter in summary.dead_letters[:_SHOWN]
        )
        context.log.warning(f"{summary.parked:,} tasks were parked: the check of repair_queue lists them with reasons.")
    context.add_output_metadata(metadata)
    context.log_event(dg.AssetObservation(ASSET, metadata=metadata))
    for read_model, counts in summary.read_models.items():
        if counts.inserted + counts.replaced + counts.deleted:
            # Under names of their own: they are no numbers of the whole read model, and its plots have those.
            said = {f"repair/{name}": number for name, number in counts.as_dict().items()}
            context.log_event(dg.AssetObservation(read_model, metadata={"verb": "repair", **said}))


@dg.job(
    owners=OWNERS,
    tags={
        # Leases and the sensor try again already.
        "dagster/max_retries": "0",
        # The sensor waits for the run that is going: one that hangs must not stop repairs for a day.
        "dagster/max_runtime": "3600",
    },
)
def repair_read_models() -> None:
    """Repair what the application could not update: the tasks in `repair_queue` that are due, or those you name.

    `repair_queue_sensor` launches it; launch it yourself to repair now what waits for its next attempt. Leases the
    aggregates of a batch of tasks, reads their events, writes only what differs in the read models, and completes the
    tasks. What fails is tried again later; what no retry can mend becomes a dead letter and does not fail the run.

    A run that repaired one aggregate has it in the tag `readmodel/aggregate_id`; one that repaired more stands in
    `claimed_by` of their tasks, and its log has a table of the first.
    """
    repair_due_tasks()


def _table_of_taken(summary: RepairSummary) -> dg.TableMetadataValue:
    """The aggregates that were taken first, so that somebody sees whether theirs was among them."""
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({"aggregate_type": stream, "aggregate_id": aggregate_id})
            for stream, aggregate_id in summary.first_taken
        ]
    )


def _numbers(summary: RepairSummary) -> dict[str, Any]:
    """Of the run, under names that are plotted behind those of the queue."""
    names = ("aggregates", "claimed", "retried", "parked", "lost")
    writes = {
        f"{read_model}/{write}": getattr(counts, write)
        for read_model, counts in summary.read_models.items()
        for write in ("inserted", "replaced", "deleted")
    }
    numbers = {
        **{name: getattr(summary, name) for name in names},
        "repaired": summary.completed,
        "seconds": round(summary.seconds, 3),
        "repaired_per_second": round(summary.completed / max(summary.seconds, 1e-9), 1),
        **writes,
    }
    return {f"repair/{name}": number for name, number in numbers.items()}
