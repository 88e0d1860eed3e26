"""The check that each read model was verified recently, and the sensor that evaluates it.

If a schedule is off or its daemon is down, no run can report it, so a sensor does. It reads the records that
verifications leave in MongoDB, whether started by Dagster, the command line, or cron.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.mongo.driver import Database, server_time
from readmodel_pipelines.orchestration import OWNERS
from readmodel_pipelines.orchestration.evaluations import Evaluated, evaluated
from readmodel_pipelines.orchestration.partitions import READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import span

VERIFIED = "is_verified"


def whether_verified(name: str, last: datetime | None, now: datetime, settings: Settings) -> Evaluated:
    """The result of `is_verified` for a read model whose `last` verification began then."""
    within = settings.verified_within_hours
    if last is None:
        said, ago = "No verification has compared it yet.", None
    else:
        ago = max(0.0, (now - last).total_seconds())
        said = f"The last verification was {span(ago)} ago."
    late = within > 0 and (ago is None or ago > within * 3600)
    if late:
        said += (
            f" READMODEL_VERIFIED_WITHIN_HOURS requires one every {within:g} hours. Launch verify_read_models. Then "
            "check that nightly_verification is on and the daemon runs."
        )
    when = {} if last is None else {"last_verification": f"{last:%Y-%m-%d %H:%M:%S} UTC"}
    return evaluated(name, VERIFIED, said, when, passed=not late, error=False)


def _each(database: Database, settings: Settings) -> Iterator[Evaluated]:
    verifications, now = Verifications(database), server_time(database).replace(tzinfo=None)
    for item in READ_MODELS.values():
        last = verifications.last_verification(item.read_model)
        yield whether_verified(item.read_model, last["started_at"] if last else None, now, settings)


@dg.multi_asset_check(
    name="whether_read_models_are_verified",
    specs=[
        dg.AssetCheckSpec(
            VERIFIED,
            asset=item.read_model,
            description="Whether a verification compared it within READMODEL_VERIFIED_WITHIN_HOURS, however it was "
            "started and whatever part it covered. A failure is a warning: the read model may be right or "
            "wrong. Reads the records of verifications; watch_verifications evaluates it regularly.",
        )
        for item in READ_MODELS.values()
    ],
    can_subset=True,
)
def verified_checks(context: dg.AssetCheckExecutionContext, mongo: MongoResource) -> Iterator[dg.AssetCheckResult]:
    """Report when the chosen read models were last verified. Reads the records of verifications only."""
    chosen = {key.asset_key for key in context.selected_asset_check_keys}
    with mongo.opened() as (settings, database):
        for said in _each(database, settings):
            if said["asset_key"] in chosen:
                yield dg.AssetCheckResult(**said)


@dg.sensor(
    name="watch_verifications",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    owners=OWNERS,
    description="""Evaluates the check is_verified of each read model whenever its result changes. The check warns
if no verification has compared the read model for READMODEL_VERIFIED_WITHIN_HOURS. Launches nothing, and only reads
the records of verifications.""",
)
def watch_verifications(context: dg.SensorEvaluationContext, mongo: MongoResource) -> dg.SensorResult:
    """The changed results of the checks."""
    if not mongo.is_there():
        return dg.SensorResult(
            skip_reason="READMODEL_MONGODB_URI is not set and the embedded server does not run, so nothing is verified."
        )
    with mongo.opened() as (settings, database):
        told = list(_each(database, settings))
    before = _remembered(context.cursor)
    now = {said["asset_key"].to_user_string(): [said["passed"], said["metadata"]] for said in told}
    new = [said for said in told if now[name := said["asset_key"].to_user_string()] != before.get(name)]
    late = sum(not said["passed"] for said in told)
    return dg.SensorResult(
        skip_reason=f"{late:,} of {len(told):,} read models were not verified in time.",
        asset_events=[dg.AssetCheckEvaluation(**said) for said in new],
        cursor=json.dumps(now),
    )


def _remembered(cursor: str | None) -> dict[str, Any]:
    """The state that the last tick stored in the cursor; empty if somebody set another cursor in the UI."""
    try:
        before = json.loads(cursor or "{}")
    except (ValueError, RecursionError):
        return {}
    return before if isinstance(before, dict) else {}
