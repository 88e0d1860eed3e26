"""The repair queue as an asset: what is observed of it, and the check that tells when somebody has to look."""

# Without `from __future__ import annotations`: Dagster takes the class of a resource, not its name.
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.orchestration.assets import events
from readmodel_pipelines.orchestration.load_time import OWNERS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.reconcile.extended_json import json_text
from readmodel_pipelines.settings import Settings

ASSET = "repair_queue"
CHECK = "drains"

_SHOWN = 50
_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("task", description="`_id` of the task, for `readmodel repair-queue requeue --id`"),
        dg.TableColumn("aggregate_type", description="Aggregate type as its producer wrote it"),
        dg.TableColumn("aggregate_id", description="Aggregate whose read models are not repaired"),
        dg.TableColumn("reason", description="Why it was parked, for `readmodel repair-queue requeue --reason`"),
        dg.TableColumn("detail", description="What the last attempt said"),
        dg.TableColumn("attempts", "int", description="Failed attempts"),
        dg.TableColumn("since", description="When it was added"),
    ]
)

repair_queue = dg.AssetSpec(
    ASSET,
    group_name="repair",
    # Each task names an aggregate whose events were saved and whose read models were not updated with them.
    deps=[events],
    kinds={"mongodb"},
    owners=OWNERS,
    tags={"readmodel/written_by": "application-and-repairs"},
    description="""Updates of read models that failed in the application (READMODEL_REPAIR_QUEUE_COLLECTION).

The application adds tasks, `repair_queue_sensor` sees those that are due and launches `repair_read_models`, which
repairs them and marks them completed. What is plotted comes with the sensor's ticks. When the queue grows: see that the
sensor is on and that the runs of `repair_read_models` succeed. When it holds dead letters: its check lists them with
their reasons; mend the cause, then `readmodel repair-queue requeue`.""",
)


def numbers_of(stats: QueueStats) -> dict[str, int | float]:
    """The queue in numbers, for Dagster to plot."""
    return {
        "pending": stats.pending,
        "in_work": stats.processing,
        "completed": stats.completed,
        "dead_letters": stats.failed,
        "due": stats.due,
        "oldest_pending_seconds": round(stats.oldest_pending_seconds, 1),
        "repairs_per_minute": stats.repairs_per_minute,
    }


def in_words(stats: QueueStats) -> str:
    """The depth of the queue."""
    return (
        f"{stats.pending:,} pending, {stats.processing:,} in work, {stats.completed:,} completed, "
        f"{stats.failed:,} dead letters"
    )


def check_of(queue: RepairQueue, stats: QueueStats, settings: Settings) -> dg.AssetCheckResult:
    """What the check says: an error with dead letters, which it lists, a warning when the queue is long."""
    metadata: dict[str, Any] = dict(numbers_of(stats))
    if stats.failed:
        letters = islice(queue.tasks("failed", limit=_SHOWN), _SHOWN)
        metadata["table_of_dead_letters"] = table_of(map(_row, letters))
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(stats.dead_letters.items()))
        return _result(
            False,
            f"{stats.failed:,} dead letters: {reasons}. Mend the cause, then `readmodel repair-queue requeue` brings "
            "them back.",
            metadata,
        )
    if stats.open > settings.repair_queue_warning:
        return _result(
            False,
            f"{stats.open:,} repairs are open, more than READMODEL_REPAIR_QUEUE_WARNING = "
            f"{settings.repair_queue_warning:,}. See that repair_queue_sensor is on and its runs succeed.",
            metadata,
            dg.AssetCheckSeverity.WARN,
        )
    return _result(True, f"No dead letters; {stats.open:,} repairs are open.", metadata)


@dg.asset_check(asset=ASSET, name=CHECK)
def drains(mongo: MongoResource) -> dg.AssetCheckResult:
    """Whether the repair queue is worked off: an error with dead letters, which are listed; a warning when it is long.

    Only reads. `repair_queue_sensor` evaluates it too, whenever the answer changes.
    """
    with mongo.opened() as (settings, database):
        queue = RepairQueue(database, settings)
        return check_of(queue, queue.stats(), settings)


def table_of(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Dead letters as a table."""
    return dg.MetadataValue.table(records=[dg.TableRecord(dict(row)) for row in rows], schema=_COLUMNS)


def _result(
    passed: bool,
    description: str,
    metadata: Mapping[str, Any],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, asset_key=ASSET, check_name=CHECK, severity=severity, description=description, metadata=metadata
    )


def _row(task: Document) -> dict[str, Any]:
    attempts = task.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts and isinstance(attempts[-1], dict) else {}
    retries = task.get("retry_count")
    return {
        "task": text_of(task["_id"]),
        "aggregate_type": text_of(task.get("aggregate_type")),
        "aggregate_id": text_of(task.get("aggregate_id")),
        "reason": text_of(task.get("reason")),
        "detail": text_of(last.get("detail")),
        "attempts": retries if isinstance(retries, int) else 0,
        "since": text_of(task.get("created_at")),
    }


def text_of(value: Any) -> str:
    """A stored value as text that Dagster's storage takes, whatever a producer put there."""
    return "" if value is None else json_text(value).encode("utf-8", "backslashreplace").decode()[:500]
