"""The command line: what `readmodel …` takes. Each command is thin over the projector and the MongoDB modules.

Exit codes: 0 all well; 1 discrepancies found, or aggregates that a rebuild could not do; 2 usage; 3 no MongoDB or no
right to it; 130 interrupted. Results go to stdout; progress, notes and errors to stderr.

Everything heavy (pydantic, pymongo, rich) is imported by the command that needs it: help is instant, and a cron job
or a shell loop over ids does not wait for what it never uses.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from readmodel_pipelines.cli.choices import read_model_choices
from readmodel_pipelines.cli.failures import in_words

DEFAULT_MAX_FINDINGS = 1000

app = typer.Typer(
    name="readmodel",
    help="Rebuild, verify and repair the MongoDB read models of an event-sourced application.\n\n"
    "Settings come from the environment: READMODEL_MONGODB_URI, READMODEL_DATABASE and others. Without a URI an "
    "embedded server is started and used, which is meant for trying out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
server = typer.Typer(
    help="Start, stop or look at the embedded server.\n\nIt is used when READMODEL_MONGODB_URI is not set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(server, name="server")
queue = typer.Typer(
    help="Look at the repair queue, work it off, bring tasks back.\n\nThe application adds a task when it could not "
    "update a read model. Dagster's sensor repairs them; `work` does the same without Dagster.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(queue, name="repair-queue")
rebuilds = typer.Typer(
    help="Look at full rebuilds, give one up, put back what was before one.\n\n`rebuild-readmodel --all` makes them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(rebuilds, name="rebuilds")

ReadModel = Annotated[
    str,
    typer.Option(
        "--type",
        metavar="|".join(read_model_choices()),
        help="Read model: chat is chats_read_model, task is tasks_read_model, all is every one of them.",
    ),
]
AggregateId = Annotated[
    str | None, typer.Option("--id", metavar="UUID", help="One aggregate. Either this or --all.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="Every aggregate. Either this or --id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
MaxFindings = Annotated[
    int, typer.Option("--max-findings", min=0, help="Keep at most so many findings; counts are always whole.")
]


@app.command("rebuild-readmodel")
def rebuild_readmodel(
    read_model: ReadModel,
    aggregate_id: AggregateId = None,
    everything: Everything = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what a rebuild would do.")] = False,
    allow_deletions: Annotated[
        bool,
        typer.Option(
            "--allow-deletions", help="With --all: delete even more documents than READMODEL_MAX_DELETE_SHARE."
        ),
    ] = False,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="in_place|shadow",
            help="Of --all. in_place: write what differs into the live collection. shadow: build a new collection "
            "beside it, verify it, and swap it in; for a changed projection.",
        ),
    ] = "in_place",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Of --all: go on with the rebuild that was interrupted. Without it that one is dropped."
        ),
    ] = False,
    off_peak: Annotated[
        bool,
        typer.Option("--off-peak", help="Of --all: stop when READMODEL_OFF_PEAK_WINDOW ends; --resume goes on."),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="K/N",
            help="Of --all: only the K-th of N parts, for several machines; whoever does the last one finishes it.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
) -> None:
    """Bring read models in line with their events.

    Writes only documents that differ, deletes those that no events want, and leaves alone what other software keeps in
    them. Events are only read. A stream that cannot be trusted leaves its document as it is, and the exit code is 1.
    A full rebuild may be killed at any time; --resume goes on. `readmodel rebuilds` shows what there is.
    """
    verb = "dry_run" if dry_run else "rebuild"
    with in_words(verb, as_json=as_json):
        from readmodel_pipelines.cli.reconcile import RebuildOptions, Request, carry_out

        ok = carry_out(
            Request("dry_run" if dry_run else "rebuild", read_model, aggregate_id, everything, max_findings, as_json),
            rebuild_options=RebuildOptions(allow_deletions, strategy, resume, off_peak, part),
        )
    raise typer.Exit(0 if ok else 1)


@app.command("verify-consistency")
def verify_consistency(
    read_model: ReadModel,
    aggregate_id: AggregateId = None,
    everything: Everything = False,
    tier: Annotated[
        str,
        typer.Option(
            metavar="documents|versions",
            help="documents: every field and BSON type. versions: only whether documents are there, at the version of "
            "their streams; cheap.",
        ),
    ] = "documents",
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of --all: N aggregates at random.", show_default=False)
    ] = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Of --all: the K-th of N parts, by a hash of the id. N nights, one part each, cover everything.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="last",
            help="Of --all: aggregates with events since the last verification, and those with open findings. "
            "Together with --sample and --bucket: all of them.",
            show_default=False,
        ),
    ] = None,
    enqueue_repairs: Annotated[
        bool,
        typer.Option(
            "--enqueue-repairs",
            help="Put what is found into the repair queue, but for malformed streams; at most READMODEL_ENQUEUE_LIMIT.",
        ),
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing at all to the database: remember no finding.")
    ] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write every finding to FILE: .html a page for people; .csv and .parquet a row for each field; "
            ".json as --json has it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
) -> None:
    """Compare read models with their events.

    Writes no event and no read model, only what it remembers of findings and verifications (readmodel_… collections).
    What lags by less than READMODEL_GRACE_SECONDS is counted and is no discrepancy. The exit code is 1 when read models
    and events do not agree, or a report could not be written.
    """
    with in_words("verify", as_json=as_json):
        from readmodel_pipelines.cli.reconcile import Request, VerifyOptions, carry_out

        ok = carry_out(
            Request("verify", read_model, aggregate_id, everything, max_findings, as_json),
            verify_options=VerifyOptions(tier, sample, bucket, since, enqueue_repairs, read_only, tuple(report or ())),
        )
    raise typer.Exit(0 if ok else 1)


@app.command("ensure-indexes")
def ensure_indexes(
    no_version_index: Annotated[
        bool,
        typer.Option(
            "--no-version-index",
            help="Leave out the index on the events that only `verify-consistency --tier versions` needs.",
        ),
    ] = False,
) -> None:
    """Make the indexes that are missing.

    On events, read models, repair queue and what verifications remember. Changes no document and drops no index.
    """
    with in_words():
        from readmodel_pipelines.cli.database import make_indexes

        make_indexes(for_versions=not no_version_index)


@app.command()
def rights(
    role: Annotated[
        str | None, typer.Argument(metavar="ROLE", help="Its name; without one the roles are listed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the least-privilege roles of MongoDB users, each as what makes it in mongosh.

    For the database and collections that the settings name. Opens no database and changes nothing.
    """
    with in_words("rights", as_json=as_json):
        from readmodel_pipelines.cli.rights import list_roles, show_role

        if role is None:
            list_roles(as_json=as_json)
        else:
            show_role(role, as_json=as_json)


