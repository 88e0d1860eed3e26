"""`rebuild-readmodel`: one aggregate, a dry run, or a full rebuild; here, or as a run of Dagster's."""

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


@app.command("rebuild-readmodel", rich_help_panel=MEND, short_help="Bring read models in line with their events.")
def rebuild_readmodel(
    read_model: ReadModelName,
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
        Strategy,
        typer.Option(
            help="Of --all. in_place: write what differs into the live collection. shadow: build a new collection "
            "beside it, verify it, and swap it in; for a changed projection."
        ),
    ] = "in_place",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Of --all: go on with the rebuild that was interrupted. Without it that one is dropped."
        ),
    ] = False,
    off_peak: Annotated[
        bool, typer.Option("--off-peak", help="Of --all: stop when READMODEL_OFF_PEAK_WINDOW ends; --resume goes on.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            "--slice",
            metavar="K/N",
            help="Of --all: only the K-th of N parts (1000 at most), for several machines; whoever does the last one "
            "finishes it.",
            show_default=False,
        ),
    ] = None,
    allow_no_events: AllowNoEvents = False,
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
    launch: Launch = False,
) -> None:
    """Bring read models in line with their events.

    Writes only documents that differ, deletes those that no events want, and leaves alone what other software keeps in
    them. Events are only read. A stream that cannot be trusted leaves its document as it is, and the exit code is 1.
    A full rebuild may be killed at any time; --resume goes on. `readmodel rebuilds` shows what there is.
    With --launch each read model is a run of Dagster's, and always goes on with what was interrupted.
    """
    verb: Verb = "dry_run" if dry_run else "rebuild"
    with in_words(verb):
        from readmodel_pipelines.cli.reconcile import carry_out, target_of

        settings, names = target_of(read_model, aggregate_id, everything)
        if (strategy != "in_place" or resume or off_peak or part is not None) and (dry_run or not everything):
            raise UsageError(
                "--strategy, --resume, --off-peak and --slice are for full rebuilds.",
                hint="Leave them away, or give --all without --dry-run.",
            )
        full = None
        if everything:
            # A rebuild of one aggregate, thousands of them in a shell's loop, does not wait for what it never uses.
            from readmodel_pipelines.rebuild import RebuildRequest, Slice

            full = RebuildRequest(
                strategy,
                # Slices are one rebuild only if each goes on with what the others began.
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
                return projector.rebuild_one(aggregate_id, dry_run=dry_run)
            return projector.rebuild_all(dry_run=True, allow_deletions=allow_deletions, allow_no_events=allow_no_events)

        if launch:
            from readmodel_pipelines.cli.dagster.launch import launch_runs, refuse

            refuse("--slice", part, "launch a backfill of the job rebuild_slices in the web UI")
            ok = launch_runs(settings, verb, [_run_of(name, aggregate_id, dry_run, full) for name in names])
        else:
            role = "read_only" if dry_run else _ROLES[strategy] if everything else "rebuild_one"
            ok = carry_out(verb, settings, role, work, aggregate_id=aggregate_id, max_findings=max_findings)
    raise typer.Exit(0 if ok else 1)


def _run_of(name: str, aggregate_id: str | None, dry_run: bool, full: RebuildRequest | None) -> Run:
    """The run of Dagster's that does it for one read model."""
    from readmodel_pipelines.cli.dagster.follow import Run
    from readmodel_pipelines.cli.dagster.launch import shown_findings

    if full is None:
        one = {"aggregate_type": name, "aggregate_id": aggregate_id, "dry_run": dry_run}
        return Run("rebuild_aggregate", "rebuild_one_aggregate", one)
    # It resumes: a run that crashes is launched again by Dagster, and must not begin anew then.
    config: dict[str, Any] = {
        "allow_deletions": full.allow_deletions,
        "allow_no_events": full.allow_no_events,
        "strategy": full.strategy,
        "off_peak": full.off_peak,
        "dry_run": dry_run,
        **shown_findings(full.max_findings),
    }
    return Run("rebuild_read_models", "rebuild_read_model", config, name)
