"""Tags of runs: which read model or aggregate a run is about, whoever launched it, and what a backfill says by them.

A tag has one value in a run: only a run over one read model, or over one aggregate, says which.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import dagster as dg

from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.rebuild_state import Strategy

AGGREGATE_TYPE_TAG = "readmodel/aggregate_type"
AGGREGATE_ID_TAG = "readmodel/aggregate_id"
REBUILD_TAG = "readmodel/rebuild"
"""`dagster.yaml` lets one run for each value of this tag start; a verification does not carry it and need not wait."""

STRATEGY_TAG = "readmodel/strategy"
"""How a backfill says the strategy: its runs have the config of their partitions, whatever config it is given."""

_BACKFILL_TAGS = ("dagster/root_backfill_id", "dagster/backfill")
"""Dagster's own: the backfill that another one does failed partitions of again, and that which launched a run."""

_STRATEGIES: Mapping[str, Strategy] = {item: item for item in get_args(Strategy)}

Context = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext


def tag_run(context: Context, read_models: Sequence[str], aggregate_ids: Sequence[str] = ()) -> None:
    """Write on the run what it is about: read models by their names in the registry, and aggregates."""
    tags = {}
    if len(read_models) == 1:
        tags[AGGREGATE_TYPE_TAG] = read_models[0]
    if len(aggregate_ids) == 1:
        tags[AGGREGATE_ID_TAG] = aggregate_ids[0]
    if not tags.items() <= context.run.tags.items():
        context.instance.add_run_tags(context.run.run_id, tags)


def campaign_of(context: Context) -> str:
    """The backfill that a slice belongs to, launched again or not; empty for a run by itself."""
    return next((said for tag in _BACKFILL_TAGS if (said := context.run.tags.get(tag))), "")


def strategy_of(context: Context, configured: Strategy) -> Strategy:
    """The strategy that the run's tag says, else the configured one."""
    said = context.run.tags.get(STRATEGY_TAG, configured)
    if said not in _STRATEGIES:
        raise failure(
            f"The tag {STRATEGY_TAG} of this run is {said!r}, which is no strategy; nothing was done. "
            f"Launch it again with one of {', '.join(_STRATEGIES)}."
        )
    return _STRATEGIES[said]
