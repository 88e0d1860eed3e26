"""What a run leaves behind on the assets of read models: a materialization, an observation, evaluations of checks.

A read model is materialized by a run that succeeds, and was made whole by it: the catalog shows it green. Any other one
is observed, with what was done all the same. Checks are evaluated whichever it is, where the run can tell.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from readmodel_pipelines.orchestration.evaluations import Evaluated, fresh, rebuilt, without_events
from readmodel_pipelines.orchestration.failure import Failed
from readmodel_pipelines.orchestration.partitions import READ_MODELS
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import Summary

_Context = dg.OpExecutionContext | dg.AssetExecutionContext


def is_renewed(summary: Summary, read_model: str) -> bool:
    """Whether a run brought a read model in line as a whole, and did nothing else that is wrong."""
    of = summary.rebuild_of(read_model)
    return summary.ok and of.state is RebuildState.DONE and not of.already_done


def observe(context: _Context, read_model: str, metadata: Mapping[str, Any]) -> None:
    """Something was looked at or done, and the read model as a whole is not newer for it."""
    context.log_event(dg.AssetObservation(read_model, metadata=metadata))


def log_check(context: _Context, said: Evaluated) -> None:
    """Evaluate a check from within a run."""
    # Dagster logs it, and only its annotation forgets to say so.
    context.log_event(dg.AssetCheckEvaluation(**said))  # type: ignore[arg-type]


@contextmanager
def checks_told(context: _Context) -> Iterator[None]:
    """Evaluate the checks of read models for which there is no event, should the block fail for that."""
    try:
        yield
    except Failed as failed:
        for said in without_events(failed):
            log_check(context, said)
        raise


def log_checks_of_rebuild(
    context: _Context, mongo: MongoResource, names: Sequence[str], summary: Summary, max_findings: int
) -> None:
    """Evaluate what a rebuild can tell of the read models with these names; nothing while it is not at its end."""
    told = {name: list(rebuilt(summary, READ_MODELS[name].read_model, max_findings)) for name in names}
    for said in (item for items in told.values() for item in items):
        log_check(context, said)
    if at_end := [name for name, items in told.items() if items]:
        young = mongo.verify_fresh(context, at_end, allow_no_events=True, told=summary.warnings)
        for name in at_end:
            log_check(context, fresh(young, READ_MODELS[name].read_model, max_findings))
