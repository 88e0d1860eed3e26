"""What Dagster loads: gathers the definitions of `orchestration`, decides nothing."""

import dagster as dg

from readmodel_pipelines.orchestration.assets import events, read_models
from readmodel_pipelines.orchestration.jobs import rebuild_aggregate, rebuild_read_models, verify_read_models
from readmodel_pipelines.orchestration.resources import MongoResource

defs = dg.Definitions(
    assets=[events, read_models],
    jobs=[rebuild_aggregate, rebuild_read_models, verify_read_models],
    resources={"mongo": MongoResource()},
    # A step process costs seconds, and outlives a killed run and goes on writing.
    executor=dg.in_process_executor,
)
