"""The repair queue from the command line: its numbers and tasks; working it off; bringing tasks back, deleting them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import typer

from readmodel_pipelines.bookkeeping.queue_stats import STATUSES, QueueStats, Status
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.repair_task import ids_of
from readmodel_pipelines.cli.interrupted import Interrupted, again
from readmodel_pipelines.cli.voice import plain, voice
from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.reconcile.extended_json import json_text, json_value
from readmodel_pipelines.repair import RepairSummary, RepairWorker
from readmodel_pipelines.settings import load_settings
from readmodel_pipelines.wording import count, span

_SHOWN_DEAD_LETTERS = 20


def show_stats() -> None:
    """Depth by status, ages, rate, dead letters by reason, and what to do about it."""
    settings = load_settings()
    with open_database(settings, "read_only") as database:
        stats = RepairQueue(database, settings).stats()
    voice.result({"verb": "stats", **stats.as_json()}, _stats_lines(stats))


def list_tasks(*, status: str | None, reason: str | None, limit: int) -> None:
    """The tasks, the oldest first.

    Raises:
        UsageError: there is no such status.
    """
    chosen = None if status is None else _status(status, STATUSES)
    settings = load_settings()
    with open_database(settings, "read_only") as database:
        found = list(RepairQueue(database, settings).tasks(chosen, reason, limit + 1))
    shown, more = found[:limit], len(found) > limit
    last = f"… and more; --limit {2 * limit} shows them." if more else f"{count(len(shown), 'task')}."
    voice.result(
        {"verb": "list", "tasks": [json_value(task) for task in shown], "more": more},
        [*(line for task in shown for line in _task_lines(task)), last],
    )


def work_once(*, limit: int | None, batch_size: int | None, task_ids: Sequence[str]) -> bool:
    """Repair until nothing is due, or the tasks named; True when all of them are repaired."""
    settings = load_settings()
    with open_database(settings, "repair") as database:
        named = [item for text in task_ids for item in ids_of(text)]
        so_far = RepairSummary()

        def remember(summary: RepairSummary) -> None:
            nonlocal so_far
            so_far = summary

        worker = RepairWorker(database, settings, batch_size=batch_size, on_batch=remember)
        try:
            summary = worker.work(limit=limit, task_ids=named or None)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted: {so_far.in_words()} The others are in the queue, due again.",
                hint=f"Go on with: {again()}",
                done=so_far.as_json(),
            ) from None
    voice.result(summary.as_json(), _summary_lines(summary))
    open_tasks = not task_ids or summary.claimed >= len(set(task_ids))
    if not open_tasks:
        voice.note("Not every task named is open: it is completed, a dead letter, in work or not there.")
    return summary.ok and open_tasks


def work_on(*, every: float, batch_size: int | None) -> None:
    """Repair what is due, again and again, until somebody ends it; what was done is shown then.

    Raises:
        MongoUnavailable: no MongoDB at the first look; later it is waited for.
    """
    settings = load_settings()
    total, current = RepairSummary(), RepairSummary()
    started = time.perf_counter()
    looked, down = False, False

    def remember(summary: RepairSummary) -> None:
        nonlocal current
        current = summary

    voice.note(f"Looking every {every:g} s for what is due; Ctrl-C ends it.")
    try:
        while True:
            try:
                with open_database(settings, "repair") as database:
                    worker = RepairWorker(database, settings, batch_size=batch_size, on_batch=remember)
                    while True:
                        summary = worker.work()
                        current, looked = RepairSummary(), True
                        if down:
                            voice.note("MongoDB answers again.")
                            down = False
                        total.add(summary)
                        if summary.claimed:
                            voice.note(summary.in_words())
                        time.sleep(every)
            except MongoUnavailable as error:
                if not looked:
                    raise
                if not down:
                    voice.note(f"{error.message} Trying again every {every:g} s.")
                    down = True
                time.sleep(every)
    except KeyboardInterrupt:
        total.add(current)
        total.seconds = time.perf_counter() - started
        voice.result(total.as_json(), _summary_lines(total))
        raise typer.Exit(0) from None


def requeue(*, task_id: str | None, reason: str | None, all_failed: bool) -> None:
    """Bring tasks back, with all their attempts."""
    settings = load_settings()
    with open_database(settings, "queue") as database:
        number = RepairQueue(database, settings).requeue(task_id=task_id, reason=reason, all_failed=all_failed)
    again = " `readmodel repair-queue work --once` or Dagster's sensor repairs them." if number else ""
    voice.result({"verb": "requeue", "requeued": number}, [f"{count(number, 'task')} brought back.{again}"])


def purge(*, status: str, older_than_days: float, yes: bool) -> None:
    """Delete tasks that ended, for good.

    Raises:
        UsageError: tasks of that status have not ended, or nobody said yes to deleting dead letters.
    """
    chosen = _status(status, ("completed", "failed"))
    if chosen == "failed" and not yes and not _agreed():
        raise UsageError(
            "Dead letters are the only trace of repairs that never came about; none was deleted.",
            hint="Say --yes to delete them.",
        )
    settings = load_settings()
    with open_database(settings, "queue") as database:
        number = RepairQueue(database, settings).purge(_ended(chosen), older_than_days)
    voice.result({"verb": "purge", "deleted": number}, [f"{count(number, 'task')} deleted."])


def _agreed() -> bool:
    return sys.stdin.isatty() and typer.confirm("Delete dead letters for good?", err=True)


def _ended(status: Status) -> Literal["completed", "failed"]:
    return "completed" if status == "completed" else "failed"


def _status(status: str, known: Sequence[Status]) -> Status:
    for name in known:
        if name == status:
            return name
    raise UsageError(f"There is no status {status!r} to choose here.", hint=f"--status takes {', '.join(known)}.")


def _stats_lines(stats: QueueStats) -> Iterator[str]:
    rows = {
        "pending": stats.pending,
        "in work": stats.processing,
        "completed, about": stats.completed,
        "dead letters": stats.failed,
        "due now": stats.due,
    }
    if stats.other:
        rows["of another status"] = stats.other
    width = max(map(len, rows))
    yield from (f"{name:<{width}}  {number:>9,}" for name, number in rows.items())
    yield ""
    if stats.pending:
        yield f"The oldest pending task has waited for {span(stats.oldest_pending_seconds)}."
    yield f"{stats.repairs_per_minute:,.1f} repairs a minute in the last five minutes."
    for reason, number in sorted(stats.dead_letters.items()):
        yield f"Dead letters: {number:,} {plain(reason)}"
    yield ""
    if stats.failed:
        yield (
            "`readmodel repair-queue list --status failed` shows the dead letters; mend the cause, then "
            "`readmodel repair-queue requeue`."
        )
    elif stats.due:
        yield "Dagster's sensor repairs what is due, or `readmodel repair-queue work`."
    else:
        yield "All is well: nothing is due."


def _task_lines(task: dict[str, Any]) -> Iterator[str]:
    shown = {name: _text(value) for name, value in task.items()}
    who = f"{shown.get('aggregate_type', '')} {shown.get('aggregate_id', '')}".strip()
    reason = f" ({shown['reason']})" if shown.get("reason") else ""
    yield f"{shown['_id']}  {who}  {shown.get('status', '')}{reason}"
    named = {
        "added": "created_at",
        "failed attempts": "retry_count",
        "next attempt": "next_attempt_at",
        "in work until": "lease_until",
        "taken by": "claimed_by",
        "completed": "completed_at",
    }
    told = [f"{name} {shown[field]}" for name, field in named.items() if shown.get(field) not in (None, "", "0")]
    if told:
        yield f"    {', '.join(told)}"
    attempts = task.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else {}
    if isinstance(last, dict) and last.get("detail"):
        yield f"    last attempt: {_text(last['detail'])}"
    if shown.get("error"):
        yield f"    error: {shown['error']}"


def _text(value: Any) -> str:
    return plain(json_text(value))


def _summary_lines(summary: RepairSummary) -> Iterator[str]:
    if not summary.claimed:
        yield "Nothing was due."
        return
    yield f"Repair: {summary.in_words()}"
    for name, counts in summary.read_models.items():
        writes = ", ".join(f"{getattr(counts, write):,} {write}" for write in ("inserted", "replaced", "deleted"))
        yield f"  {name}: {counts.checked:,} compared, {counts.same:,} same; {writes}"
    for letter in summary.dead_letters[:_SHOWN_DEAD_LETTERS]:
        who = f"{_text(letter.aggregate_type)} {_text(letter.aggregate_id)}"
        yield f"  parked: {who}  {letter.reason}: {plain(letter.detail)}"
    if len(summary.dead_letters) > _SHOWN_DEAD_LETTERS:
        yield f"  … and {len(summary.dead_letters) - _SHOWN_DEAD_LETTERS:,} more"
    if summary.parked:
        yield "Mend the causes, then `readmodel repair-queue requeue` brings dead letters back."
    elif summary.ok:
        yield "All is well: every task that was due is repaired."
