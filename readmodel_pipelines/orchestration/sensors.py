"""Sensors: one launches repairs of due tasks; two free the leases of a dead run early.

The first one only reads, so Dagster may evaluate it twice around a crash. Leases in MongoDB keep repairs apart, and
their expiry guarantees that another run takes over the tasks of a dead one; the other two sensors only make this
faster. The first one does not trust Dagster's status of a run that has begun: after its machine restarted, a run stays
«started» for an hour.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
import json
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.held_leases import has_living
from readmodel_pipelines.bookkeeping.leases import free_leases
from readmodel_pipelines.bookkeeping.presence import is_attended
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.orchestration import OWNERS
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.checks import whether_it_drains
from readmodel_pipelines.orchestration.jobs import repair_read_models
from readmodel_pipelines.orchestration.metadata import numbers_of
from readmodel_pipelines.orchestration.resources import MongoResource, owner_of
from readmodel_pipelines.settings import Settings

_Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation

_UNCHANGED_SECONDS = 300.0
# Created but never launched, because its creator died in between; nothing waits for it.
_UNLAUNCHED_SECONDS = 600.0
_MOST_GOING = 1_000
_KEEPS_UP_SECONDS = 60.0
_FREES = """Frees the leases and open tasks of a {ended} run of repair_read_models at once, instead of when they
expire. Changes only the leases and the open tasks of that run. Leave it on: without it repairs are late, but none is
lost."""
_ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_GOING = [status for status in dg.DagsterRunStatus if status not in _ENDED]
_BEGUN = {dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING}


@dg.sensor(
    job=repair_read_models,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    owners=OWNERS,
    # Shown as plain text, without Markdown.
    description="""Launches one run of repair_read_models when tasks of repair_queue are due. It launches none while
