"""What the jobs do, thin over projector, rebuild, verification and repair worker; and what they tell of it.

They record on the assets of the read models, so that an asset's page has its history whoever touched it.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Mapping
from typing import Any

import dagster as dg

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.events.ids import UUID
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE
from readmodel_pipelines.orchestration.checks import Evaluated, evaluations, fresh
from readmodel_pipelines.orchestration.config import (
    AggregateConfig,
    RebuildConfig,
    RepairConfig,
    SliceConfig,
    VerifyConfig,
)
from readmodel_pipelines.orchestration.metadata import in_words, metadata_of, metadata_of_one, raise_unless_ok
from readmodel_pipelines.orchestration.partitions import READ_MODELS, read_model_named_by, slice_named_by
from readmodel_pipelines.orchestration.queue_metadata import (
    numbers_of,
    numbers_of_repair,
    table_of_parked,
    table_of_taken,
)
from readmodel_pipelines.orchestration.resources import MongoResource, owner_of, where
from readmodel_pipelines.orchestration.tags import campaign_of, strategy_of, tag_run
from readmodel_pipelines.rebuild import RebuildRequest
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.summary import RepairSummary
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.wording import NowAndThen


@dg.op
def rebuild_one_aggregate(context: dg.OpExecutionContext, config: AggregateConfig, mongo: MongoResource) -> None:
    """Bring the document of one aggregate in line with its events: insert, replace or delete it, or leave it as it is.

    Reads the events of that aggregate, and writes at most its document. A dry run writes nothing.
    """
    aggregate_id = config.aggregate_id.strip().lower()
    tag_run(context, [config.aggregate_type], [aggregate_id] if UUID.fullmatch(aggregate_id) else [])
    summary = mongo.work(
        context,
        [config.aggregate_type],
        lambda projector: projector.rebuild_one(config.aggregate_id, dry_run=config.dry_run),
    )
    asset = READ_MODELS[config.aggregate_type].read_model
    metadata = metadata_of_one(summary, asset, aggregate_id)
    _tell(context, summary, metadata)
    if not config.dry_run:
        # Not a materialization: the read model as a whole is not newer for it.
        context.log_event(dg.AssetObservation(asset, metadata=metadata))
    raise_unless_ok(summary, {asset: metadata})


@dg.op
def rebuild_read_model(context: dg.OpExecutionContext, config: RebuildConfig, mongo: MongoResource) -> None:
    """Bring every document of a read model in line with its events.

    Reads every event of its streams and every document; inserts, replaces and deletes only what differs. In a shadow it
    writes a new collection and swaps it in. A dry run writes nothing.
    """
    read_model = read_model_named_by(context)
    asset = read_model.read_model
    documents: Mapping[str, int] = {}
    if config.dry_run:
        summary = mongo.work(
            context,
            [read_model.name],
            lambda projector: projector.rebuild_all(dry_run=True, allow_deletions=config.allow_deletions),
        )
    else:
        summary, documents = mongo.rebuild(context, [read_model.name], config.request())
    metadata = metadata_of(summary, asset, documents=documents.get(asset), max_findings=config.max_findings)
    _tell(context, summary, metadata)
    if not config.dry_run:
        context.log_event(dg.AssetMaterialization(asset, metadata=metadata))
    raise_unless_ok(summary, {asset: metadata})


@dg.op
def rebuild_slice(context: dg.OpExecutionContext, config: SliceConfig, mongo: MongoResource) -> None:
    """Bring the documents of one slice of a read model in line with their events.

    Reads the events and documents of the slice and writes only what differs; the last slice deletes what nobody wants,
    catches up, and swaps a shadow in.
    """
    read_model, part = slice_named_by(context)
    asset = read_model.read_model
    request = RebuildRequest(
        strategy_of(context, config.strategy),
        resume=True,
        allow_deletions=config.allow_deletions,
        slice=part,
        campaign=campaign_of(context),
    )
    summary, _ = mongo.rebuild(context, [read_model.name], request)
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    _tell(context, summary, metadata)
    if summary.rebuild.state is RebuildState.DONE and not summary.rebuild.already_done:
        context.log_event(dg.AssetMaterialization(asset, metadata=metadata))
    raise_unless_ok(summary, {asset: metadata})


@dg.op
def verify_read_model(context: dg.OpExecutionContext, config: VerifyConfig, mongo: MongoResource) -> None:
    """Compare documents of a read model with their events, and evaluate its checks.

    Changes no document. Unless read_only it remembers findings in `readmodel_findings`, and with enqueue_repairs it
    adds tasks to the repair queue.
    """
    read_model = read_model_named_by(context)
    asset = read_model.read_model
    summary, settings = mongo.verify(context, [read_model.name], config)
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    _tell(context, summary, metadata)
    context.log_event(dg.AssetObservation(asset, metadata=metadata))
    _log_checks(context, *evaluations(summary, asset, settings, config.max_findings))
    # Only then: what goes wrong in a second look must not take the result of the first with it.
    young = mongo.verify_fresh(context, [read_model.name])
    _log_checks(context, fresh(young, asset, config.max_findings))
    raise_unless_ok(summary, {asset: metadata})


@dg.op
def repair_due_tasks(context: dg.OpExecutionContext, config: RepairConfig, mongo: MongoResource) -> None:
    """Take what is due from the repair queue and bring its read models in line with their events.

    Reads the events of the aggregates that the tasks name, writes only what differs in their documents, and writes into
    the tasks how they ended.
    """
    with mongo.opened() as (settings, database):
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
    metadata = {**numbers_of(stats), **numbers_of_repair(summary)}
    if summary.first_taken:
        metadata["taken"] = table_of_taken(summary)
    if summary.dead_letters:
        metadata["parked_now"] = table_of_parked(summary)
        context.log.warning(f"{summary.parked:,} tasks were parked: the check of repair_queue lists them with reasons.")
    context.add_output_metadata(metadata)
    context.log_event(dg.AssetObservation(REPAIR_QUEUE, metadata=metadata))
    for read_model, counts in summary.read_models.items():
        if counts.written:
            # Under names of their own: they are no numbers of the whole read model, and its plots have those.
            said = {f"repair/{name}": number for name, number in counts.as_dict().items()}
            context.log_event(dg.AssetObservation(read_model, metadata={"verb": "repair", **said}))


def _tell(context: dg.OpExecutionContext, summary: Summary, metadata: Mapping[str, Any]) -> None:
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)


def _log_checks(context: dg.OpExecutionContext, *said: Evaluated) -> None:
    for evaluated in said:
        # Dagster logs it, and only its annotation forgets to say so.
        context.log_event(dg.AssetCheckEvaluation(**evaluated))  # type: ignore[arg-type]
