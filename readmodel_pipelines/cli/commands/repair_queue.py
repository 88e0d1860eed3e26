"""`repair-queue …`: look at it, work it off, bring tasks back."""

from __future__ import annotations

from typing import Annotated

import typer

from readmodel_pipelines.cli.failures import in_words
from readmodel_pipelines.cli.help import Group
from readmodel_pipelines.cli.options import Launch, Yes, one_of

app = typer.Typer(
    name="repair-queue",
    cls=Group,
    help="Look at the repair queue, work it off, bring tasks back.\n\nThe application adds a task when it could not "
    "update a read model. Dagster's sensor repairs them; `work` does the same without Dagster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("stats", short_help="Say how deep and old it is, and what is dead.")
def queue_stats() -> None:
    """Say how deep the queue is, how old, how fast it drains, and what is dead in it. Writes nothing."""
    with in_words("stats"):
        from readmodel_pipelines.cli.repair_queue import show_stats

        show_stats()


@app.command("list", short_help="List tasks, the oldest first.")
def queue_list(
    status: Annotated[
        str | None,
        typer.Option(**one_of("pending|processing|completed|failed"), help="Only these.", show_default=False),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only those parked or waiting for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List tasks, the oldest first. Writes nothing."""
    with in_words("list"):
        from readmodel_pipelines.cli.repair_queue import list_tasks

        list_tasks(status=status, reason=reason, limit=limit)


@app.command("work", short_help="Repair what is due, as Dagster does.")
def queue_work(
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Without --once: seconds between two looks.")] = 5.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --once: end after about so many aggregates.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Aggregates at once; READMODEL_REPAIR_BATCH_SIZE if not given."),
    ] = None,
    task_id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="TASK", help="Repair this open task now, whether due or not; repeatable."),
    ] = None,
    launch: Launch = False,
) -> None:
    """Repair what is due, until nothing is (--once) or for ever.

    Brings the read models of each task's aggregate in line with their events and completes the task. What fails is
    tried again later; what no retry can mend is parked. Any number of workers may run beside one another and Dagster.
    The exit code is 1 when not everything that was taken is repaired, and 0 when Ctrl-C ends a worker without --once.
    With --launch (and --once or --id) it is a run of Dagster's, which does not fail for what it parks.
    """
    with in_words("repair"):
        if launch:
            from readmodel_pipelines.cli.launch_request import launch_work

            ok = launch_work(once=once, limit=limit, batch_size=batch_size, task_ids=task_id or [])
            raise typer.Exit(0 if ok else 1)
        from readmodel_pipelines.cli.repair_queue import work_on, work_once

        if once or task_id or limit is not None:
            ok = work_once(limit=limit, batch_size=batch_size, task_ids=task_id or [])
            raise typer.Exit(0 if ok else 1)
        work_on(every=every, batch_size=batch_size)


@app.command("requeue", short_help="Bring dead letters back, once mended.")
def queue_requeue(
    task_id: Annotated[str | None, typer.Option("--id", metavar="TASK", help="One task.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option(help="All dead letters with this reason.", show_default=False)] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All dead letters.")] = False,
) -> None:
    """Bring dead letters back, with all their attempts: after their cause is mended.

    Exactly one of --id, --reason and --all-failed. With --id a completed task or one that waits comes back, too.
    """
    with in_words("requeue"):
        from readmodel_pipelines.cli.repair_queue import requeue

        requeue(task_id=task_id, reason=reason, all_failed=all_failed)


@app.command("purge", short_help="Delete completed tasks or dead letters for good.")
def queue_purge(
    status: Annotated[str, typer.Option(**one_of("completed|failed"), help="Which tasks to delete.")],
    older_than_days: Annotated[float, typer.Option(min=0, help="Only those that ended so long ago.")] = 0.0,
    yes: Yes = False,
) -> None:
    """Delete completed tasks, or dead letters, for good. Open tasks are never deleted.

    Completed tasks expire by themselves, after READMODEL_REPAIR_RETENTION_DAYS.
    """
    with in_words("purge"):
        from readmodel_pipelines.cli.repair_queue import purge

        purge(status=status, older_than_days=older_than_days, yes=yes)
