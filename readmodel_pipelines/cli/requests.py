"""What `rebuild-readmodel` and `verify-consistency` were asked for, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from readmodel_pipelines.cli.choices import ALL
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.projections.registry import names, projections_for
from readmodel_pipelines.reconcile.summary import Verb
from readmodel_pipelines.reports import check_report_file
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification import Bucket, Coverage, Tier
from readmodel_pipelines.verification import Request as Verification

if TYPE_CHECKING:
    from readmodel_pipelines.rebuild import Request as Rebuild


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


@dataclass(frozen=True, slots=True)
class Request:
    """A verb, a read model or all, one aggregate or every one, and the options of the verb."""

    verb: Verb
    read_model: str
    aggregate_id: str | None
    everything: bool
    max_findings: int
    rebuild: RebuildOptions = field(default_factory=RebuildOptions)
    verify: VerifyOptions = field(default_factory=VerifyOptions)


def read_models_of(request: Request, settings: Settings) -> tuple[str, ...]:
    """The names of the read models that are meant.

    Raises:
        UsageError: there is none of that name, or it is not said which aggregates are meant.
    """
    known = names(projections_for(settings))
    if request.read_model not in (*known, ALL):
        raise UsageError(
            f"There is no read model {request.read_model!r}.", hint=f"--type takes {', '.join((*known, ALL))}."
        )
    if (request.aggregate_id is not None) == request.everything:
        both = "Both --id and --all were given" if request.everything else "Neither --id nor --all was given"
        raise UsageError(
            f"{both}; exactly one of them says what to work on.",
            hint="Give --id UUID for one aggregate, or --all for every one.",
        )
    return known if request.read_model == ALL else (request.read_model,)


def rebuild_of(request: Request) -> Rebuild | None:
    """The full rebuild that is asked for; None for another verb or one aggregate.

    Raises:
        UsageError: its options make no sense.
    """
    options = request.rebuild
    of_many = RebuildOptions(strategy=options.strategy) if options.strategy == "in_place" else RebuildOptions()
    full = request.verb == "rebuild" and request.everything
    if replace(options, allow_deletions=False) != of_many and not full:
        raise UsageError(
            "--strategy, --resume, --off-peak and --slice are for full rebuilds.",
            hint="Leave them away, or give --all without --dry-run.",
        )
    if not full:
        return None
    if options.strategy not in ("in_place", "shadow"):
        raise UsageError(f"There is no strategy {options.strategy!r}.", hint="--strategy takes in_place or shadow.")
    # A rebuild of one aggregate, thousands of them in a shell's loop, does not wait for what it never uses.
    from readmodel_pipelines.rebuild import Request as Rebuild
    from readmodel_pipelines.rebuild import Slice

    return Rebuild(
        "shadow" if options.strategy == "shadow" else "in_place",
        # Slices are one rebuild only if each goes on with what the others began.
        resume=options.resume or options.slice is not None,
        allow_deletions=options.allow_deletions,
        off_peak=options.off_peak,
        slice=Slice.parse(options.slice) if options.slice is not None else None,
        max_findings=request.max_findings,
    )


def verification_of(request: Request) -> Verification | None:
    """What to verify and how; None for another verb.

    Raises:
        UsageError: its options make no sense, or a report cannot be written there.
    """
    options = request.verify
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
