"""Tags that a run gives itself, so that all runs over a read model or an aggregate are found, whoever launched them.

A tag has one value in a run: only a run over one read model, or over one aggregate, says which.
"""

from collections.abc import Sequence

import dagster as dg

from readmodel_pipelines.orchestration.partitions import AGGREGATE_TYPE_TAG

AGGREGATE_ID_TAG = "readmodel/aggregate_id"

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
