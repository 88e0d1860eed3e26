"""Asset checks: what a verification found in a read model, and whether the repair queue drains.

Unpartitioned: Dagster shows a partitioned check as skipped after runs over ranges.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.config import SHOWN, VerifyConfig
from readmodel_pipelines.orchestration.metadata import metadata_of, numbers_of, table_of, table_of_dead_letters
from readmodel_pipelines.orchestration.partitions import READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import numbers, span, storable

MATCHES, INTACT, FRESH, DRAINS = "matches_events", "streams_intact", "is_fresh", "drains"

Evaluated = dict[str, Any]
"""What an `AssetCheckResult` holds, which a check gives, and an `AssetCheckEvaluation`, which a run or sensor logs."""

_DESCRIPTIONS = {
    MATCHES: "Whether every document is what its events say, in every field and its type: execute it when somebody "
    "doubts the read model. An error when documents differ, are missing, unexpected or orphaned; a warning while all "
    "of that is younger than READMODEL_ALARM_AFTER_SECONDS, or when what is known from earlier was not looked at this "
    "time. Materialize the asset to mend it. Changes no document.",
    INTACT: "Whether the streams can be trusted. An error lists malformed ones with the reason and the first offending "
    "event: mend whoever wrote it; their documents are left as they are. Changes no document.",
    FRESH: "Whether what was appended in the last READMODEL_FRESH_MINUTES is projected, but for the last "
    "READMODEL_GRACE_SECONDS. A warning: a repair or the next event may mend it. Looks at those aggregates only; "
    "changes nothing, and remembers nothing.",
}


def fresh(summary: Summary, name: str, max_findings: int) -> Evaluated:
    """What `is_fresh` says after a look at young events."""
    counts = summary.read_models[name]
    found = counts.discrepancies - counts.malformed
    what = f"{counts.checked:,} aggregates with {(summary.scope.coverage or '').removeprefix('what got ')}"
    said = f"{found:,} of {what} are not projected." if found else f"{what} are projected."
    return _evaluated(name, FRESH, said, _about(summary, name, max_findings), passed=not found, error=False)


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
    """Verify the read models whose checks are chosen, in one pass over each source stream, and say what was found.

    Changes no document; unless read_only it remembers findings in `readmodel_findings`.
    """
    chosen = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    models = {name: dg.AssetKey(item.read_model) for name, item in READ_MODELS.items()}
    whole = [name for name, key in models.items() if {(key, MATCHES), (key, INTACT)} & chosen]
    young = [name for name, key in models.items() if (key, FRESH) in chosen]
    results: list[Evaluated] = []
    if whole:
        summary, settings = mongo.verify(context, whole, config)
        for name in whole:
            read_model = READ_MODELS[name].read_model
            results.append(matches(summary, read_model, settings, config.max_findings))
            results.append(intact(summary, read_model, config.max_findings))
    if young:
        summary = mongo.verify_fresh(context, young)
        results += [fresh(summary, READ_MODELS[name].read_model, config.max_findings) for name in young]
    for result in results:
        if (result["asset_key"], result["check_name"]) in chosen:
            yield dg.AssetCheckResult(**result)


@dg.asset_check(asset=REPAIR_QUEUE, name=DRAINS)
def drains(mongo: MongoResource) -> dg.AssetCheckResult:
    """Whether the repair queue is worked off: an error with dead letters, which are listed; a warning when it is long.

    Only reads. `repair_queue_sensor` evaluates it too, whenever the answer changes.
    """
    with mongo.opened() as (settings, database):
        queue = RepairQueue(database, settings)
        return dg.AssetCheckResult(**whether_it_drains(queue, queue.stats(), settings))


def whether_it_drains(queue: RepairQueue, stats: QueueStats, settings: Settings) -> Evaluated:
    """What `drains` says: an error with dead letters, which it lists, a warning when the queue is long."""
    metadata: dict[str, Any] = dict(numbers_of(stats))
    if stats.failed:
        metadata["table_of_dead_letters"] = table_of_dead_letters(queue.tasks("failed", limit=SHOWN))
        said = (
            f"{stats.failed:,} dead letters: {stats.reasons_in_words()}. Mend the cause, then `readmodel repair-queue "
            "requeue` brings them back."
        )
    elif stats.open > settings.repair_queue_warning:
        said = (
            f"{stats.open:,} repairs are open, more than READMODEL_REPAIR_QUEUE_WARNING = "
            f"{settings.repair_queue_warning:,}. See that repair_queue_sensor is on and its runs succeed."
        )
    else:
        return _evaluated(REPAIR_QUEUE, DRAINS, f"No dead letters; {stats.open:,} repairs are open.", metadata)
    return _evaluated(REPAIR_QUEUE, DRAINS, said, metadata, passed=False, error=bool(stats.failed))


def matches(summary: Summary, name: str, settings: Settings, max_findings: int) -> Evaluated:
    """What `matches_events` says after a verification."""
    counts = summary.read_models[name]
    oldest = summary.oldest_seconds.get(name, 0.0)
    what = f"Looked at {summary.scope.coverage}: {counts.checked:,} aggregates."
    elsewhere = summary.elsewhere.get(name, Counter())
    unseen = elsewhere.total() - elsewhere[Outcome.MALFORMED]
    metadata = _about(summary, name, max_findings)
    if counts.discrepancies == counts.malformed:
        agreement = summary.agreement
        said = f"{agreement[0].upper()}{agreement[1:]}. {what}{_known_from_earlier(unseen)}"
        return _evaluated(name, MATCHES, said, metadata, passed=not unseen, error=False)
    outcomes = (Outcome.DIFFERENT, Outcome.MISSING, Outcome.UNEXPECTED, Outcome.ORPHAN)
    kinds = numbers({outcome.value: getattr(counts, outcome.value) for outcome in outcomes})
    young = name in summary.oldest_seconds and oldest < settings.alarm_after_seconds
    since = f" The oldest is known for {span(oldest)}." if oldest >= 1 else ""
    said = f"{kinds}. {what}{since}{_known_from_earlier(unseen)} Materialize the asset to mend them."
    return _evaluated(name, MATCHES, said, metadata, passed=False, error=not young)


def intact(summary: Summary, name: str, max_findings: int) -> Evaluated:
    """What `streams_intact` says after a verification."""
    malformed = summary.read_models[name].malformed
    unseen = summary.elsewhere.get(name, Counter())[Outcome.MALFORMED]
    if malformed:
        said = f"{malformed:,} streams are malformed: mend their events first."
    else:
        said = "Every stream can be trusted." if summary.looked_at_all else "No malformed stream was met."
    return _evaluated(
        name,
        INTACT,
        f"{said} Looked at {summary.scope.coverage}.{_known_from_earlier(unseen)}",
        _about(summary, name, max_findings, malformed=True),
        passed=not malformed and not unseen,
        error=bool(malformed),
    )


def _evaluated(
    asset: str, check: str, description: str, metadata: dict[str, Any], *, passed: bool = True, error: bool = True
) -> Evaluated:
    return {
        "asset_key": dg.AssetKey(asset),
        "check_name": check,
        "passed": passed,
        "severity": dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        "description": storable(description),
        "metadata": metadata,
    }


def _known_from_earlier(number: int) -> str:
    return f" {number:,} known from earlier verifications lie outside and may still be there." if number else ""


def _about(summary: Summary, name: str, max_findings: int, *, malformed: bool = False) -> dict[str, Any]:
    """Counts, by field and by reason too, and the first findings of the kind."""
    said = metadata_of(summary, name, max_findings=0)
    # Its page is narrow, and says the same in numbers that are plotted.
    del said["outcomes"]
    found = [item for item in summary.findings if item.read_model == name]
    shown = [item for item in found if (item.outcome is Outcome.MALFORMED) is malformed][:max_findings]
    if malformed:
        for reason, number in sorted(summary.reasons[name].items()):
            said[f"reason/{reason}"] = number
    if shown:
        said["findings"] = table_of(shown)
    return said
