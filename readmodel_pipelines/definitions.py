"""The Dagster definitions: gathers everything from `orchestration` and contains no logic."""

import dagster as dg

from readmodel_pipelines.orchestration import (
    alerts,
    assets,
    checks,
    dead_letters,
    history,
    jobs,
    own_history,
    schedules,
    sensors,
    verified,
)
from readmodel_pipelines.orchestration.resources import MongoResource

defs = dg.Definitions(
    assets=[assets.events, assets.read_models, assets.repair_queue],
    asset_checks=[checks.read_model_checks, checks.drains, verified.verified_checks],
    jobs=[
        jobs.rebuild_aggregate,
        jobs.rebuild_read_models,
        jobs.rebuild_slices,
        jobs.verify_read_models,
        history.show_history,
        jobs.repair_read_models,
        dead_letters.requeue_dead_letters,
        own_history.purge_dagster_history,
    ],
    sensors=[
        sensors.repair_queue_sensor,
        *sensors.FREE_LEASES,
        verified.watch_verifications,
        alerts.tell_of_failed_runs,
        alerts.tell_of_failed_checks,
    ],
    schedules=[
        schedules.nightly_verification,
        schedules.weekly_verification,
        schedules.off_peak_rebuild,
        own_history.weekly_purge,
    ],
    resources={"mongo": MongoResource()},
    # A step process takes seconds to start. It also survives a killed run and continues to write.
    executor=dg.in_process_executor,
)
