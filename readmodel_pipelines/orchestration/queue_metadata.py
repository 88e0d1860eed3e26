"""The repair queue as Dagster tells it: in numbers to plot, and dead letters as a table."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.orchestration.metadata import table
from readmodel_pipelines.reconcile.extended_json import json_text
from readmodel_pipelines.reconcile.outcome import WRITES
from readmodel_pipelines.repair.summary import RepairSummary

SHOWN = 50

_LONGEST_TEXT = 500
_COLUMNS = {
    "task": "`_id` of the task, for `readmodel repair-queue requeue --id`",
    "aggregate_type": "Aggregate type as its producer wrote it",
    "aggregate_id": "Aggregate whose read models are not repaired",
    "reason": "Why it was parked, for `readmodel repair-queue requeue --reason`",
    "detail": "What the last attempt said",
    "attempts": "Failed attempts",
    "since": "When it was added",
}


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


def metadata_of_repair(stats: QueueStats, summary: RepairSummary) -> dict[str, Any]:
    """The queue behind a run, and what the run repaired, under names that are plotted behind those of the queue.

    The aggregates that were taken first are listed, so that somebody sees whether theirs was among them, and those that
    were parked; their tasks are not known, for the run names aggregates.
    """
    numbers = {name: getattr(summary, name) for name in ("aggregates", "claimed", "retried", "parked", "lost")}
    numbers |= {"repaired": summary.completed, "seconds": round(summary.seconds, 3)}
    numbers["repaired_per_second"] = round(summary.completed / max(summary.seconds, 1e-9), 1)
    for read_model, counts in summary.read_models.items():
        numbers |= {f"{read_model}/{write}": getattr(counts, write) for write in WRITES}
    said: dict[str, Any] = {**numbers_of(stats), **{f"repair/{name}": number for name, number in numbers.items()}}
    columns = ("aggregate_type", "aggregate_id")
    if summary.first_taken:
        taken = (dict(zip(columns, aggregate, strict=True)) for aggregate in summary.first_taken)
        said["taken"] = table(taken, dict.fromkeys(columns))
    if summary.dead_letters:
        said["parked_now"] = table_of_dead_letters(
            {**{name: getattr(letter, name) for name in (*columns, "reason")}, "attempts": [{"detail": letter.detail}]}
            for letter in summary.dead_letters[:SHOWN]
        )
    return said


def table_of_dead_letters(tasks: Iterable[Document]) -> dg.TableMetadataValue:
    """Tasks as a table, whatever their producers put there."""
    return table(map(_row, tasks), _COLUMNS, numbers=["attempts"])


def _row(task: Document) -> dict[str, Any]:
    attempts, retries = task.get("attempts"), task.get("retry_count")
    last = attempts[-1] if isinstance(attempts, list) and attempts and isinstance(attempts[-1], dict) else {}
    return {
        "task": _text(task.get("_id")),
        "aggregate_type": _text(task.get("aggregate_type")),
        "aggregate_id": _text(task.get("aggregate_id")),
        "reason": _text(task.get("reason")),
        "detail": _text(last.get("detail")),
        "attempts": retries if isinstance(retries, int) else 0,
        "since": _text(task.get("created_at")),
    }


def _text(value: Any) -> str:
    """A stored value as text that Dagster's storage takes."""
    shown = "" if value is None else json_text(value)
    return shown.encode("utf-8", "backslashreplace").decode()[:_LONGEST_TEXT]
