"""Asset checks: the results of verifications of a read model, and the state of the repair queue.

They are unpartitioned, because Dagster shows a partitioned check as skipped after runs over ranges.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Iterator
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.config import SHOWN, VerifyConfig
from readmodel_pipelines.orchestration.evaluations import (
    FRESH,
    INTACT,
    MATCHES,
    Evaluated,
    evaluated,
    fresh,
    intact,
    matches,
    without_events,
)
from readmodel_pipelines.orchestration.failure import Failed
from readmodel_pipelines.orchestration.metadata import numbers_of
from readmodel_pipelines.orchestration.partitions import READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.tables import table_of_dead_letters
from readmodel_pipelines.settings import Settings

DRAINS = "drains"

_DESCRIPTIONS = {
    MATCHES: "Whether every document matches its events, in every field and its type. Execute it when you doubt the "
    "read model. An error if documents differ, are missing, unexpected or orphaned. A warning while all "
    "findings are younger than READMODEL_ALARM_AFTER_SECONDS, or if earlier findings were not compared again. "
    "Materialize the asset to repair it. Changes no document.",
    INTACT: "Whether all streams are intact. An error lists the malformed streams, with the reason and the first "
    "offending event. Correct the writer of these events; their documents are left unchanged. Changes no "
    "document.",
    FRESH: "Whether the events of the last READMODEL_FRESH_MINUTES are projected, except those of the last "
    "READMODEL_GRACE_SECONDS. A failure is a warning, because a repair or the next event may correct it. Reads "
    "only those aggregates; changes and records nothing.",
}


@dg.multi_asset_check(
    name="verify_read_model_checks",
    specs=[
        dg.AssetCheckSpec(check, asset=item.read_model, description=description)
        for item in READ_MODELS.values()
        for check, description in _DESCRIPTIONS.items()
    ],
    can_subset=True,
)
def read_model_checks(
    context: dg.AssetCheckExecutionContext, config: VerifyConfig, mongo: MongoResource
) -> Iterator[dg.AssetCheckResult]:
    """Verify the read models of the chosen checks, in one pass over each source stream, and return the results.

    Changes no document. It records findings in `readmodel_findings` unless read_only is set.
    """
    chosen = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    models = {name: dg.AssetKey(item.read_model) for name, item in READ_MODELS.items()}
    whole = [name for name, key in models.items() if {(key, MATCHES), (key, INTACT)} & chosen]
    young = [name for name, key in models.items() if (key, FRESH) in chosen]
    results: list[Evaluated] = []
    told: list[str] = []
    try:
        mongo.refuse_without_events(list(dict.fromkeys((*whole, *young))), allowed=config.allow_no_events)
    except Failed as failed:
        results += without_events(failed)
        if not results:
            raise
        blind = {result["asset_key"] for result in results}
        whole, young = ([name for name in names if models[name] not in blind] for names in (whole, young))
    if whole:
        summary, settings = mongo.verify(context, whole, config)
        told = summary.warnings
        for name in whole:
            read_model = READ_MODELS[name].read_model
            results.append(matches(summary, read_model, settings, config.max_findings))
            results.append(intact(summary, read_model, config.max_findings))
    if young:
        summary = mongo.verify_fresh(context, young, allow_no_events=config.allow_no_events, told=told)
        results += [fresh(summary, READ_MODELS[name].read_model, config.max_findings) for name in young]
    for result in results:
        if (result["asset_key"], result["check_name"]) in chosen:
            yield dg.AssetCheckResult(**result)


@dg.asset_check(asset=REPAIR_QUEUE, name=DRAINS)
def drains(mongo: MongoResource) -> dg.AssetCheckResult:
    """Whether the repair queue is worked off: an error if it has dead letters, a warning if it is long.

    Lists the dead letters. Only reads. `repair_queue_sensor` also evaluates it whenever the result changes.
    """
    with mongo.opened() as (settings, database):
        queue = RepairQueue(database, settings)
        return dg.AssetCheckResult(**whether_it_drains(queue, queue.stats(), settings))


def whether_it_drains(queue: RepairQueue, stats: QueueStats, settings: Settings) -> Evaluated:
    """The result of `drains`: an error that lists the dead letters, or a warning if the queue is long."""
    metadata: dict[str, Any] = {}
    if stats.failed:
        metadata["table_of_dead_letters"] = table_of_dead_letters(queue.tasks("failed", limit=SHOWN))
    metadata |= numbers_of(stats)
    if stats.failed:
        said = (
            f"{stats.failed:,} dead letters: {stats.reasons_in_words()}. Fix the cause. Then run `readmodel "
            "repair-queue requeue --all-failed`, or launch the job requeue_dead_letters."
        )
    elif stats.open > settings.repair_queue_warning:
        said = (
            f"{stats.open:,} repairs are open, more than READMODEL_REPAIR_QUEUE_WARNING = "
            f"{settings.repair_queue_warning:,}. Check that repair_queue_sensor is on and its runs succeed."
        )
    else:
        return evaluated(REPAIR_QUEUE, DRAINS, f"No dead letters; {stats.open:,} repairs are open.", metadata)
    return evaluated(REPAIR_QUEUE, DRAINS, said, metadata, passed=False, error=bool(stats.failed))
