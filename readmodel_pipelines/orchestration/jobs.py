"""Jobs: rebuild one aggregate, rebuild a read model, verify a read model. Thin: the projector does the work.

They record on the assets of the read models, so that an asset's page has its history whoever touched it.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from readmodel_pipelines.events.ids import UUID
from readmodel_pipelines.orchestration.assets import FullRebuildConfig, ReportConfig
from readmodel_pipelines.orchestration.checks import FRESH, evaluations, fresh
from readmodel_pipelines.orchestration.config import Config
from readmodel_pipelines.orchestration.load_time import OWNERS
from readmodel_pipelines.orchestration.metadata import in_words, metadata_of, metadata_of_one, raise_unless_ok
from readmodel_pipelines.orchestration.partitions import (
    AGGREGATE_TYPE_TAG,
    READ_MODELS,
    REBUILD_TAG,
    STRATEGY_TAG,
    ReadModelName,
    campaign_of,
    config_for_each_read_model,
    config_for_each_slice,
    read_model_named_by,
    slice_named_by,
    strategy_of,
)
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.tags import tag_run
from readmodel_pipelines.orchestration.verification import VerifyConfig, request_of
from readmodel_pipelines.rebuild import RebuildRequest
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import Summary

_PARTITIONS = ", ".join(f"`{name}` is {item.read_model}" for name, item in READ_MODELS.items())


class AggregateConfig(Config):
    """Which aggregate to rebuild."""

    aggregate_type: ReadModelName = Field(
        description="Read model to mend: "
        + ", ".join(f"{name} means {item.read_model}" for name, item in READ_MODELS.items())
    )
    aggregate_id: str = Field(
        description="Id of the aggregate, a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11: `aggregate_id` of "
        "its events, `chat_id` or `task_id` of its document, and in the table of findings of a check. For a task made "
        "from a chat it is the chat's id."
    )
    dry_run: bool = Field(default=False, description="Write nothing; say what would be written.")


class RebuildConfig(FullRebuildConfig):
    """A rebuild of every aggregate, or a dry run of it."""

    dry_run: bool = Field(
        default=False, description="Write nothing; count what would be inserted, replaced and deleted."
    )


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
    read_model = READ_MODELS[config.aggregate_type].read_model
    metadata = metadata_of_one(summary, read_model, aggregate_id)
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)
    if not config.dry_run:
        # Not a materialization: the read model as a whole is not newer for it.
        context.log_event(dg.AssetObservation(read_model, metadata=metadata))
    raise_unless_ok(summary, {read_model: metadata})


@dg.op
def rebuild_read_model(context: dg.OpExecutionContext, config: RebuildConfig, mongo: MongoResource) -> None:
    """Bring every document of a read model in line with its events.

    Reads every event of its streams and every document; inserts, replaces and deletes only what differs. In a shadow it
    writes a new collection and swaps it in. A dry run writes nothing.
    """
    read_model = read_model_named_by(context)
    if config.dry_run:
        summary, documents = _dry_run(context, config, mongo, read_model.name), None
    else:
        result = mongo.rebuild(context, [read_model.name], config.request())
        summary, documents = result.summary, result.documents[read_model.read_model]
    metadata = metadata_of(summary, read_model.read_model, documents=documents, max_findings=config.max_findings)
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)
    if not config.dry_run:
        context.log_event(dg.AssetMaterialization(read_model.read_model, metadata=metadata))
    raise_unless_ok(summary, {read_model.read_model: metadata})


def _dry_run(context: dg.OpExecutionContext, config: RebuildConfig, mongo: MongoResource, name: str) -> Summary:
    return mongo.work(
        context,
        [name],
        lambda projector: projector.rebuild_all(dry_run=True, allow_deletions=config.allow_deletions),
    )


class SliceConfig(ReportConfig):
    """A slice of a full rebuild."""

    strategy: Literal["in_place", "shadow"] = Field(
        default="in_place",
        description="in_place or shadow, the same for all slices. A shadow is swapped in once, with the last one. "
        f"A backfill says it by the tag {STRATEGY_TAG}, which goes before this.",
    )
    allow_deletions: bool = Field(
        default=False, description="Delete unwanted documents however many they are; the last slice deletes."
    )


@dg.op
def rebuild_slice(context: dg.OpExecutionContext, config: SliceConfig, mongo: MongoResource) -> None:
    """Bring the documents of one slice of a read model in line with their events.

    Reads the events and documents of the slice and writes only what differs; the last slice deletes what nobody wants,
    catches up, and swaps a shadow in.
    """
    read_model, part = slice_named_by(context)
    request = RebuildRequest(
        strategy_of(context, config.strategy),
        resume=True,
        allow_deletions=config.allow_deletions,
        slice=part,
        campaign=campaign_of(context),
    )
    result = mongo.rebuild(context, [read_model.name], request)
    metadata = metadata_of(result.summary, read_model.read_model, max_findings=config.max_findings)
    context.log.info(in_words(result.summary))
    context.add_output_metadata(metadata)
    if result.summary.rebuild.state is RebuildState.DONE and not result.summary.rebuild.already_done:
        context.log_event(dg.AssetMaterialization(read_model.read_model, metadata=metadata))
    raise_unless_ok(result.summary, {read_model.read_model: metadata})


@dg.op
def verify_read_model(context: dg.OpExecutionContext, config: VerifyConfig, mongo: MongoResource) -> None:
    """Compare documents of a read model with their events, and evaluate its checks.

    Changes no document. Unless read_only it remembers findings in `readmodel_findings`, and with enqueue_repairs it
    adds tasks to the repair queue.
    """
    read_model = read_model_named_by(context)
    request = partial(request_of, config, run_id=context.run.run_id, read_models=[read_model.name])
    summary, settings = mongo.verify(context, [read_model.name], request)
    asset = read_model.read_model
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    context.log.info(in_words(summary))
    context.add_output_metadata(metadata)
    context.log_event(dg.AssetObservation(asset, metadata=metadata))
    _log_checks(context, asset, evaluations(summary, asset, settings, config.max_findings))
    # Only then: what goes wrong in a second look must not take the result of the first with it.
    young = mongo.verify_fresh(context, [read_model.name])
    _log_checks(context, asset, {FRESH: fresh(young, asset, config.max_findings)})
    raise_unless_ok(summary, {asset: metadata})


def _log_checks(context: dg.OpExecutionContext, asset: str, said: Mapping[str, Mapping[str, Any]]) -> None:
    for check, result in said.items():
        evaluation = dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), check_name=check, **result)
        # Dagster logs it, and only its annotation forgets to say so.
        context.log_event(evaluation)  # type: ignore[arg-type]


@dg.job(
    owners=OWNERS,
    # What the Launchpad is filled with: only the id is left to be typed.
    config={
        "ops": {
            rebuild_one_aggregate.name: {
                "config": {"aggregate_type": next(iter(READ_MODELS)), "aggregate_id": "", "dry_run": False}
            }
        }
    },
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
    config=config_for_each_read_model("rebuild_read_model", RebuildConfig(), AGGREGATE_TYPE_TAG, REBUILD_TAG),
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


@dg.job(owners=OWNERS, config=config_for_each_slice("rebuild_slice", SliceConfig()))
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
    config=config_for_each_read_model("verify_read_model", VerifyConfig(), AGGREGATE_TYPE_TAG),
    description=f"""Verify a whole read model: after an incident or a release, or to know whether a rebuild is needed.

Choose the partition in the Launchpad: {_PARTITIONS}. Compares documents with their events, at any time and beside a
rebuild; writes none, but remembers findings, and evaluates the checks of the asset. The config chooses a part, a
cheaper tier, or that repairs are queued. Fails when anything differs, with the counts, a table of what was found, and
where the whole report lies. `nightly_verification` launches it.""",
)
def verify_read_models() -> None:
    """Verify the read model of the partition."""
    verify_read_model()
