"""Jobs: rebuild one aggregate, a read model, or its slices; verify a read model; repair what is due.

Each has one op above it, thin over projector, rebuild, verification and repair worker, which tells what it did: it
records on the assets of the read models, so that an asset's page has its history whoever touched it.
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
from readmodel_pipelines.wording import NowAndThen

_SLICES = {key: name for key, (name, _) in partitions.SLICES.items()}
_DATABASE = {DATABASE_TAG: SETTINGS_AT_LOAD.fingerprint()}
_PARTITIONS = ", ".join(f"`{name}` is {item.read_model}" for name, item in READ_MODELS.items())


@dg.op
def rebuild_one_aggregate(
    context: dg.OpExecutionContext, config: configs.AggregateConfig, mongo: MongoResource
) -> None:
    """Bring the documents of one aggregate in line with its events: insert, replace or delete, or leave as they are.

    Reads the events of that aggregate, and writes at most its document in each read model. A dry run writes nothing.
    """
    aggregate_id = config.aggregate_id.strip().lower()
    names = list(READ_MODELS) if config.aggregate_type == ALL else [config.aggregate_type]
    tag_run(context, names, [aggregate_id] if UUID.fullmatch(aggregate_id) else [])
    summary = mongo.work(
        context, names, lambda projector: projector.rebuild_one(config.aggregate_id, dry_run=config.dry_run)
    )
    metadata = {
        asset: metadata_of_one(summary, asset, aggregate_id)
        for asset in summary.read_models
        # Of streams of another type, which know nothing of it, there is nothing to tell.
        if summary.read_models[asset].checked
    }
    _tell(context, summary, of_each(metadata))
    for asset, said in metadata.items() if not config.dry_run else ():
        observe(context, asset, said)
    raise_unless_ok(summary, metadata)


@dg.job(
    owners=OWNERS,
    # No config of its own: the Launchpad launches nothing until an id is typed.
    tags=_DATABASE,
)
def rebuild_aggregate() -> None:
    """Mend one aggregate: when somebody reports a chat or a task that looks wrong.

    Type the id in the Launchpad and launch. Reads the events of that aggregate and inserts, replaces or deletes its
    document in the read model, or in all of them, whatever else goes on; a dry run writes nothing and says what it
    would write. Fails in words when the id is no UUID or unknown, or its events cannot be trusted.

    All runs over an aggregate, repairs of it alone included: on the page Runs filter by the tag
    `readmodel/aggregate_id`, all over a read model by `readmodel/aggregate_type`. Repairs of many aggregates at once
    carry no such tag: `readmodel repair-queue list` has the run in `claimed_by` of a task.
    """
    rebuild_one_aggregate()


@dg.op
def rebuild_read_model(context: dg.OpExecutionContext, config: configs.RebuildConfig, mongo: MongoResource) -> None:
    """Bring every document of a read model in line with its events.

    Reads every event of its streams and every document; inserts, replaces and deletes only what differs. In a shadow it
    writes a new collection and swaps it in. A dry run writes nothing.
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

Choose the partition in the Launchpad: {_PARTITIONS}; a backfill of all partitions rebuilds all of them (in its
box «All» leaves out what is completed, unless the tick at «only failed and missing» is taken away). Compares every
document with its events and writes only what differs; the application may keep writing. One rebuild of a read model
runs at a time. A dry run writes nothing and says what a rebuild would write. Fails when aggregates could not be
rebuilt; all others are rebuilt all the same.""",
)
def rebuild_read_models() -> None:
    """Rebuild the read model of the partition."""
    rebuild_read_model()


@dg.op
def rebuild_slice(context: dg.OpExecutionContext, config: configs.SliceConfig, mongo: MongoResource) -> None:
    """Bring the documents of one slice of a read model in line with their events.

    Reads the events and documents of the slice and writes only what differs; the last slice deletes what nobody wants,
    catches up, and swaps a shadow in.
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
        # Of a slice that did its part nothing is to be told: the last one tells of all.
        _record(context, summary, asset, metadata)
    log_checks_of_rebuild(context, mongo, [read_model.name], summary, config.max_findings)
    raise_unless_ok(summary, {asset: metadata})


