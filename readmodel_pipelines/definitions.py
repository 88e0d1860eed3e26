"""What Dagster loads: gathers the definitions of `orchestration`, decides nothing."""

import dagster as dg

from readmodel_pipelines.orchestration import assets, checks, jobs, schedules, sensors
from readmodel_pipelines.orchestration.resources import MongoResource

defs = dg.Definitions(
    assets=[assets.events, assets.read_models, assets.repair_queue],
    asset_checks=[checks.read_model_checks, checks.drains],
    jobs=[
        jobs.rebuild_aggregate,
        jobs.rebuild_read_models,
        jobs.rebuild_slices,
        jobs.verify_read_models,
        jobs.repair_read_models,
    ],
    sensors=[sensors.repair_queue_sensor, *sensors.FREE_LEASES],
    schedules=[schedules.nightly_verification, schedules.weekly_verification, schedules.off_peak_rebuild],
    resources={"mongo": MongoResource()},
    # A step process costs seconds, and outlives a killed run and goes on writing.
    executor=dg.in_process_executor,
)
