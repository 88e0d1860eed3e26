"""What Dagster makes of the environment, as a process of its own: for a read model, its name and an aggregate.

Tells the assets, checks, partitions and choices that are there; then materializes the read model, verifies its
partition and rebuilds one aggregate, as the web UI does.
"""

import json
import sys
from typing import Any

import dagster as dg

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.orchestration.config import AggregateConfig
from readmodel_pipelines_tests.support.verbs.dagster_runs import Dagster


def main(read_model: str, name: str, aggregate_id: str) -> None:
    """Tell, run, and tell how that went."""
    graph = defs.resolve_asset_graph()
    jobs = {job: defs.resolve_job_def(job) for job in ("rebuild_read_models", "rebuild_slices", "verify_read_models")}
    keys = {job: item.partitions_def.get_partition_keys() for job, item in jobs.items() if item.partitions_def}
    config: Any = AggregateConfig.to_config_schema().as_field().config_type
    choices = config.fields["aggregate_type"].config_type
    with dg.DagsterInstance.ephemeral() as instance:
        dagster = Dagster(instance)
        made = dagster.materialize(read_model)
        verified = dagster.run("verify_read_models", name)
        one = dagster.run("rebuild_aggregate", aggregate_type=name, aggregate_id=aggregate_id)
        told = {
            "assets": sorted(key.to_user_string() for key in graph.materializable_asset_keys),
            "made_from": [key.to_user_string() for key in graph.get(dg.AssetKey(read_model)).parent_keys],
            "code_version": graph.get(dg.AssetKey(read_model)).code_version,
            "checks": sorted(key.name for key in graph.asset_check_keys if key.asset_key == dg.AssetKey(read_model)),
            "partitions": {
                job: [key for key in partitions if key.startswith(name)] for job, partitions in keys.items()
            },
            "choices": sorted(choices.config_values),
            "success": [made.success, verified.success, one.success],
            "documents": dagster.materialized(made)[read_model]["dagster/row_count"],
            "passed": {item.check_name: item.passed for item in verified.get_asset_check_evaluations()},
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