@dg.job(
    owners=OWNERS,
    tags=_DATABASE,
    config=partitions.partitioned(rebuild_slice.name, configs.SliceConfig(), AGGREGATE_TYPE_TAG, of=_SLICES),
)
def rebuild_slices() -> None:
    """Rebuild a read model on several machines: launch a backfill of all slices of it.

    A partition is a read model and one of READMODEL_SLICES parts of its aggregates. Each is a run, which a run launcher
    puts on any machine; they share one rebuild, and whoever does the last slice finishes it. Writes only what differs,
    as `rebuild_read_models` does. Launch failed slices again and only those are done. In the box of a backfill «All»
    leaves out what is completed, as long as «Backfill only failed and missing partitions» is ticked there: take the
    tick away to do all of them anew. The tag readmodel/strategy of the
    backfill, in_place or shadow, chooses the strategy. On one machine `rebuild_read_models` does the same with
    processes.
    """
    rebuild_slice()


@dg.op
def verify_read_model(context: dg.OpExecutionContext, config: configs.VerifyConfig, mongo: MongoResource) -> None:
    """Compare documents of a read model with their events, and evaluate its checks.

    Changes no document. Unless read_only it remembers findings in `readmodel_findings`, and with enqueue_repairs it
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
    # Only then: what goes wrong in a second look must not take the result of the first with it.
    young = mongo.verify_fresh(context, [read_model.name], allow_no_events=True, told=summary.warnings)
    log_check(context, fresh(young, asset, config.max_findings))
    raise_unless_ok(summary, {asset: metadata})


@dg.job(
    owners=OWNERS,
    tags=_DATABASE,
    config=partitions.partitioned(verify_read_model.name, configs.VerifyConfig(), AGGREGATE_TYPE_TAG),
    description=f"""Verify a whole read model: after an incident or a release, or to know whether a rebuild is needed.

Choose the partition in the Launchpad: {_PARTITIONS}. Compares documents with their events, at any time and beside a
rebuild; writes none, but remembers findings, and evaluates the checks of the asset. The config chooses a part, a
cheaper tier, or that repairs are queued. Fails when anything differs, with the counts, a table of what was found, and
where the whole report lies. `nightly_verification` launches it.""",
)
def verify_read_models() -> None:
    """Verify the read model of the partition."""
    verify_read_model()


@dg.op
def repair_due_tasks(context: dg.OpExecutionContext, config: configs.RepairConfig, mongo: MongoResource) -> None:
    """Take what is due from the repair queue and bring its read models in line with their events.

    Reads the events of the aggregates that the tasks name, writes only what differs in their documents, and writes into
    the tasks how they ended.
    """
    with mongo.opened(context) as (settings, database):
        queue = RepairQueue(database, settings)
        due = queue.stats().due
        context.log.info(f"Repairing in {where(settings)}; {due:,} tasks are due.")
        now_and_then = NowAndThen(mongo.progress_seconds)

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
        context.log.warning("Not every task named is open: it is completed, a dead letter, in work or not there.")
    metadata = metadata_of_repair(stats, summary)
    if summary.dead_letters:
        context.log.warning(
            f"{summary.parked:,} tasks became dead letters: the check of repair_queue lists them with reasons."
        )
    context.add_output_metadata(metadata)
    context.log_event(dg.AssetObservation(REPAIR_QUEUE, metadata=plain(metadata, numbers_of(stats))))
    for read_model, counts in summary.read_models.items():
        if counts.written:
            # Under names of their own, and as texts: they are no numbers of the whole read model.
            said = plain({f"repair/{name}": number for name, number in counts.as_dict().items()})
            context.log_event(dg.AssetObservation(read_model, metadata={"verb": "repair", **said}))


@dg.job(
    owners=OWNERS,
    tags={
        **_DATABASE,
        # Leases and the sensor try again already.
        "dagster/max_retries": "0",
        # One that hangs must not stop repairs for a day.
        "dagster/max_runtime": "3600",
        # Before every slice of a backfill that waits in Dagster's queue.
        "dagster/priority": "10",
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


def _tell(context: dg.OpExecutionContext, summary: Summary, metadata: Mapping[str, Any]) -> None:
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)


def _record(context: dg.OpExecutionContext, summary: Summary, asset: str, metadata: Mapping[str, Any]) -> None:
    if is_renewed(summary, asset):
        # Findings that it mended are on the page of the run.
        shown = on_pages(metadata, summary, asset, mended=True)
        context.log_event(dg.AssetMaterialization(asset, metadata=shown))
    else:
        observe(context, asset, on_pages(metadata, summary, asset))
