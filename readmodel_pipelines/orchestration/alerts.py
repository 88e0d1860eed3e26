"""Sensors that send alerts for failed runs and failed checks; off unless the settings name a recipient."""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
import json
import time
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetCheckKey

from readmodel_pipelines.alerts.tell import NotTold, tell, tells_anybody
from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.checks import drains, read_model_checks
from readmodel_pipelines.orchestration.failure import failing_in_words
from readmodel_pipelines.orchestration.sensors import is_of_another_location
from readmodel_pipelines.orchestration.verified import verified_checks
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.wording import count

_STATUS = dg.DefaultSensorStatus.RUNNING if tells_anybody(SETTINGS_AT_LOAD) else dg.DefaultSensorStatus.STOPPED
ALL_CHECKS = sorted(
    {*read_model_checks.check_keys, *drains.check_keys, *verified_checks.check_keys},
    key=lambda key: key.to_user_string(),
)
_RUN_FAILED = dg.DagsterEventType.RUN_FAILURE
# A run that ended during the last tick, by a clock that is a little behind.
_OVERLAP_SECONDS = 60.0
_MOST = 50
_MOST_REMEMBERED = 500
_NOBODY = "Neither READMODEL_ALERT_WEBHOOK nor READMODEL_ALERT_MAIL is set, so there is nobody to alert."


@dg.sensor(
    name="tell_of_failed_runs",
    default_status=_STATUS,
    minimum_interval_seconds=15,
    owners=OWNERS,
    description="""Sends one alert for every failed run, with its error, to READMODEL_ALERT_WEBHOOK and
READMODEL_ALERT_MAIL. If sending fails, a later tick sends it. Only reads Dagster's history.""",
)
def tell_of_failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One message for each run that failed since the last tick.

    Dagster's own sensor of failed runs would not repeat a message that could not be sent.
    """
    with failing_in_words():
        settings = load_settings()
        if not tells_anybody(settings):
            return dg.SkipReason(_NOBODY)
        told, number = _told_before(context.cursor), 0
        since = datetime.fromtimestamp(max(told["since"] - _OVERLAP_SECONDS, told["begun"]), UTC)
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
        # The remembered runs come first, and must not displace new ones.
        for record in context.instance.get_run_records(
            failed, limit=_MOST + len(told["runs"]), order_by="update_timestamp", ascending=True
        ):
            run = record.dagster_run
            if run.run_id in told["runs"]:
                continue
            if not is_of_another_location(run, context):
                try:
                    _tell_of(context.instance, run, settings)
                except NotTold:
                    if not number:
                        raise
                    # The runs before it are recorded as sent. The next tick fails for this one.
                    break
                number += 1
            told["runs"] = [*told["runs"], run.run_id][-_MOST_REMEMBERED:]
            told["since"] = max(told["since"], record.update_timestamp.timestamp())
        context.update_cursor(json.dumps(told))
    return dg.SkipReason(f"{number:,} alerts sent." if number else "Nothing is new.")


def _tell_of(instance: dg.DagsterInstance, run: dg.DagsterRun, settings: Settings) -> None:
    of = run.tags.get("dagster/partition")
    again = "\nDagster launches it again by itself." if run.tags.get("dagster/will_retry") == "true" else ""
    where = f"{settings.shown_dagster_url().rstrip('/')}/runs/{run.run_id}"
    subject = f"{run.job_name}{f' ({of})' if of else ''} failed"
    tell(settings, subject, f"{_sentence(instance, run.run_id)}{again}\n{where}")


def _told_before(cursor: str | None) -> dict[str, Any]:
    """The state of the last tick; without one, only failures from now on are reported."""
    before, now = _remembered(cursor, list | int | float), time.time()
    since, begun, runs = before.get("since"), before.get("begun"), before.get("runs")
    if (
        isinstance(since, int | float)
        and isinstance(begun, int | float)
        and isinstance(runs, list)
        # Neither infinite nor NaN, nor from before a clock was set back.
        and 0 <= begun <= since <= now + _OVERLAP_SECONDS
    ):
        return {"since": since, "begun": begun, "runs": runs[-_MOST_REMEMBERED:]}
    return {"since": now, "begun": now, "runs": []}


@dg.sensor(
    name="tell_of_failed_checks",
    default_status=_STATUS,
    minimum_interval_seconds=30,
    owners=OWNERS,
    description="""Sends an alert for every failed check, including dead letters, to READMODEL_ALERT_WEBHOOK and
READMODEL_ALERT_MAIL. It sends one for each new result, and one when the check passes again. tell_of_failed_runs
reports failed runs. Only reads Dagster's history.""",
)
def tell_of_failed_checks(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One message for all results that are new since the last tick."""
    with failing_in_words():
        settings = load_settings()
        if not tells_anybody(settings):
            return dg.SkipReason(_NOBODY)
        before = _remembered(context.cursor)
        now, lines = dict(before), []
        storage = context.instance.event_log_storage
        for key, record in storage.get_latest_asset_check_execution_by_key(ALL_CHECKS).items():
            name, evaluation = key.to_user_string(), _evaluation_of(record)
            known = before.get(name, {})
            if evaluation is None or known.get("id") == record.id:
                continue
            run = context.instance.get_run_by_id(record.run_id) if record.run_id else None
            if run is not None and not run.is_finished:
                # The end of the run decides which sensor reports it.
                continue
            now[name] = {"id": record.id, "failed": not evaluation.passed}
            if evaluation.passed:
                lines += [f"{_shown(key)} passes again."] if known.get("failed") else []
            elif run is None or run.is_success:
                said = evaluation.description or "it does not pass"
                lines.append(f"{_shown(key)} ({evaluation.severity.value}): {said}")
        if lines:
            tell(settings, f"Checks of read models: {count(len(lines), 'new result')}", "\n".join(lines))
        # Stored last, so that the next tick repeats an alert that could not be sent.
        context.update_cursor(json.dumps(now))
    return dg.SkipReason(f"{len(lines)} results sent." if lines else "Nothing is new.")


def _sentence(instance: dg.DagsterInstance, run_id: str) -> str:
    """The error of the failed step, or Dagster's own message for the run."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        said = entry.get_dagster_event().step_failure_data.user_failure_data
        if said is not None and said.description:
            return said.description
    ends = [entry.user_message or entry.message for entry in instance.all_logs(run_id, of_type=_RUN_FAILED)]
    return ends[-1] if ends and ends[-1] else "It has no error message."


def _evaluation_of(record: Any) -> dg.AssetCheckEvaluation | None:
    """The result of a check; None if it is only planned."""
    event = record.event.dagster_event if record.event is not None else None
    said = None if event is None else event.event_specific_data
    return said if isinstance(said, dg.AssetCheckEvaluation) else None


def _shown(key: AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}: {key.name}"


def _remembered(cursor: str | None, kinds: Any = dict) -> dict[str, Any]:
    """The state of the last tick; empty if somebody set another cursor in the UI."""
    try:
        before = json.loads(cursor or "{}")
    except (ValueError, RecursionError):
        return {}
    return {name: item for name, item in before.items() if isinstance(item, kinds)} if isinstance(before, dict) else {}


SENSORS = [tell_of_failed_runs, tell_of_failed_checks]