a run is queued or started, or while a worker («readmodel repair-queue work») keeps up with the queue. Only reads the
queue, and records its depth on the asset repair_queue when it changes. Leave it on: without it or a worker, failed
updates stay wrong.""",
)
def repair_queue_sensor(context: dg.SensorEvaluationContext, mongo: MongoResource) -> dg.SensorResult:
    """One run for all due tasks, or a reason to skip; and the changes of the queue."""
    if not mongo.is_there():
        return dg.SensorResult(
            skip_reason="The embedded server does not run, and READMODEL_MONGODB_URI is not set, so there is no queue."
        )
    with mongo.opened() as (settings, database):
        queue = RepairQueue(database, settings)
        stats = queue.stats()
        events, cursor = _news(_remembered(context), queue, stats, settings)
        going = _who_is_at_work(context, database, queue, settings) if stats.due else None
    if stats.due and going is None:
        # No run key: Dagster remembers it forever, and would not repair the same tasks a second time.
        return dg.SensorResult(run_requests=[dg.RunRequest()], asset_events=events, cursor=cursor)
    what = f"{stats.due:,} tasks are due, and {going} works on them" if going else "Nothing is due"
    depth = (
        f"{stats.pending:,} pending, {stats.processing:,} in work, {stats.completed:,} completed, "
        f"{stats.failed:,} dead letters"
    )
    return dg.SensorResult(skip_reason=f"{what}: {depth}.", asset_events=events, cursor=cursor)


def _freeing(name: str, status: dg.DagsterRunStatus, ended: str) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=name,
        run_status=status,
        monitored_jobs=[repair_read_models],
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=_FREES.format(ended=ended),
    )
    def free(context: dg.RunStatusSensorContext, mongo: MongoResource) -> None:
        run_id = context.dagster_run.run_id
        with mongo.opened() as (settings, database):
            leases = free_leases(database, owner_of(run_id))
            tasks = RepairQueue(database, settings).free(run_id)
        context.log.info(f"Run {run_id} ended: {leases:,} leases and {tasks:,} tasks are free again.")

    return free


FREE_LEASES = [
    _freeing("free_leases_of_failed_repairs", dg.DagsterRunStatus.FAILURE, "failed or killed"),
    _freeing("free_leases_of_canceled_repairs", dg.DagsterRunStatus.CANCELED, "canceled"),
]


def _who_is_at_work(
    context: dg.SensorEvaluationContext, database: Database, queue: RepairQueue, settings: Settings
) -> str | None:
    run = _run_that_is_going(context, database, settings.repair_lease_seconds)
    if run is not None:
        return f"run {run}"
    # If a worker does not keep up, a run helps it.
    attended = is_attended(database, settings.repair_queue_collection) and not queue.left_for(_KEEPS_UP_SECONDS)
    return "`readmodel repair-queue work`" if attended else None


def _run_that_is_going(context: dg.SensorEvaluationContext, database: Database, lease_seconds: float) -> str | None:
    filters = dg.RunsFilter(job_name=repair_read_models.name, statuses=_GOING)
    for record in context.instance.get_run_records(filters, limit=_MOST_GOING):
        of_another = is_of_another_location(record.dagster_run, context)
        if not of_another and _is_going(record, database, lease_seconds):
            return record.dagster_run.run_id
    return None


def _is_going(record: dg.RunRecord, database: Database, lease_seconds: float) -> bool:
    """Whether a run that Dagster calls unfinished will still repair tasks; its leases decide."""
    run, since = record.dagster_run, record.start_time or record.create_timestamp.timestamp()
    if run.status is dg.DagsterRunStatus.NOT_STARTED:
        return time.time() - since < _UNLAUNCHED_SECONDS
    if run.status not in _BEGUN:
        return True
    living = has_living(database, owner_of(run.run_id))
    # A run has no lease before it claims its first tasks, and briefly none between two batches. Another run beside it
    # does no harm.
    return time.time() - since < lease_seconds if living is None else living


def is_of_another_location(run: dg.DagsterRun, context: dg.SensorEvaluationContext) -> bool:
    """Whether the run belongs to another code location, which works on another database."""
    of, here = location_of(run), context.code_location_origin
    if of is None or here is None:
        return False
    return of != (here.location_name, context.repository_name)


def location_of(run: dg.DagsterRun) -> tuple[str, str | None] | None:
    """The code location and repository of a run; None if no daemon or web server launched it."""
    if run.remote_job_origin is None:
        return None
    of = run.remote_job_origin.repository_origin
    return of.code_location_origin.location_name, of.repository_name


def _remembered(context: dg.SensorEvaluationContext) -> dict[str, Any]:
    """The state that the last tick stored in the cursor; empty if somebody set another cursor in the UI."""
    if not context.cursor:
        return {}
    try:
        before: dict[str, Any] = json.loads(context.cursor)
        if 0 <= before["recorded_at"] <= time.time() + _UNCHANGED_SECONDS:
            return before
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    context.log.warning("The cursor was not written by this sensor. Its record of the queue starts again.")
    return {}


def _news(
    before: Mapping[str, Any], queue: RepairQueue, stats: QueueStats, settings: Settings
) -> tuple[list[_Event], str]:
    """The events to record since the last tick, and the new cursor."""
    numbers = numbers_of(stats)
    depth = [numbers[name] for name in ("pending", "in_work", "completed", "dead_letters")]
    trouble = [dict(stats.dead_letters), stats.open > settings.repair_queue_warning]
    now = time.time()
    events: list[_Event] = []
    recorded_at = before.get("recorded_at", 0.0)
    if depth != before.get("depth") or now - recorded_at >= _UNCHANGED_SECONDS:
        events.append(dg.AssetObservation(REPAIR_QUEUE, metadata=numbers))
        recorded_at = now
    if trouble != before.get("trouble"):
        events.append(dg.AssetCheckEvaluation(**whether_it_drains(queue, stats, settings)))
    return events, json.dumps({"depth": depth, "trouble": trouble, "recorded_at": recorded_at})
