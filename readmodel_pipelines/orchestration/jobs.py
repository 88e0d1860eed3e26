"""Jobs: rebuild one aggregate, a read model or its slices; verify a read model; repair due tasks.

Each has one op, a thin layer over projector, rebuild, verification or repair worker. The op records its result on the
assets of the read models, so that an asset's page shows all work on it.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Mapping
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.events.ids import UUID
from readmodel_pipelines.orchestration import OWNERS, SETTINGS_AT_LOAD, partitions
from readmodel_pipelines.orchestration import config as configs
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.evaluations import fresh, intact, matches
from readmodel_pipelines.orchestration.metadata import (
    in_words,
    metadata_of,
    metadata_of_one,
    metadata_of_repair,
    numbers_of,
    of_each,
    on_pages,
    plain,
    raise_unless_ok,
)
from readmodel_pipelines.orchestration.partitions import AGGREGATE_TYPE_TAG, DATABASE_TAG, READ_MODELS, tag_run
from readmodel_pipelines.orchestration.recording import (
    checks_told,
    is_renewed,
    log_check,
    log_checks_of_rebuild,
    observe,
)
from readmodel_pipelines.orchestration.resources import MongoResource, owner_of, where
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.rebuild import RebuildRequest
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.summary import RepairSummary
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.wording import Throttle

_SLICES = {key: name for key, (name, _) in partitions.SLICES.items()}
_DATABASE = {DATABASE_TAG: SETTINGS_AT_LOAD.fingerprint()}
_PARTITIONS = ", ".join(f"`{name}` is {item.read_model}" for name, item in READ_MODELS.items())


@dg.op
def rebuild_one_aggregate(
    context: dg.OpExecutionContext, config: configs.AggregateConfig, mongo: MongoResource
) -> None:
    """Bring the documents of one aggregate in line with its events: insert, replace or delete them, or leave them
    unchanged.

    Reads the events of that aggregate, and writes at most its document in each read model. A dry run writes nothing.
    """
    aggregate_id = config.aggregate_id.strip().lower()
    names = list(READ_MODELS) if config.aggregate_type == ALL else [config.aggregate_type]
    tag_run(context, names, [aggregate_id] if UUID.fullmatch(aggregate_id) else [])
    summary = mongo.work(
        context,
        names,
        lambda projector: projector.rebuild_one(
            config.aggregate_id, dry_run=config.dry_run, allow_no_events=config.allow_no_events
        ),
    )
    metadata = {
        asset: metadata_of_one(summary, asset, aggregate_id)
        for asset in summary.read_models
        # Streams of another type do not contain this aggregate, so there is nothing to record.
        if summary.read_models[asset].checked
    }
    _tell(context, summary, of_each(metadata))
    for asset, said in metadata.items() if not config.dry_run else ():
        observe(context, asset, said)
    raise_unless_ok(summary, metadata)


@dg.job(
    owners=OWNERS,
    # The job has no config of its own, so the Launchpad launches nothing until an id is typed.
    tags=_DATABASE,
)
def rebuild_aggregate() -> None:
    """Rebuild one aggregate, for example when somebody reports a wrong chat or task.

    Type the id in the Launchpad and launch. Reads the events of that aggregate and inserts, replaces or deletes its
    document in one read model or in all of them. It can run beside any other work. A dry run writes nothing and reports
    the writes. The run fails if the id is no UUID or unknown, or if its events are malformed.

    To find all runs for one aggregate, filter the page Runs by the tag `readmodel/aggregate_id`; for one read model, by
    `readmodel/aggregate_type`. Repairs of several aggregates do not have the first tag: `readmodel repair-queue list`
    shows the run in `claimed_by` of each task.
    """
    rebuild_one_aggregate()


@dg.op
def rebuild_read_model(context: dg.OpExecutionContext, config: configs.RebuildConfig, mongo: MongoResource) -> None:
    """Bring every document of a read model in line with its events.

    Reads every event of its streams and every document; inserts, replaces and deletes only differences. A shadow
    rebuild writes a new collection, which then replaces the live one. A dry run writes nothing.
    """
    read_model = partitions.read_model_named_by(context)
    asset = read_model.read_model
    documents: Mapping[str, int] = {}
    if config.dry_run:
        summary = mongo.work(
            context,
            [read_model.name],
            lambda projector: projector.rebuild_all(
                dry_run=True, allow_deletions=config.allow_deletions, allow_no_events=config.allow_no_events
            ),
        )
    else:
        with checks_told(context):
            summary, documents = mongo.rebuild(context, [read_model.name], config.request())
    metadata = metadata_of(summary, asset, documents=documents.get(asset), max_findings=config.max_findings)
    _tell(context, summary, metadata)
    if not config.dry_run:
        _record(context, summary, asset, metadata)
        log_checks_of_rebuild(context, mongo, [read_model.name], summary, config.max_findings)
    raise_unless_ok(summary, {asset: metadata})


@dg.job(
    owners=OWNERS,
    tags=_DATABASE,
    config=partitions.partitioned(
        rebuild_read_model.name, configs.RebuildConfig(), AGGREGATE_TYPE_TAG, partitions.REBUILD_TAG
    ),
    description=f"""Rebuild a whole read model: after a change of its projection, an import of events, or a failed
