"""Commands with `--launch`: which job does what was asked for, with what config."""

from __future__ import annotations

from collections.abc import Sequence

from readmodel_pipelines.cli.launch import Wanted, launch
from readmodel_pipelines.cli.requests import Request, read_models_of, rebuild_of, verification_of
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS
from readmodel_pipelines.settings import load_settings


def launch_request(request: Request) -> bool:
    """Have Dagster do it, a run for each read model; True when all of them succeed.

    Raises:
        UsageError: it makes no sense, or not as a run; found before anybody is asked.
    """
    settings = load_settings()
    names = read_models_of(request, settings)
    verification_of(request)
    rebuild_of(request)
    return launch(settings, request.verb, [_wanted(request, name) for name in names])


def launch_work(*, once: bool, limit: int | None, batch_size: int | None, task_ids: Sequence[str]) -> bool:
    """Have Dagster repair what is due, or the tasks named; True when its run succeeds.

    Raises:
        UsageError: a worker that goes on for ever is no run.
    """
    if not (once or task_ids or limit is not None):
        raise UsageError(
            "A run of Dagster's ends, and a worker without --once does not.",
            hint="Give --once or --id with --launch. What is due, Dagster's sensor has repaired by itself.",
        )
    given = {"limit": limit, "batch_size": batch_size, "task_ids": list(task_ids) or None}
    config = {name: value for name, value in given.items() if value is not None}
    return launch(load_settings(), "repair", [Wanted("repair_read_models", "repair_due_tasks", config)])


def _wanted(request: Request, name: str) -> Wanted:
    """The run that does it for one read model."""
    rebuild, look = request.rebuild, request.verify
    shown = {} if request.max_findings == DEFAULT_MAX_FINDINGS else {"max_findings": request.max_findings}
    if request.verb == "verify":
        _refuse("--report", look.reports, "the run writes its reports to READMODEL_REPORTS_DIR")
        _refuse("--id", request.aggregate_id, "no job verifies one aggregate, which takes a moment here")
        config = {
            "tier": look.tier,
            "sample": look.sample,
            "bucket": look.bucket,
            "since_last": look.since is not None,
            "enqueue_repairs": look.enqueue_repairs,
            "read_only": look.read_only,
        }
        return Wanted("verify_read_models", "verify_read_model", config | shown, name)
    dry_run = {"dry_run": request.verb == "dry_run"}
    if request.aggregate_id is not None:
        about = {"aggregate_type": name, "aggregate_id": request.aggregate_id}
        return Wanted("rebuild_aggregate", "rebuild_one_aggregate", about | dry_run)
    _refuse("--slice", rebuild.slice, "launch a backfill of the job rebuild_slices in the web UI")
    # It resumes: a run that crashes is launched again by Dagster, and must not begin anew then.
    options = {
        "allow_deletions": rebuild.allow_deletions,
        "strategy": rebuild.strategy,
        "off_peak": rebuild.off_peak,
    }
    return Wanted("rebuild_read_models", "rebuild_read_model", options | dry_run | shown, name)


def _refuse(option: str, given: object, why: str) -> None:
    if given:
        raise UsageError(f"{option} makes no sense with --launch: {why}.", hint=f"Leave {option} away, or --launch.")
