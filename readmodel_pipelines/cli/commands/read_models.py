"""Look at read models and mend them: `verify-consistency`, `rebuild-readmodel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from readmodel_pipelines.cli.failures import in_words
from readmodel_pipelines.cli.help import LOOK, MEND
from readmodel_pipelines.cli.options import (
    DEFAULT_MAX_FINDINGS,
    AggregateId,
    Everything,
    Launch,
    MaxFindings,
    ReadModel,
    one_of,
)

if TYPE_CHECKING:
    from readmodel_pipelines.cli.requests import Request
    from readmodel_pipelines.reconcile.summary import Verb

app = typer.Typer()


@app.command("rebuild-readmodel", rich_help_panel=MEND, short_help="Bring read models in line with their events.")
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
            **one_of("in_place|shadow"),
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
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
    launch: Launch = False,
) -> None:
    """Bring read models in line with their events.

    Writes only documents that differ, deletes those that no events want, and leaves alone what other software keeps in
    them. Events are only read. A stream that cannot be trusted leaves its document as it is, and the exit code is 1.
    A full rebuild may be killed at any time; --resume goes on. `readmodel rebuilds` shows what there is.
    With --launch each read model is a run of Dagster's, and always goes on with what was interrupted.
    """
    with in_words("dry_run" if dry_run else "rebuild"):
        from readmodel_pipelines.cli.requests import RebuildOptions, Request

        options = RebuildOptions(allow_deletions, strategy, resume, off_peak, part)
        verb: Verb = "dry_run" if dry_run else "rebuild"
        ok = _do(Request(verb, read_model, aggregate_id, everything, max_findings, rebuild=options), launch=launch)
    raise typer.Exit(0 if ok else 1)


@app.command("verify-consistency", rich_help_panel=LOOK, short_help="Compare read models with their events.")
def verify_consistency(
    read_model: ReadModel,
    aggregate_id: AggregateId = None,
    everything: Everything = False,
    tier: Annotated[
        str,
        typer.Option(
            **one_of("documents|versions"),
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
            **one_of("last"),
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
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
    launch: Launch = False,
) -> None:
    """Compare read models with their events.

    Writes no event and no read model, only what it remembers of findings and verifications (readmodel_… collections).
    What lags by less than READMODEL_GRACE_SECONDS is counted and is no discrepancy. The exit code is 1 when read models
    and events do not agree, or a report could not be written. With --launch each read model is a run of Dagster's,
    which writes its reports to READMODEL_REPORTS_DIR.
    """
    with in_words("verify"):
        from readmodel_pipelines.cli.requests import Request, VerifyOptions

        options = VerifyOptions(tier, sample, bucket, since, enqueue_repairs, read_only, tuple(report or ()))
        ok = _do(Request("verify", read_model, aggregate_id, everything, max_findings, verify=options), launch=launch)
    raise typer.Exit(0 if ok else 1)


def _do(request: Request, *, launch: bool) -> bool:
    if launch:
        from readmodel_pipelines.cli.launch_request import launch_request

        return launch_request(request)
    from readmodel_pipelines.cli.reconcile import carry_out

    return carry_out(request)
