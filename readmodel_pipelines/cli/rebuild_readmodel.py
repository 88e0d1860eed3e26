"""`rebuild-readmodel`: one aggregate, a dry run, or a full rebuild; here, or as a run in Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from readmodel_pipelines.cli.terminal.command import in_words
from readmodel_pipelines.cli.terminal.help import MEND
from readmodel_pipelines.cli.terminal.options import (
    DEFAULT_MAX_FINDINGS,
    AggregateId,
    AllowNoEvents,
    Everything,
    Launch,
    MaxFindings,
    ReadModelName,
)
from readmodel_pipelines.cli.terminal.voice import voice
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.rebuild_state import Strategy

if TYPE_CHECKING:
    from readmodel_pipelines.cli.dagster.follow import Run
    from readmodel_pipelines.mongo.driver import Database
    from readmodel_pipelines.rebuild import RebuildRequest
    from readmodel_pipelines.reconcile.progress import Progress
    from readmodel_pipelines.reconcile.summary import Summary, Verb

_ROLES: dict[Strategy, str] = {"in_place": "rebuild", "shadow": "shadow"}

app = typer.Typer()


@app.command("rebuild-readmodel", rich_help_panel=MEND, short_help="Rebuild read models from their events.")
def rebuild_readmodel(
    read_model: ReadModelName,
    aggregate_id: AggregateId = None,
    everything: Everything = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; report the changes a rebuild would make.")
    ] = False,
    allow_deletions: Annotated[
        bool,
        typer.Option("--allow-deletions", help="With --all: allow more deletions than READMODEL_MAX_DELETE_SHARE."),
    ] = False,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="With --all. in_place: write the differences into the live collection. shadow: build a new collection "
            "beside it, verify it, and cut over; for a changed projection."
        ),
    ] = "in_place",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="With --all: continue the interrupted rebuild. Give its --type and --strategy again. Otherwise it is "
            "discarded.",
        ),
    ] = False,
    off_peak: Annotated[
        bool,
        typer.Option(
            "--off-peak", help="With --all: stop at the end of READMODEL_OFF_PEAK_WINDOW; --resume continues."
        ),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="K/N",
            help="With --all: rebuild part K of N (1000 at most), for several machines. The run that completes the "
            "last part finishes the rebuild.",
            show_default=False,
        ),
    ] = None,
    allow_no_events: AllowNoEvents = False,
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
    launch: Launch = False,
) -> None:
    """Rebuild read models from their events.

    Writes the documents that differ from their events and deletes those without events. Foreign fields stay. Never
    writes an event. The document of a malformed stream stays as it is, and the exit code is 1.
    A full rebuild can be killed at any time; --resume continues it. `readmodel rebuilds list` shows the rebuilds.
    With --launch, Dagster runs each read model, and always continues an interrupted rebuild.
    """
    verb: Verb = "dry_run" if dry_run else "rebuild"
    with in_words(verb):
        from readmodel_pipelines.cli.reconcile import carry_out, target_of

        settings, names = target_of(read_model, aggregate_id, everything)
        if (strategy != "in_place" or resume or off_peak or part is not None) and (dry_run or not everything):
            raise UsageError(
                "--strategy, --resume, --off-peak and --slice work only for full rebuilds.",
                hint="Remove them, or give --all without --dry-run.",
            )
        full = None
        if everything:
            # The import is late, because a rebuild of one aggregate, run thousands of times in a loop, does not need
            # it.
            from readmodel_pipelines.rebuild import RebuildRequest, Slice

            full = RebuildRequest(
                strategy,
                # Slices form one rebuild only if each continues the work of the others.
                resume=resume or part is not None,
                allow_deletions=allow_deletions,
                off_peak=off_peak,
                slice=None if part is None else Slice.parse(part),
                allow_no_events=allow_no_events,
                max_findings=max_findings,
            )

        def work(database: Database, on_progress: Progress) -> Summary:
            from readmodel_pipelines.projector import ReadModelProjector

            if full is not None and not dry_run:
                from readmodel_pipelines.rebuild import rebuild

                return rebuild(database, settings, names, full, on_progress=on_progress, on_phase=voice.detail)
            projector = ReadModelProjector(
                database, settings, *names, max_findings=max_findings, on_progress=on_progress
            )
            if aggregate_id is not None:
                return projector.rebuild_one(aggregate_id, dry_run=dry_run, allow_no_events=allow_no_events)
            return projector.rebuild_all(dry_run=True, allow_deletions=allow_deletions, allow_no_events=allow_no_events)

        if launch:
            from readmodel_pipelines.cli.dagster.launch import launch_runs, refuse

            refuse("--slice", part, "launch a backfill of the job rebuild_slices in the web UI")
            runs = [_run_of(name, aggregate_id, dry_run, allow_no_events, full) for name in names]
            code = int(not launch_runs(settings, verb, runs))
        else:
            role = "read_only" if dry_run else _ROLES[strategy] if everything else "rebuild_one"
            code = carry_out(verb, settings, role, work, aggregate_id=aggregate_id, max_findings=max_findings)
    raise typer.Exit(code)


def _run_of(
    name: str, aggregate_id: str | None, dry_run: bool, allow_no_events: bool, full: RebuildRequest | None
) -> Run:
    """The run in Dagster that rebuilds one read model."""
    from readmodel_pipelines.cli.dagster.follow import Run
    from readmodel_pipelines.cli.dagster.launch import shown_findings

    if full is None:
        one = {
            "aggregate_type": name,
            "aggregate_id": aggregate_id,
            "dry_run": dry_run,
            "allow_no_events": allow_no_events,
        }
        return Run("rebuild_aggregate", "rebuild_one_aggregate", one)
    # It resumes, because Dagster launches a crashed run again, which must not start over.
    config: dict[str, Any] = {
        "allow_deletions": full.allow_deletions,
        "allow_no_events": full.allow_no_events,
        "strategy": full.strategy,
        "off_peak": full.off_peak,
        "dry_run": dry_run,
        **shown_findings(full.max_findings),
    }
    return Run("rebuild_read_models", "rebuild_read_model", config, name)