@app.command()
def load(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of gzipped Extended JSON: *.jsonl.gz.")],
) -> None:
    """Load a folder of documents, with indexes.

    Reads events.jsonl.gz, chats_read_model.jsonl.gz, tasks_read_model.jsonl.gz and repair_queue.jsonl.gz, those that
    are there. A document that the database holds already (same _id or unique key) is left as it is.
    """
    with in_words():
        from readmodel_pipelines.cli.database import load_documents

        load_documents(folder)


@app.command()
def demo(
    no_ui: Annotated[bool, typer.Option("--no-ui", help="End after the last verification, with 0 when clean.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the Dagster UI; 3000 or a free one if not given."),
    ] = None,
    chats: Annotated[int, typer.Option(min=1, help="How many sample chats.")] = 300,
) -> None:
    """Show it all on sample data.

    Fills the embedded server, breaks documents in every way, verifies, rebuilds, verifies, then serves the Dagster UI.
    Only the embedded server: refused when READMODEL_MONGODB_URI is set, and when READMODEL_DATABASE holds data that
    the demo did not make. What an earlier demo made is dropped first.
    """
    with in_words():
        from readmodel_pipelines.cli.demo import play

        ok = play(chats=chats, ui=not no_ui, port=port)
    raise typer.Exit(0 if ok else 1)


@server.command("start")
def server_start() -> None:
    """Start the embedded server if it does not run. It goes on until `readmodel server stop`."""
    with in_words():
        from readmodel_pipelines.cli.server import start

        start()


@server.command("stop")
def server_stop() -> None:
    """Shut the embedded server down; its data stay."""
    with in_words():
        from readmodel_pipelines.cli.server import stop

        stop()


@server.command("status")
def server_status() -> None:
    """Say whether the embedded server runs, where, and with what. Starts nothing."""
    with in_words():
        from readmodel_pipelines.cli.server import status

        status()


@queue.command("stats")
def queue_stats(as_json: AsJson = False) -> None:
    """Say how deep the queue is, how old, how fast it drains, and what is dead in it. Writes nothing."""
    with in_words("stats", as_json=as_json):
        from readmodel_pipelines.cli.repair_queue import show_stats

        show_stats(as_json=as_json)


