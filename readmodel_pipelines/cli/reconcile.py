"""Verify, dry run and rebuild from the command line: check the request, run the projector, show its summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pymongo.database import Database

from readmodel_pipelines.cli.choices import ALL
from readmodel_pipelines.cli.interrupted import Reached, interrupted_look, interrupted_rebuild
from readmodel_pipelines.cli.output import human_lines
from readmodel_pipelines.cli.progress import event_progress
from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projections.registry import names, projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary, Verb
from readmodel_pipelines.reports import check_report_file
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification import Bucket, Coverage, Tier, verify, verify_one
from readmodel_pipelines.verification import Request as Verification

_Work = Callable[[Database[dict[str, Any]], Settings, Sequence[str], Progress], Summary]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: a verb, a read model or all, one aggregate or every one."""

    verb: Verb
    read_model: str
    aggregate_id: str | None
    everything: bool
    max_findings: int


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What `verify-consistency` takes besides, as it was typed."""

    tier: str = "documents"
    sample: int | None = None
    bucket: str | None = None
    since: str | None = None
    enqueue_repairs: bool = False
    read_only: bool = False
    reports: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """What `rebuild-readmodel` takes besides, as it was typed."""

    allow_deletions: bool = False
    strategy: str = "in_place"
    resume: bool = False
    off_peak: bool = False
    slice: str | None = None


def carry_out(
    request: Request,
    *,
    rebuild_options: RebuildOptions | None = None,
    verify_options: VerifyOptions | None = None,
) -> bool:
    """Do it and show the result; True when all is well.

    Raises:
        UsageError: the request makes no sense; found before the database is touched.
    """
    settings = load_settings()
    _check(request, settings)
    verification = _verification(request, verify_options or VerifyOptions())
    options = rebuild_options or RebuildOptions()
    work = _rebuild(request, options)
    with (
        open_database(settings, _role(request, verification, options)) as database,
        event_progress(request.verb.replace("_", " ")) as on_progress,
    ):
        read_models = [] if request.read_model == ALL else [request.read_model]
        reached = Reached(on_progress)
        try:
            if verification is not None and request.aggregate_id is not None:
                summary = verify_one(database, settings, read_models, request.aggregate_id, verification.reports)
            elif verification is not None:
                summary = verify(database, settings, read_models, verification, on_progress=reached)
            elif work is not None:
                summary = work(database, settings, read_models, reached)
            else:
                projector = ReadModelProjector(
                    database, settings, *read_models, max_findings=request.max_findings, on_progress=reached
                )
                summary = _call(projector, request, options.allow_deletions)()
        except KeyboardInterrupt as ending:
            if request.verb == "rebuild":
                raise interrupted_rebuild(getattr(ending, "summary", None)) from None
            remembers = verification is not None and request.everything and verification.remember
            raise interrupted_look(reached, remembers=remembers) from None
    # A summary keeps so many of each kind; what was asked for is so many in all.
    del summary.findings[request.max_findings :]
    voice.result(summary.as_json(), human_lines(summary, request.aggregate_id))
    # No report although one was asked for: its disk is full, for one.
    return summary.ok and summary.about.get("reports") != []


def _check(request: Request, settings: Settings) -> None:
    known = (*names(projections_for(settings)), ALL)
    if request.read_model not in known:
        raise UsageError(f"There is no read model {request.read_model!r}.", hint=f"--type takes {', '.join(known)}.")
    if (request.aggregate_id is not None) == request.everything:
        both = "Both --id and --all were given" if request.everything else "Neither --id nor --all was given"
        raise UsageError(
            f"{both}; exactly one of them says what to work on.",
            hint="Give --id UUID for one aggregate, or --all for every one.",
        )


def _role(request: Request, verification: Verification | None, options: RebuildOptions) -> str:
    """The role that this takes."""
    if verification is not None and request.everything:
        if verification.enqueue_repairs:
            return "enqueue"
        return "verify" if verification.remember else "read_only"
    if request.verb != "rebuild":
        return "read_only"
    if not request.everything:
        return "rebuild_one"
    return "shadow" if options.strategy == "shadow" else "rebuild"


def _call(projector: ReadModelProjector, request: Request, allow_deletions: bool) -> Callable[[], Summary]:
    one, dry_run = request.aggregate_id, request.verb == "dry_run"
    if one is None:
        return lambda: projector.rebuild_all(dry_run=True, allow_deletions=allow_deletions)
    return lambda: projector.rebuild_one(one, dry_run=dry_run)


def _rebuild(request: Request, options: RebuildOptions) -> _Work | None:
    """A full rebuild; None for another verb or one aggregate."""
    of_many = RebuildOptions(strategy=options.strategy) if options.strategy == "in_place" else RebuildOptions()
    only_all = replace(options, allow_deletions=False) != of_many
    if only_all and (request.verb != "rebuild" or not request.everything):
        raise UsageError(
            "--strategy, --resume, --off-peak and --slice are for full rebuilds.",
            hint="Leave them away, or give --all without --dry-run.",
        )
    if request.verb != "rebuild" or not request.everything:
        return None
    # A rebuild of one aggregate, thousands of them in a shell's loop, does not wait for what it never uses.
    from readmodel_pipelines.rebuild import Request as Rebuild
    from readmodel_pipelines.rebuild import Slice, rebuild

    if options.strategy not in ("in_place", "shadow"):
        raise UsageError(f"There is no strategy {options.strategy!r}.", hint="--strategy takes in_place or shadow.")
    wanted = Rebuild(
        "shadow" if options.strategy == "shadow" else "in_place",
        # Slices are one rebuild only if each goes on with what the others began.
        resume=options.resume or options.slice is not None,
        allow_deletions=options.allow_deletions,
        off_peak=options.off_peak,
        slice=Slice.parse(options.slice) if options.slice is not None else None,
        max_findings=request.max_findings,
    )
    return lambda database, settings, read_models, on_progress: rebuild(
        database, settings, read_models, wanted, on_progress=on_progress, on_phase=voice.detail
    )


def _verification(request: Request, options: VerifyOptions) -> Verification | None:
    """What to verify and how; None for another verb."""
    if request.verb != "verify":
        return None
    if not request.everything and options != VerifyOptions(reports=options.reports):
        raise UsageError(
            "--id looks at one aggregate; the options for many go with --all.", hint="Leave them away, or give --all."
        )
    if options.tier not in get_args(Tier):
        raise UsageError(f"There is no tier {options.tier!r}.", hint=f"--tier takes {' or '.join(get_args(Tier))}.")
    if options.since not in (None, "last"):
        raise UsageError("--since takes nothing but `last`: the last verification.", hint="Give --since last.")
    bucket = Bucket.parse(options.bucket) if options.bucket is not None else None
    coverage = Coverage(options.sample, bucket, since_last=options.since is not None)
    for file in options.reports:
        check_report_file(file)
    return Verification(
        coverage,
        "versions" if options.tier == "versions" else "documents",
        remember=not options.read_only,
        enqueue_repairs=options.enqueue_repairs,
        max_findings=request.max_findings,
        reports=options.reports,
    )
