"""Verify, dry run and rebuild from the command line: check the request, run the projector, show its summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from readmodel_pipelines.cli.failures import note
from readmodel_pipelines.cli.output import human_lines, json_text
from readmodel_pipelines.cli.progress import event_progress
from readmodel_pipelines.cli.report import check_report_file, write_report
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projections.registry import names, projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.summary import Summary, Verb
from readmodel_pipelines.settings import Settings, load_settings

ALL = "all"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: a verb, a read model or all, one aggregate or every one."""

    verb: Verb
    read_model: str
    aggregate_id: str | None
    everything: bool
    max_findings: int
    as_json: bool


def carry_out(request: Request, *, allow_deletions: bool = False, report_file: Path | None = None) -> bool:
    """Do it and show the result; True when all is well.

    Raises:
        UsageError: the request makes no sense; found before the database is touched.
    """
    settings = load_settings()
    _check(request, settings)
    if report_file is not None:
        check_report_file(report_file)
    with (
        open_database(settings) as database,
        event_progress(request.verb.replace("_", " ")) as on_progress,
    ):
        projector = ReadModelProjector(
            database,
            settings,
            *([] if request.read_model == ALL else [request.read_model]),
            max_findings=request.max_findings,
            on_progress=on_progress,
        )
        summary = _call(projector, request, allow_deletions)()
    reported = report_file is None or _reported(summary, report_file)
    if request.as_json:
        typer.echo(json_text(summary))
    else:
        typer.echo("\n".join(human_lines(summary, request.aggregate_id)))
    return summary.ok and reported


def _check(request: Request, settings: Settings) -> None:
    known = (*names(projections_for(settings.task_source)), ALL)
    if request.read_model not in known:
        raise UsageError(f"There is no read model {request.read_model!r}.", hint=f"--type takes {', '.join(known)}.")
    if (request.aggregate_id is not None) == request.everything:
        both = "Both --id and --all were given" if request.everything else "Neither --id nor --all was given"
        raise UsageError(
            f"{both}; exactly one of them says what to work on.",
            hint="Give --id UUID for one aggregate, or --all for every one.",
        )


def _call(projector: ReadModelProjector, request: Request, allow_deletions: bool) -> Callable[[], Summary]:
    one, dry_run = request.aggregate_id, request.verb == "dry_run"
    if request.verb == "verify":
        return projector.verify_all if one is None else lambda: projector.verify_consistency(one)
    if one is None:
        return lambda: projector.rebuild_all(dry_run=dry_run, allow_deletions=allow_deletions)
    return lambda: projector.rebuild_one(one, dry_run=dry_run)


def _reported(summary: Summary, file: Path) -> bool:
    # A full disk must not take the result of an hour's work with it: it is still shown.
    try:
        write_report(summary, file)
    except OSError as error:
        note(f"The report {file} could not be written: {error.strerror or error}.")
        return False
    note(f"Report written: {file}")
    return True