@queue.command("list")
def queue_list(
    status: Annotated[
        str | None, typer.Option(metavar="pending|processing|completed|failed", help="Only these.", show_default=False)
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only those parked or waiting for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks, the oldest first. Writes nothing."""
    with in_words("list", as_json=as_json):
        from readmodel_pipelines.cli.repair_queue import list_tasks

        list_tasks(status=status, reason=reason, limit=limit, as_json=as_json)


@queue.command("work")
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
    as_json: AsJson = False,
) -> None:
    """Repair what is due, until nothing is (--once) or for ever.

    Brings the read models of each task's aggregate in line with their events and completes the task. What fails is
    tried again later; what no retry can mend is parked. Any number of workers may run beside one another and Dagster.
    The exit code is 1 when not everything that was taken is repaired, and 0 when Ctrl-C ends a worker without --once.
    """
    with in_words("repair", as_json=as_json):
        from readmodel_pipelines.cli.repair_queue import work_on, work_once

        if once or task_id or limit is not None:
            ok = work_once(limit=limit, batch_size=batch_size, task_ids=task_id or [], as_json=as_json)
            raise typer.Exit(0 if ok else 1)
        work_on(every=every, batch_size=batch_size, as_json=as_json)


@queue.command("requeue")
def queue_requeue(
    task_id: Annotated[str | None, typer.Option("--id", metavar="TASK", help="One task.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option(help="All dead letters with this reason.", show_default=False)] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All dead letters.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring dead letters back, with all their attempts: after their cause is mended.

    Exactly one of --id, --reason and --all-failed. With --id a completed task or one that waits comes back, too.
    """
    with in_words("requeue", as_json=as_json):
        from readmodel_pipelines.cli.repair_queue import requeue

        requeue(task_id=task_id, reason=reason, all_failed=all_failed, as_json=as_json)


@queue.command("purge")
def queue_purge(
    status: Annotated[str, typer.Option(metavar="completed|failed", help="Which tasks to delete.")],
    older_than_days: Annotated[float, typer.Option(min=0, help="Only those that ended so long ago.")] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete dead letters without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete completed tasks, or dead letters, for good. Open tasks are never deleted.

    Completed tasks expire by themselves, after READMODEL_REPAIR_RETENTION_DAYS.
    """
    with in_words("purge", as_json=as_json):
        from readmodel_pipelines.cli.repair_queue import purge

        purge(status=status, older_than_days=older_than_days, yes=yes, as_json=as_json)


@rebuilds.command("list")
def rebuilds_list(as_json: AsJson = False) -> None:
    """List the latest rebuilds: how far, since when, and which are unfinished. Writes nothing."""
    with in_words("list", as_json=as_json):
        from readmodel_pipelines.cli.rebuilds import show_all

        show_all(as_json=as_json)


RebuildId = Annotated[str, typer.Argument(metavar="REBUILD", help="Its id, from `readmodel rebuilds list`.")]


@rebuilds.command("show")
def rebuilds_show(rebuild_id: RebuildId, as_json: AsJson = False) -> None:
    """Show one rebuild with its ranges. Writes nothing."""
    with in_words("show", as_json=as_json):
        from readmodel_pipelines.cli.rebuilds import show_one

        show_one(rebuild_id, as_json=as_json)


@rebuilds.command("abort")
def rebuilds_abort(rebuild_id: RebuildId, as_json: AsJson = False) -> None:
    """Give up an unfinished rebuild.

    Drops its shadow; what it wrote in place stays, for it is right. Locks the read models meanwhile: refused while the
    rebuild is at work.
    """
    with in_words("abort", as_json=as_json):
        from readmodel_pipelines.cli.rebuilds import give_up

        give_up(rebuild_id, as_json=as_json)


@rebuilds.command("rollback")
def rebuilds_rollback(
    rebuild_id: RebuildId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put back what the read models were before a rebuild in a shadow, then catch up with the events since then.

    One rename for each read model, and locks them meanwhile. What others wrote into fields that the projection does not
    own since the rebuild is lost.
    """
    with in_words("rollback", as_json=as_json):
        from readmodel_pipelines.cli.rebuilds import put_back

        put_back(rebuild_id, yes=yes, as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # Titles are any Unicode; a terminal that cannot show it must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        # A polite kill ends a run as Ctrl-C does, so that its lease is given back.
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        app()
    except SystemExit as ending:
        if "pymongo" in sys.modules and isinstance(ending.code, int):
            _leave(ending.code)
        raise


def _leave(code: int) -> NoReturn:
    """End at once. On the ordinary way the driver waits half a second for monitoring threads of closed clients."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Whoever read the output is gone, as after `| head`.
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
