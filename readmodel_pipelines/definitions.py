"""What Dagster loads: gathers the definitions of `orchestration`, decides nothing."""

import dagster as dg

from readmodel_pipelines.orchestration.assets import events, read_models, repair_queue
from readmodel_pipelines.orchestration.checks import drains, read_model_checks
from readmodel_pipelines.orchestration.jobs import (
    rebuild_aggregate,
    rebuild_read_models,
    rebuild_slices,
    repair_read_models,
    verify_read_models,
)
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.schedules import nightly_verification, off_peak_rebuild, weekly_verification
from readmodel_pipelines.orchestration.sensors import (
    free_leases_of_canceled_repairs,
    free_leases_of_failed_repairs,
    repair_queue_sensor,
)

defs = dg.Definitions(
    assets=[events, read_models, repair_queue],
    asset_checks=[read_model_checks, drains],
    jobs=[rebuild_aggregate, rebuild_read_models, rebuild_slices, verify_read_models, repair_read_models],
    sensors=[repair_queue_sensor, free_leases_of_failed_repairs, free_leases_of_canceled_repairs],
    schedules=[nightly_verification, weekly_verification, off_peak_rebuild],
    resources={"mongo": MongoResource()},
    # A step process costs seconds, and outlives a killed run and goes on writing.
    executor=dg.in_process_executor,
)