verification.

Choose the partition in the Launchpad: {_PARTITIONS}. A backfill of all partitions rebuilds all read models. (In its
dialog, «All» skips completed partitions unless you untick «only failed and missing».) Compares every document with
its events and writes only the differences; the application may keep writing. One rebuild of a read model runs at a
time. A dry run writes nothing and reports the writes. The run fails if some aggregates could not be rebuilt; all
others are rebuilt anyway.""",
)
def rebuild_read_models() -> None:
    """Rebuild the read model of the partition."""
    rebuild_read_model()


@dg.op
def rebuild_slice(context: dg.OpExecutionContext, config: configs.SliceConfig, mongo: MongoResource) -> None:
    """Bring the documents of one slice of a read model in line with their events.

    Reads the events and documents of the slice and writes only the differences. The last slice also deletes unwanted
    documents, catches up with new events, and replaces the live collection if the rebuild uses a shadow.
    """
    read_model, part = partitions.slice_named_by(context)
    asset = read_model.read_model
    request = RebuildRequest(
        partitions.strategy_of(context, config.strategy),
        resume=True,
        allow_deletions=config.allow_deletions,
        slice=part,
        campaign=partitions.campaign_of(context),
        allow_no_events=config.allow_no_events,
    )
    with checks_told(context):
        summary, _ = mongo.rebuild(context, [read_model.name], request)
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    _tell(context, summary, metadata)
    if is_renewed(summary, asset) or not summary.ok:
        # A slice that succeeded records nothing; the last one records the whole rebuild.
        _record(context, summary, asset, metadata)
    log_checks_of_rebuild(context, mongo, [read_model.name], summary, config.max_findings)
    raise_unless_ok(summary, {asset: metadata})


@dg.job(
    owners=OWNERS,
    tags=_DATABASE,
    config=partitions.partitioned(rebuild_slice.name, configs.SliceConfig(), AGGREGATE_TYPE_TAG, of=_SLICES),
)
def rebuild_slices() -> None:
    """Rebuild a read model on several machines: launch a backfill of all its slices.

    A partition is one of READMODEL_SLICES parts of a read model's aggregates. Each is a run, which a run launcher can
    start on any machine. All slices share one rebuild, and the last one finishes it. Writes only the differences, like
    `rebuild_read_models`. If slices fail, launch a backfill again: it does only those. In its dialog, «All» skips
    completed slices while «Backfill only failed and missing partitions» is ticked; untick it to rebuild all slices. Set
    the strategy, in_place or shadow, with the tag readmodel/strategy on the backfill. On one machine use
    `rebuild_read_models`, which works with processes.
    """
    rebuild_slice()


@dg.op
def verify_read_model(context: dg.OpExecutionContext, config: configs.VerifyConfig, mongo: MongoResource) -> None:
    """Compare documents of a read model with their events, and evaluate its checks.

    Changes no document. It records findings in `readmodel_findings` unless read_only is set. With enqueue_repairs it
    adds tasks to the repair queue.
    """
    read_model = partitions.read_model_named_by(context)
    asset = read_model.read_model
    with checks_told(context):
        summary, settings = mongo.verify(context, [read_model.name], config)
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    _tell(context, summary, metadata)
    observe(context, asset, on_pages(metadata, summary, asset))
    log_check(context, matches(summary, asset, settings, config.max_findings))
    log_check(context, intact(summary, asset, config.max_findings))
    # After the results are recorded, so that an error in the second verification does not lose them.
    young = mongo.verify_fresh(context, [read_model.name], allow_no_events=True, told=summary.warnings)
    log_check(context, fresh(young, asset, config.max_findings))
    raise_unless_ok(summary, {asset: metadata})


@dg.job(
    owners=OWNERS,
    tags=_DATABASE,
    config=partitions.partitioned(verify_read_model.name, configs.VerifyConfig(), AGGREGATE_TYPE_TAG),
    description=f"""Verify a whole read model: after an incident or a release, or to find out whether a rebuild is
