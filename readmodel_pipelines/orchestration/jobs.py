"""Jobs: rebuild one aggregate, a read model, or its slices; verify a read model; repair what is due."""

import dagster as dg

from readmodel_pipelines.orchestration.config import AggregateConfig, RebuildConfig, SliceConfig, VerifyConfig
from readmodel_pipelines.orchestration.ops import (
    rebuild_one_aggregate,
    rebuild_read_model,
    rebuild_slice,
    repair_due_tasks,
    verify_read_model,
)
from readmodel_pipelines.orchestration.partitions import READ_MODELS, each_read_model, each_slice, run_config
from readmodel_pipelines.orchestration.settings_at_load import OWNERS
from readmodel_pipelines.orchestration.tags import AGGREGATE_TYPE_TAG, REBUILD_TAG

_PARTITIONS = ", ".join(f"`{name}` is {item.read_model}" for name, item in READ_MODELS.items())


@dg.job(
    owners=OWNERS,
    # What the Launchpad is filled with: only the id is left to be typed.
    config=run_config(
        rebuild_one_aggregate.name, AggregateConfig(aggregate_type=next(iter(READ_MODELS)), aggregate_id="")
    ),
)
def rebuild_aggregate() -> None:
    """Mend one aggregate: when somebody reports a chat or a task that looks wrong.

    Type the id in the Launchpad and launch. Reads the events of that aggregate and inserts, replaces or deletes its one
    document, whatever else goes on; a dry run writes nothing and says what it would write. Fails in words when the id
    is no UUID or unknown, or its events cannot be trusted.

    All runs over an aggregate, repairs of it alone included: on the page Runs filter by the tag
    `readmodel/aggregate_id`, all over a read model by `readmodel/aggregate_type`. Repairs of many aggregates at once
    carry no such tag: `readmodel repair-queue list` has the run in `claimed_by` of a task.
    """
    rebuild_one_aggregate()


@dg.job(
    owners=OWNERS,
    config=each_read_model(rebuild_read_model.name, RebuildConfig(), AGGREGATE_TYPE_TAG, REBUILD_TAG),
    description=f"""Rebuild a whole read model: after a change of its projection, an import of events, or a failed
verification.

Choose the partition in the Launchpad: {_PARTITIONS}; a backfill of all partitions rebuilds all of them. Compares every
document with its events and writes only what differs; the application may keep writing. One rebuild of a read model
runs at a time. A dry run writes nothing and says what a rebuild would write. Fails when aggregates could not be
rebuilt; all others are rebuilt all the same.""",
)
def rebuild_read_models() -> None:
    """Rebuild the read model of the partition."""
    rebuild_read_model()


@dg.job(owners=OWNERS, config=each_slice(rebuild_slice.name, SliceConfig()))
def rebuild_slices() -> None:
    """Rebuild a read model on several machines: launch a backfill of all slices of it.

    A partition is a read model and one of READMODEL_SLICES parts of its aggregates. Each is a run, which a run launcher
    puts on any machine; they share one rebuild, and whoever does the last slice finishes it. Writes only what differs,
    as `rebuild_read_models` does. Launch failed slices again and only those are done. The tag readmodel/strategy of the
    backfill, in_place or shadow, chooses the strategy. On one machine `rebuild_read_models` does the same with
    processes.
    """
    rebuild_slice()


@dg.job(
    owners=OWNERS,
    config=each_read_model(verify_read_model.name, VerifyConfig(), AGGREGATE_TYPE_TAG),
    description=f"""Verify a whole read model: after an incident or a release, or to know whether a rebuild is needed.

Choose the partition in the Launchpad: {_PARTITIONS}. Compares documents with their events, at any time and beside a
rebuild; writes none, but remembers findings, and evaluates the checks of the asset. The config chooses a part, a
cheaper tier, or that repairs are queued. Fails when anything differs, with the counts, a table of what was found, and
where the whole report lies. `nightly_verification` launches it.""",
)
def verify_read_models() -> None:
    """Verify the read model of the partition."""
    verify_read_model()


@dg.job(
    owners=OWNERS,
    tags={
        # Leases and the sensor try again already.
        "dagster/max_retries": "0",
        # The sensor waits for the run that is going: one that hangs must not stop repairs for a day.
        "dagster/max_runtime": "3600",
    },
)
def repair_read_models() -> None:
    """Repair what the application could not update: the tasks in `repair_queue` that are due, or those you name.

    `repair_queue_sensor` launches it; launch it yourself to repair now what waits for its next attempt. Leases the
    aggregates of a batch of tasks, reads their events, writes only what differs in the read models, and completes the
    tasks. What fails is tried again later; what no retry can mend becomes a dead letter and does not fail the run.

    A run that repaired one aggregate has it in the tag `readmodel/aggregate_id`; one that repaired more stands in
    `claimed_by` of their tasks, and its log has a table of the first.
    """
    repair_due_tasks()
