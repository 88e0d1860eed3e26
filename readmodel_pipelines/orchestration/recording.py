"""The records of a run on the assets of read models: materializations, observations, evaluations of checks.

A read model is materialized, and green in the catalog, if the run succeeded and brought all of it in line with its
events. Otherwise it is observed, with the work that was done. Checks are evaluated in both cases if the run knows their
result.
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
    """Whether a run brought the whole read model in line with its events and left no other problem."""
    of = summary.rebuild_of(read_model)
    return summary.ok and of.state is RebuildState.DONE and not of.already_done


def observe(context: _Context, read_model: str, metadata: Mapping[str, Any]) -> None:
    """Record work on a read model that does not renew all of it."""
    context.log_event(dg.AssetObservation(read_model, metadata=metadata))


def log_check(context: _Context, said: Evaluated) -> None:
    """Evaluate a check inside a run."""
    # Dagster accepts an evaluation; only its annotation omits it.
    context.log_event(dg.AssetCheckEvaluation(**said))  # type: ignore[arg-type]


@contextmanager
def checks_told(context: _Context) -> Iterator[None]:
    """Evaluate the checks of read models without any event, if the block fails for that reason."""
    try:
        yield
    except Failed as failed:
        for said in without_events(failed):
            log_check(context, said)
        raise


def log_checks_of_rebuild(
    context: _Context, mongo: MongoResource, names: Sequence[str], summary: Summary, max_findings: int
) -> None:
    """Evaluate the checks that a finished rebuild of these read models can answer; none before its end."""
    told = {name: list(rebuilt(summary, READ_MODELS[name].read_model, max_findings)) for name in names}
    for said in (item for items in told.values() for item in items):
        log_check(context, said)
    if at_end := [name for name, items in told.items() if items]:
        young = mongo.verify_fresh(context, at_end, allow_no_events=True, told=summary.warnings)
        for name in at_end:
            log_check(context, fresh(young, READ_MODELS[name].read_model, max_findings))
