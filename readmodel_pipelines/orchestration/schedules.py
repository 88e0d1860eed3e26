"""Schedules of verifications and rebuilds, in the time zone of the settings; off by default."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg

from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD, jobs
from readmodel_pipelines.orchestration.config import RebuildConfig, VerifyConfig
from readmodel_pipelines.orchestration.failure import failing_in_words
from readmodel_pipelines.orchestration.partitions import READ_MODELS, run_config
from readmodel_pipelines.pacing import Window
from readmodel_pipelines.settings import load_settings
from readmodel_pipelines.verification.coverage import Bucket

TIMEZONE = SETTINGS_AT_LOAD.timezone
_WINDOW = Window.parse(SETTINGS_AT_LOAD.off_peak_window, TIMEZONE)
_schedule = partial(
    dg.schedule, execution_timezone=TIMEZONE, default_status=dg.DefaultScheduleStatus.STOPPED, owners=OWNERS
)


@_schedule(
    job=jobs.verify_read_models,
    cron_schedule=SETTINGS_AT_LOAD.nightly_cron,
    # Shown as plain text, without Markdown.
    description=f"""Verifies each read model at the times of READMODEL_NIGHTLY_CRON ({TIMEZONE}; default: every night
at 2:00). READMODEL_NIGHTLY_COVERAGE chooses the aggregates. The default is those with events since the last
verification, those with open findings, and one bucket of all aggregates. Each night takes another bucket, so
READMODEL_VERIFICATION_BUCKETS nights cover everything. Changes no document; evaluates the checks of the assets.
Queues repairs of the findings if READMODEL_NIGHTLY_ENQUEUE_REPAIRS is set.""",
)
def nightly_verification(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """A run for each read model; by default the changed aggregates and the bucket of the night."""
    with failing_in_words():
        settings = load_settings()
    bucket = Bucket.of_day(_night(context).toordinal(), settings.verification_buckets)
    config = VerifyConfig(
        since_last=settings.nightly_coverage.startswith("changed"),
        bucket=str(bucket) if settings.nightly_coverage.endswith("bucket") else None,
        enqueue_repairs=settings.nightly_enqueue_repairs,
    )
    yield from _runs("nightly", context, jobs.verify_read_model.name, config)


@_schedule(
    job=jobs.verify_read_models,
    cron_schedule=SETTINGS_AT_LOAD.weekly_cron,
    description=f"""Verifies every aggregate of each read model at the times of READMODEL_WEEKLY_CRON ({TIMEZONE};
default: Sundays at 3:00). Changes no document; evaluates the checks of the assets. For stores whose events are read
in minutes; for larger ones use nightly_verification.""",
)
def weekly_verification(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """A run for each read model, over all aggregates."""
    yield from _runs("weekly", context, jobs.verify_read_model.name, VerifyConfig())


@_schedule(
    job=jobs.rebuild_read_models,
    cron_schedule=f"{_WINDOW.start.minute} {_WINDOW.start.hour} * * *",
    description=f"""Rebuilds each read model in full and in place, every night from the start of the off-peak window
({_WINDOW}). Stops cleanly when the window ends; the next night resumes there. For stores whose rebuild takes longer
than a night. Turn it on, and off again when a run reports that the rebuild is done.""",
)
def off_peak_rebuild(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """A run for each read model, which resumes the rebuild of the night before."""
    yield from _runs("off_peak", context, jobs.rebuild_read_model.name, RebuildConfig(off_peak=True))


def _runs(schedule: str, context: dg.ScheduleEvaluationContext, op: str, config: dg.Config) -> Iterator[dg.RunRequest]:
    for name in READ_MODELS:
        key = f"{schedule}:{_night(context):%Y-%m-%d}:{name}"
        yield dg.RunRequest(run_key=key, partition_key=name, run_config=run_config(op, config))


def _night(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.astimezone(ZoneInfo(TIMEZONE))
