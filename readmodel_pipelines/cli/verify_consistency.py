"""`verify-consistency`: compares one aggregate, all, or a part of them; here, or as a run in Dagster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from readmodel_pipelines.cli.terminal.command import command
from readmodel_pipelines.cli.terminal.help import LOOK
from readmodel_pipelines.cli.terminal.options import (
    DEFAULT_MAX_FINDINGS,
    AggregateId,
    AllowNoEvents,
    Everything,
    Launch,
    MaxFindings,
    ReadModelName,
)
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.reconcile.about import Tier

if TYPE_CHECKING:
    from readmodel_pipelines.mongo.driver import Database
    from readmodel_pipelines.reconcile.progress import Progress
    from readmodel_pipelines.reconcile.summary import Summary

app = typer.Typer()


@command(app, "verify-consistency", "Compare read models with their events.", heading=LOOK, verb="verify")
def verify_consistency(
    read_model: ReadModelName,
    aggregate_id: AggregateId = None,
    everything: Everything = False,
    tier: Annotated[
        Tier,
        typer.Option(
            help="documents: compare every field and BSON type. versions: compare only presence and version; cheap."
        ),
    ] = "documents",
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, metavar="N", help="With --all: N random aggregates.", show_default=False),
    ] = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="With --all: part K of N (999999 at most), by a hash of the id. N nights, one part each, cover "
            "everything.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        Literal["last"] | None,
        typer.Option(
            help="With --all: aggregates with events since the last verification, and those with open findings. "
            "Combined with --sample or --bucket: the union.",
            show_default=False,
        ),
    ] = None,
    enqueue_repairs: Annotated[
        bool,
        typer.Option(
            "--enqueue-repairs",
            help="Queue a repair for each finding, except malformed streams; at most READMODEL_ENQUEUE_LIMIT.",
        ),
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing to the database, not even findings.")
    ] = False,
    off_peak: Annotated[
        bool,
        typer.Option(
            "--off-peak",
            help="With --all: work only in READMODEL_OFF_PEAK_WINDOW. At its end the verification fails, without a "
            "result.",
        ),
    ] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write every finding to FILE: .html is a page for people; .csv and .parquet have a row per field; "
            ".json is like --json. Repeatable.",
            show_default=False,
        ),
    ] = None,
    allow_no_events: AllowNoEvents = False,
    max_findings: MaxFindings = DEFAULT_MAX_FINDINGS,
    launch: Launch = False,
) -> int:
    """Compare read models with their events.

    Writes no event and no read model, only its findings and verifications (readmodel_… collections). A document that
    lags by less than READMODEL_GRACE_SECONDS is counted as lagging, not as a discrepancy. The exit code is 1 if it
    found a discrepancy, and 6 if it found none and could not write a report. With --launch, Dagster runs each read
    model and writes its reports to READMODEL_REPORTS_DIR.
    """
    from readmodel_pipelines.cli.reconcile import carry_out, target_of
    from readmodel_pipelines.reports.writer import check_report_file
    from readmodel_pipelines.verification.coverage import Bucket, Coverage
    from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_one

    settings, names = target_of(read_model, aggregate_id, everything)
    many = (
        tier != "documents"
        or enqueue_repairs
        or read_only
        or off_peak
        or any(item is not None for item in (sample, bucket, since))
    )
    if many and not everything:
        raise UsageError(
            "--id compares one aggregate; the options for many aggregates need --all.",
            hint="Remove them, or give --all.",
        )
    coverage = Coverage(sample, None if bucket is None else Bucket.parse(bucket), since_last=since is not None)
    reports = tuple(report or ())
    for file in reports:
        check_report_file(file)
    request = VerificationRequest(
        coverage,
        tier,
        remember=not read_only,
        enqueue_repairs=enqueue_repairs,
        allow_no_events=allow_no_events,
        max_findings=max_findings,
        reports=reports,
        off_peak=off_peak,
    )
    if launch:
        from readmodel_pipelines.cli.dagster.follow import Run
        from readmodel_pipelines.cli.dagster.launch import launch_runs, refuse, shown_findings

        refuse("--report", reports, "the run writes its reports to READMODEL_REPORTS_DIR")
        refuse("--id", aggregate_id, "no job verifies one aggregate, because it takes only a moment here")
        config = {
            "tier": tier,
            "sample": sample,
            "bucket": bucket,
            "since_last": since is not None,
            "enqueue_repairs": enqueue_repairs,
            "allow_no_events": allow_no_events,
            "read_only": read_only,
            "off_peak": off_peak,
            **shown_findings(max_findings),
        }
        runs = [Run("verify_read_models", "verify_read_model", config, name) for name in names]
        return int(not launch_runs(settings, "verify", runs))

    def work(database: "Database", on_progress: "Progress") -> "Summary":
        if aggregate_id is not None:
            return verify_one(database, settings, names, aggregate_id, reports, allow_no_events=allow_no_events)
        return verify(database, settings, names, request, on_progress=on_progress)

    remembers = everything and not read_only
    role = "read_only" if not remembers else "enqueue" if enqueue_repairs else "verify"
    return carry_out(
        "verify", settings, role, work, aggregate_id=aggregate_id, max_findings=max_findings, remembers=remembers
    )
