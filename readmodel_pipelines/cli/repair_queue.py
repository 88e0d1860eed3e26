"""`repair-queue …`: shows, repairs, requeues and deletes repair tasks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from readmodel_pipelines.cli.terminal.asking import make_sure
from readmodel_pipelines.cli.terminal.command import Interrupted, again, command, opened
from readmodel_pipelines.cli.terminal.help import group
from readmodel_pipelines.cli.terminal.options import Launch, Yes
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import MongoUnavailable, UsageError
from readmodel_pipelines.wording import count, cut, span

if TYPE_CHECKING:
    from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
    from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
    from readmodel_pipelines.repair.summary import RepairSummary

_SHOWN_DEAD_LETTERS = 20
_MOST_LISTED = 100_000
_LONGEST = 2_000
_SURE = "Delete dead letters for good?"
_AFTER_A_FIX = (
    "Fix the causes. Then `readmodel repair-queue requeue --all-failed` requeues all dead letters. `readmodel "
    "repair-queue purge --status failed` deletes them for good."
)

app = group(
    "repair-queue",
    "List repair tasks, work them off, requeue or delete them.\n\nThe application adds a task when it could not "
    "update a read model. Dagster's sensor repairs them; `work` does the same without Dagster.",
)


@command(app, "stats", "Show depth, age, rate and dead letters.")
def stats() -> None:
    """Show depth, age and rate of the queue, and its dead letters. Writes nothing."""
    with _queue("read_only") as queue:
        found = queue.stats()
    voice.result({"verb": "stats", **found.as_json()}, _stats_lines(found))


@command(app, "list", "List tasks, the oldest first.")
def list_tasks(
    status: Annotated[
        Literal["pending", "processing", "completed", "failed"] | None,
        typer.Option(help="Only tasks in this state.", show_default=False),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="Only tasks that failed for this reason, from `stats`.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=_MOST_LISTED, help="Maximum number of tasks.")] = 50,
) -> None:
    """List tasks, completed ones too, the oldest first. Writes nothing.

    --status pending shows the open tasks, --status failed the dead letters with their reasons.
    """
    from readmodel_pipelines.reconcile.extended_json import json_value

    with _queue("read_only") as queue:
        found = list(queue.tasks(status, reason, limit + 1))
    shown, more = found[:limit], len(found) > limit
    last = (
        f"… and more; --limit {min(2 * limit, _MOST_LISTED)} shows them." if more else f"{count(len(shown), 'task')}."
    )
    voice.result(
        {"verb": "list", "tasks": [json_value(task) for task in shown], "more": more},
        [*(line for task in shown for line in _task_lines(task)), last],
    )


@command(app, "work", "Repair due tasks, as Dagster does.", verb="repair")
def work(
    once: Annotated[bool, typer.Option("--once", help="End when no task is due.")] = False,
    every: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=86_400, help="Without --once: seconds between two checks for due tasks."
        ),
    ] = 5.0,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1_000_000_000,
            help="With --once: approximate number of aggregates.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=10_000, help="Aggregates per batch. Default: READMODEL_REPAIR_BATCH_SIZE."
        ),
    ] = None,
    task_id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="TASK", help="Repair this open task now, even if it is not due. Repeatable."),
    ] = None,
    launch: Launch = False,
) -> bool:
    """Repair due tasks, until none is due (--once) or as a service.

    Rebuilds the documents of each task's aggregate and completes the task. A failed task is retried later; one that no
    retry can repair becomes a dead letter. Any number of workers can run at once, beside Dagster too. Its sensor
    launches no run while a worker without --once keeps up.
    The exit code is 1 if a claimed task was not repaired, and 0 if Ctrl-C ends a worker without --once.
    With --launch (and --once or --id), Dagster runs it. That run does not fail because of dead letters.
    """
    task_ids = task_id or []
    ends = once or bool(task_ids) or limit is not None
    if launch:
        from readmodel_pipelines.cli.dagster.follow import Run
        from readmodel_pipelines.cli.dagster.launch import launch_runs
        from readmodel_pipelines.settings import load_settings

        if not ends:
            raise UsageError(
                "A run in Dagster ends, and a worker without --once does not.",
                hint="Add --once or --id. Without --launch, Dagster's sensor repairs due tasks anyway.",
            )
        given = {"limit": limit, "batch_size": batch_size, "task_ids": task_ids or None}
        config = {name: value for name, value in given.items() if value is not None}
        return launch_runs(load_settings(), "repair", [Run("repair_read_models", "repair_due_tasks", config)])
    if ends:
        return _work_once(limit, batch_size, task_ids)
    _work_on(every, batch_size)
    return True


@command(app, "requeue", "Requeue dead letters after a fix.")
def requeue(
    task_id: Annotated[str | None, typer.Option("--id", metavar="TASK", help="One task.", show_default=False)] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="All dead letters with this reason.", show_default=False)
    ] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All dead letters.")] = False,
) -> None:
    """Requeue dead letters, with all their attempts, after you fixed the cause.

    Give exactly one of --id, --reason and --all-failed. --id also requeues a completed or waiting task.
    """
    with _queue("queue") as queue:
        number = queue.requeue(task_id=task_id, reason=reason, all_failed=all_failed)
    if reason is not None and not number:
        from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS

        if reason not in DEAD_LETTER_REASONS:
            raise UsageError(
                f"No dead letter has the reason {reason!r}, and there is no such reason.",
                hint="`readmodel repair-queue stats` lists the reasons.",
            )
    next_step = " `readmodel repair-queue work --once` or Dagster's sensor repairs them." if number else ""
    voice.result({"verb": "requeue", "requeued": number}, [f"{count(number, 'task')} requeued.{next_step}"])


@command(app, "purge", "Delete completed tasks or dead letters for good.")
def purge(
    status: Annotated[Literal["completed", "failed"], typer.Option(help="State of the tasks to delete.")],
    older_than_days: Annotated[
        float,
        typer.Option(metavar="DAYS", min=0, max=36_500, help="Only tasks that ended at least this many days ago."),
    ] = 0.0,
    yes: Yes = False,
) -> None:
    """Delete completed tasks, or dead letters, for good. Open tasks are never deleted.

    Completed tasks expire by themselves, after READMODEL_REPAIR_RETENTION_DAYS.
    """
    if status == "failed":
        kept = "Dead letters are the only record of failed repairs, so none was deleted."
        make_sure(_SURE, yes=yes, kept=kept, if_so="to delete them")
    with _queue("queue") as queue:
        number = queue.purge(status, older_than_days)
    voice.result({"verb": "purge", "deleted": number}, [f"{count(number, 'task')} deleted."])


@contextmanager
def _queue(role: str) -> Iterator[RepairQueue]:
    from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue

    with opened(role) as (database, settings):
        yield RepairQueue(database, settings)


def _work_once(limit: int | None, batch_size: int | None, task_ids: list[str]) -> bool:
    """Repair all due tasks, or the named ones; True if all of them are repaired."""
    from readmodel_pipelines.repair.summary import RepairSummary
    from readmodel_pipelines.repair.worker import RepairWorker

    with opened("repair") as (database, settings):
        last = deque([RepairSummary()], maxlen=1)
        worker = RepairWorker(database, settings, batch_size=batch_size, on_batch=last.append)
        try:
            summary = worker.work(limit=limit, task_ids=task_ids or None)
        except KeyboardInterrupt:
            raise Interrupted(
                f"Interrupted: {last[0].in_words()} The other tasks are due again.",
                hint=f"Run again: {again()}",
                done=last[0].as_json(),
            ) from None
    voice.result(summary.as_json(), _summary_lines(summary))
    open_tasks = not task_ids or summary.claimed >= len(set(task_ids))
    if not open_tasks:
        voice.note("Some of the named tasks are not open: completed, dead letters, in work, or missing.")
    return summary.ok and open_tasks


def _work_on(every: float, batch_size: int | None) -> None:
    """Repair due tasks repeatedly until interrupted, then print the totals.

    Raises:
        MongoUnavailable: MongoDB did not answer at the start. Later outages are waited out.
    """
    from readmodel_pipelines.bookkeeping.arrivals import Arrivals
    from readmodel_pipelines.bookkeeping.presence import present
    from readmodel_pipelines.mongo.connection import open_database
    from readmodel_pipelines.repair.summary import RepairSummary
    from readmodel_pipelines.repair.worker import RepairWorker
    from readmodel_pipelines.settings import load_settings

    settings = load_settings()
    total, last = RepairSummary(), deque([RepairSummary()], maxlen=1)
    started = time.perf_counter()
    # Unknown before the first connection.
    down: bool | None = None
    queue = settings.repair_queue_collection
    voice.note(f"Repairs each new task at once, and checks for due tasks every {every:g} s. Ctrl-C ends it.")

    def without(why: str) -> None:
        voice.note(f"Only checks for due tasks every {every:g} s: {why}.")

    try:
        while True:
            try:
                with (
                    open_database(settings, "repair", tell=voice.note) as database,
                    present(database, queue),
                    Arrivals(database, queue, without) as arrivals,
                ):
                    worker = RepairWorker(database, settings, batch_size=batch_size, on_batch=last.append)
                    while True:
                        summary = worker.work()
                        last.append(RepairSummary())
                        if down:
                            voice.note("MongoDB answers again.")
                        down = False
                        total.add(summary)
                        if summary.claimed:
                            voice.note(summary.in_words())
                        arrivals.wait(every)
            except MongoUnavailable as error:
                if down is None:
                    raise
                if not down:
                    voice.note(f"{error.message} Trying again every {every:g} s.")
                    down = True
                time.sleep(every)
    except KeyboardInterrupt:
        total.add(last[0])
        total.seconds = time.perf_counter() - started
        voice.result(total.as_json(), _summary_lines(total))


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
        yield f"Dead letters: {number:,} {reason}"
    yield ""
    if stats.failed:
        yield (f"`readmodel repair-queue list --status failed` shows the dead letters. {_AFTER_A_FIX}")
    elif stats.due:
        yield (
            "`readmodel repair-queue list --status pending` shows the tasks. Dagster's sensor repairs due ones, and so "
            "does `readmodel repair-queue work --once`."
        )
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
    from readmodel_pipelines.reconcile.extended_json import json_text

    return cut(json_text(value), _LONGEST)


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
        yield f"  dead letter: {who}  {letter.reason}: {letter.detail}"
    if len(summary.dead_letters) > _SHOWN_DEAD_LETTERS:
        yield f"  … and {len(summary.dead_letters) - _SHOWN_DEAD_LETTERS:,} more"
    if summary.parked:
        yield _AFTER_A_FIX
    elif summary.ok:
        yield "All is well: all due tasks are repaired."
