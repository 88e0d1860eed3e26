"""The job that deletes old runs from Dagster's own history, which grows with every run, and its schedule."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD, jobs
from readmodel_pipelines.orchestration.alerts import ALL_CHECKS
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.config import Config
from readmodel_pipelines.orchestration.dead_letters import requeue_dead_letters
from readmodel_pipelines.orchestration.history import show_history
from readmodel_pipelines.orchestration.partitions import DATABASE_TAG, READ_MODELS, run_config
from readmodel_pipelines.orchestration.sensors import location_of

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 200
_OURS = {
    "__ASSET_JOB",
    jobs.rebuild_aggregate.name,
    jobs.rebuild_read_models.name,
    jobs.rebuild_slices.name,
    jobs.verify_read_models.name,
    jobs.repair_read_models.name,
    show_history.name,
    requeue_dead_letters.name,
    "purge_dagster_history",
}


class PurgeConfig(Config):
    """The runs of Dagster's history to delete."""

    older_than_days: int = Field(
        default=90, ge=1, le=36_500, description="Delete runs that ended at least this many days ago, from 1 to 36500."
    )
    limit: int = Field(
        default=5_000,
        ge=1,
        le=1_000_000,
        description="Maximum number of runs deleted in one run, from 1 to 1000000; the oldest first.",
    )
    dry_run: bool = Field(default=True, description="Delete nothing; report how many runs would be deleted.")


@dg.op
def purge_old_runs(context: dg.OpExecutionContext, config: PurgeConfig) -> None:
    """Delete old ended runs of this code location's jobs, with their logs, from Dagster's own storage.

    Keeps the runs behind the newest materialization and evaluation of each asset and check, which their pages show.
    Reads and writes no MongoDB.
    """
    instance = context.instance
    kept = {context.run.run_id, *_shown_on_pages(instance)}
    before = _now() - timedelta(days=config.older_than_days)
    number = 0
    here = location_of(context.run)

    def goes(run: dg.DagsterRun) -> bool:
        # Other locations have an asset job of the same name, and jobs of the same names on another database.
        return run.job_name in _OURS and run.run_id not in kept and location_of(run) == here

    for run_id in _ended_before(instance, before, goes, config.limit):
        if not config.dry_run:
            instance.delete_run(run_id)
        number += 1
    what = "would be deleted" if config.dry_run else "were deleted"
    context.log.info(f"{number:,} runs that ended before {before:%Y-%m-%d} {what}.")
    context.add_output_metadata({"runs": number, "dry_run": config.dry_run})


@dg.job(owners=OWNERS, tags={DATABASE_TAG: SETTINGS_AT_LOAD.fingerprint()})
def purge_dagster_history() -> None:
    """Delete Dagster's old runs and their logs; the sensor's repairs alone are thousands a month.

    By default it deletes nothing and reports the number. With dry_run off it deletes ended runs of this code location,
    except those behind the newest materialization and check of each asset. Changes only Dagster's own storage, and no
    read model. `weekly_purge` launches it.
    """
    purge_old_runs()


@dg.schedule(
    job=purge_dagster_history,
    cron_schedule="0 5 * * 0",
    execution_timezone=SETTINGS_AT_LOAD.timezone,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    owners=OWNERS,
    description=f"""On Sundays at 5:00 ({SETTINGS_AT_LOAD.timezone}): deletes runs older than 90 days from Dagster's
own history. Changes no read model. Off by default. Launch the job purge_dagster_history first to see the number of
runs that it would delete.""",
)
def weekly_purge(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run that deletes."""
    key = f"purge:{context.scheduled_execution_time:%Y-%m-%d}"
    return dg.RunRequest(run_key=key, run_config=run_config(purge_old_runs.name, PurgeConfig(dry_run=False)))


def _now() -> datetime:
    return datetime.now(UTC)


def _shown_on_pages(instance: dg.DagsterInstance) -> Iterator[str]:
    """The runs that the pages of assets and checks show."""
    for name in (REPAIR_QUEUE, *(item.read_model for item in READ_MODELS.values())):
        key = dg.AssetKey(name)
        for newest in (instance.get_latest_materialization_event(key), *instance.fetch_observations(key, 1).records):
            if newest is not None:
                yield newest.run_id
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(ALL_CHECKS)
    yield from (record.run_id for record in checks.values() if record.run_id)


def _ended_before(
    instance: dg.DagsterInstance, before: datetime, goes: Callable[[dg.DagsterRun], bool], most: int
) -> Iterator[str]:
    """The ended runs to delete, the oldest first, in pages."""
    filters = dg.RunsFilter(statuses=_ENDED, created_before=before)

    def page_after(cursor: str | None) -> list[dg.DagsterRun]:
        found = instance.get_run_records(filters, limit=_PAGE, ascending=True, cursor=cursor)
        return [record.dagster_run for record in found]

    given, page = 0, page_after(None)
    while page:
        # A page begins after an existing run. The caller may delete the runs of a page as soon as it has them.
        following = page_after(page[-1].run_id)
        for run in filter(goes, page):
            if given == most:
                return
            given += 1
            yield run.run_id
        page = following