needed.

Choose the partition in the Launchpad: {_PARTITIONS}. Compares documents with their events, at any time, even during
a rebuild. Changes no document, but records findings and evaluates the checks of the asset. The config can limit it
to a part, choose a cheaper tier, or queue repairs. The run fails if anything differs, and shows counts, a table of
findings and the path of the full report. `nightly_verification` launches it.""",
)
def verify_read_models() -> None:
    """Verify the read model of the partition."""
    verify_read_model()


@dg.op
def repair_due_tasks(context: dg.OpExecutionContext, config: configs.RepairConfig, mongo: MongoResource) -> None:
    """Claim the due tasks of the repair queue and bring their documents in line with the events.

    Reads the events of the tasks' aggregates, writes only the differences in their documents, and writes the result
    into each task.
    """
    with mongo.opened(context) as (settings, database):
        queue = RepairQueue(database, settings)
        due = queue.stats().due
        context.log.info(f"Repairing in {where(settings)}; {due:,} tasks are due.")
        now_and_then = Throttle(mongo.progress_seconds)

        def tell_how_far(summary: RepairSummary) -> None:
            if now_and_then():
                left = max(0, due - summary.claimed)
                rate = summary.claimed / max(summary.seconds, 1e-9)
                seconds = f", about {left / rate:,.0f} s at {rate:,.0f} tasks/s" if rate else ""
                context.log.info(f"{summary.in_words()} About {left:,} are left{seconds}.")

        worker = RepairWorker(
            database,
            settings,
            holder=context.run.run_id,
            owner=owner_of(context.run.run_id),
            batch_size=config.batch_size,
            lease_seconds=config.lease_seconds,
            on_batch=tell_how_far,
        )
        summary = worker.work(limit=config.limit, task_ids=config.task_ids or None)
        stats = queue.stats()
    if summary.aggregates == 1:
        tag_run(context, [], [summary.first_taken[0][1]])
    context.log.info(summary.in_words())
    if config.task_ids and summary.claimed < len(config.task_ids):
        context.log.warning("Some of the named tasks are not open: completed, dead letters, in work, or missing.")
    metadata = metadata_of_repair(stats, summary)
    if summary.dead_letters:
        context.log.warning(
            f"{summary.parked:,} tasks became dead letters. The check of repair_queue lists them with their reasons."
        )
    context.add_output_metadata(metadata)
    context.log_event(dg.AssetObservation(REPAIR_QUEUE, metadata=plain(metadata, numbers_of(stats))))
    for read_model, counts in summary.read_models.items():
        if counts.written:
            # With their own names and as text, because these numbers do not describe the whole read model.
            said = plain({f"repair/{name}": number for name, number in counts.as_dict().items()})
            context.log_event(dg.AssetObservation(read_model, metadata={"verb": "repair", **said}))


@dg.job(
    owners=OWNERS,
    tags={
        **_DATABASE,
        # Leases and the sensor already retry.
        "dagster/max_retries": "0",
        # A run that hangs must not stop repairs for a day.
        "dagster/max_runtime": "3600",
        # Ahead of every backfill slice in Dagster's queue.
        "dagster/priority": "10",
    },
)
def repair_read_models() -> None:
    """Repair failed updates of the application: the due tasks of `repair_queue`, or the tasks that you name.

    `repair_queue_sensor` launches it. Launch it yourself to repair tasks before their next attempt is due. Leases the
    aggregates of a batch of tasks, reads their events, writes only the differences in the read models, and completes
    the tasks. A failed task is retried later. A task that no retry can repair becomes a dead letter and does not fail
    the run.

    A run that repaired one aggregate has the tag `readmodel/aggregate_id`. A run that repaired several is named in
    `claimed_by` of their tasks, and its log has a table of the first ones.
    """
    repair_due_tasks()


def _tell(context: dg.OpExecutionContext, summary: Summary, metadata: Mapping[str, Any]) -> None:
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)


def _record(context: dg.OpExecutionContext, summary: Summary, asset: str, metadata: Mapping[str, Any]) -> None:
    if is_renewed(summary, asset):
        # The page of the run shows the findings that the rebuild repaired.
        shown = on_pages(metadata, summary, asset, mended=True)
        context.log_event(dg.AssetMaterialization(asset, metadata=shown))
    else:
        observe(context, asset, on_pages(metadata, summary, asset))
