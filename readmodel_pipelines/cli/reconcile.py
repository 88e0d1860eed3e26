"""Verify, dry run and rebuild from the command line: here, or as runs of Dagster's; then the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.cli.choices import ALL
from readmodel_pipelines.cli.interrupted import Reached, interrupted_look, interrupted_rebuild
from readmodel_pipelines.cli.output import human_lines
from readmodel_pipelines.cli.progress import event_progress
from readmodel_pipelines.cli.requests import Request, read_models_of, rebuild_of, verification_of
from readmodel_pipelines.cli.voice import voice
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification import verify, verify_one

_Work = Callable[[Database[dict[str, Any]], Settings, Sequence[str], Reached], Summary]


def carry_out(request: Request) -> bool:
    """Do it here and show the result; True when all is well.

    Raises:
        UsageError: the request makes no sense; found before the database is touched.
        Interrupted: Ctrl-C, with what was done.
    """
    settings = load_settings()
    read_models_of(request, settings)
    role, work = _work(request)
    with (
        open_database(settings, role) as database,
        event_progress(request.verb.replace("_", " ")) as on_progress,
    ):
        reached = Reached(on_progress)
        try:
            summary = work(database, settings, [] if request.read_model == ALL else [request.read_model], reached)
        except KeyboardInterrupt as ending:
            if request.verb == "rebuild":
                raise interrupted_rebuild(getattr(ending, "summary", None)) from None
            raise interrupted_look(reached, remembers=role in ("verify", "enqueue")) from None
    # A summary keeps so many of each kind; what was asked for is so many in all.
    del summary.findings[request.max_findings :]
    voice.result(summary.as_json(), human_lines(summary, request.aggregate_id))
    # No report although one was asked for: its disk is full, for one.
    return summary.ok and summary.scope.reports != []


def _work(request: Request) -> tuple[str, _Work]:
    """The role that it takes, and what does it."""
    one = request.aggregate_id
    verification, wanted = verification_of(request), rebuild_of(request)
    if verification is not None and one is not None:
        reports = verification.reports
        return "read_only", lambda database, settings, names, _: verify_one(database, settings, names, one, reports)
    if verification is not None:
        look = verification
        role = "enqueue" if look.enqueue_repairs else "verify" if look.remember else "read_only"
        return role, lambda database, settings, names, reached: verify(
            database, settings, names, look, on_progress=reached
        )
    if wanted is not None:
        from readmodel_pipelines.rebuild import rebuild

        full = wanted
        return "shadow" if full.strategy == "shadow" else "rebuild", lambda database, settings, names, reached: rebuild(
            database, settings, names, full, on_progress=reached, on_phase=voice.detail
        )
    return "read_only" if request.verb == "dry_run" else "rebuild_one", _projecting(request)


def _projecting(request: Request) -> _Work:
    """A dry run, or a rebuild of one aggregate."""

    def work(
        database: Database[dict[str, Any]], settings: Settings, read_models: Sequence[str], reached: Reached
    ) -> Summary:
        projector = ReadModelProjector(
            database, settings, *read_models, max_findings=request.max_findings, on_progress=reached
        )
        if request.aggregate_id is None:
            return projector.rebuild_all(dry_run=True, allow_deletions=request.rebuild.allow_deletions)
        return projector.rebuild_one(request.aggregate_id, dry_run=request.verb == "dry_run")

    return work
