"""The job that requeues dead letters from the web UI, like `repair-queue requeue` in a shell."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
import dagster as dg
from pydantic import Field

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.checks import whether_it_drains
from readmodel_pipelines.orchestration.config import Config
from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.orchestration.metadata import numbers_of
from readmodel_pipelines.orchestration.partitions import DATABASE_TAG
from readmodel_pipelines.orchestration.recording import log_check
from readmodel_pipelines.orchestration.resources import MongoResource, where


class RequeueConfig(Config):
    """Selects the dead letters to requeue: exactly one of the three fields must be set."""

    task_ids: list[str] = Field(
        default=[],
        description="Requeue the tasks with these _id values: the column `task` in the check of repair_queue.",
    )
    reason: str | None = Field(
        default=None,
        description="Requeue all dead letters with this reason: the column `reason` in the check of repair_queue.",
    )
    all_dead_letters: bool = Field(default=False, description="Requeue every dead letter.")


@dg.op
def requeue_dead_letters_of_queue(context: dg.OpExecutionContext, config: RequeueConfig, mongo: MongoResource) -> None:
    """Make dead letters pending tasks again, with a fresh number of attempts.

    Writes only to these tasks of the repair queue.
    """
    if [bool(config.task_ids), config.reason is not None, config.all_dead_letters].count(True) != 1:
        raise failure(
            "No dead letters are selected, so nothing was done. Set one of task_ids, reason and all_dead_letters in "
            "the Launchpad; the check of repair_queue lists the dead letters."
        )
    with mongo.opened(context) as (settings, database):
        queue = RepairQueue(database, settings)
        if config.task_ids:
            number = sum(queue.requeue(task_id=task_id) for task_id in config.task_ids)
        else:
            number = queue.requeue(reason=config.reason, all_failed=config.all_dead_letters)
        stats = queue.stats()
        told = whether_it_drains(queue, stats, settings)
        context.log.info(
            f"{number:,} tasks requeued in {where(settings)}; {stats.failed:,} dead letters remain. "
            "repair_queue_sensor launches their repair."
        )
    context.add_output_metadata({"brought_back": number, "dead_letters_left": stats.failed})
    context.log_event(dg.AssetObservation(REPAIR_QUEUE, metadata=numbers_of(stats)))
    log_check(context, told)


@dg.job(owners=OWNERS, tags={DATABASE_TAG: SETTINGS_AT_LOAD.fingerprint()})
def requeue_dead_letters() -> None:
    """Requeue dead letters after their cause is fixed.

    The check of `repair_queue` lists them, with the error of the last attempt and of the application. Select tasks, a
    reason, or all; without a selection the run fails and changes nothing. Writes only to these tasks. The sensor
    launches their repair.
    """
    requeue_dead_letters_of_queue()
