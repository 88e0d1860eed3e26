"""Jobs: rebuild one aggregate, rebuild a read model, verify a read model. Thin: the projector does the work.

They record on the assets of the read models, so that an asset's page has its history whoever touched it.
"""

# Without `from __future__ import annotations`: Dagster takes the class of `context`, not its name.
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from readmodel_pipelines.orchestration.assets import FullRebuildConfig, ReportConfig
from readmodel_pipelines.orchestration.checks import FRESH, evaluations, fresh
from readmodel_pipelines.orchestration.metadata import in_words, metadata_of, raise_unless_ok
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
from readmodel_pipelines.orchestration.verification import VerifyConfig, request_of
from readmodel_pipelines.rebuild import Request
from readmodel_pipelines.reconcile.summary import Summary


class AggregateConfig(dg.Config):
    """Which aggregate to rebuild."""

    aggregate_type: ReadModelName = Field(
        description="Read model to mend: "
        + ", ".join(f"{name} means {item.read_model}" for name, item in READ_MODELS.items())
    )
    aggregate_id: str = Field(
        description="Id of the aggregate, a UUID, for example 6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11. For a task made "
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
    """Bring the document of one aggregate in line with its events: insert, replace or delete it."""
    summary = mongo.work(
        context,
        [config.aggregate_type],
        lambda projector: projector.rebuild_one(config.aggregate_id, dry_run=config.dry_run),
    )
    read_model = READ_MODELS[config.aggregate_type].read_model
    metadata = {**metadata_of(summary, read_model), "aggregate_id": config.aggregate_id}
    context.log.info(in_words(summary))
    if config.dry_run:
        context.add_output_metadata(metadata)
    else:
        context.log_event(dg.AssetMaterialization(read_model, metadata=metadata))
    raise_unless_ok(summary, {read_model: metadata})


@dg.op
def rebuild_read_model(context: dg.OpExecutionContext, config: RebuildConfig, mongo: MongoResource) -> None:
    """Bring every document of a read model in line with its events; writes only what differs."""
    read_model = read_model_named_by(context)
    if config.dry_run:
        summary, documents = _dry_run(context, config, mongo, read_model.name), None
    else:
        result = mongo.rebuild(context, [read_model.name], config.request())
        summary, documents = result.summary, result.documents[read_model.read_model]
    metadata = metadata_of(summary, read_model.read_model, documents=documents, max_findings=config.max_findings)
    context.log.info(in_words(summary))
    if config.dry_run:
        context.add_output_metadata(metadata)
    else:
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
    """Bring the documents of one slice of a read model in line; the last slice finishes the rebuild."""
    read_model, part = slice_named_by(context)
    request = Request(
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
    if result.summary.about.get("state") == "done" and not result.summary.about.get("already_done"):
        context.log_event(dg.AssetMaterialization(read_model.read_model, metadata=metadata))
    raise_unless_ok(result.summary, {read_model.read_model: metadata})


@dg.op
def verify_read_model(context: dg.OpExecutionContext, config: VerifyConfig, mongo: MongoResource) -> None:
    """Compare documents of a read model with their events, and evaluate its checks; changes no document."""
    read_model = read_model_named_by(context)
    request = partial(request_of, config, run_id=context.run.run_id, read_models=[read_model.name])
    summary, settings = mongo.verify(context, [read_model.name], request)
    asset = read_model.read_model
    metadata = metadata_of(summary, asset, max_findings=config.max_findings)
    context.log.info(in_words(summary))
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


@dg.job
def rebuild_aggregate() -> None:
    """Mend one aggregate: when somebody reports a chat or a task that looks wrong.

    Reads the events of that aggregate and inserts, replaces or deletes its one document, whatever else goes on.
    A dry run writes nothing. Fails in words when the id is no UUID or unknown, or its events cannot be trusted.
    """
    rebuild_one_aggregate()


@dg.job(config=config_for_each_read_model("rebuild_read_model", RebuildConfig(), AGGREGATE_TYPE_TAG, REBUILD_TAG))
def rebuild_read_models() -> None:
    """Rebuild a whole read model: after a change of its projection, an import of events, or a failed verification.

    The partition names the read model: `chat` is chats_read_model, `task` is tasks_read_model. Compares every document
    with its events and writes only what differs; the application may keep writing. One rebuild of a read model runs at
    a time. A dry run writes nothing and says what a rebuild would write. Fails when aggregates could not be rebuilt;
    all others are rebuilt all the same.
    """
    rebuild_read_model()


@dg.job(config=config_for_each_slice("rebuild_slice", SliceConfig()))
def rebuild_slices() -> None:
    """Rebuild a read model on several machines: launch a backfill of all slices of it.

    A partition is a read model and one of READMODEL_SLICES parts of its aggregates. Each is a run, which a run launcher
    puts on any machine; they share one rebuild, and whoever does the last slice finishes it. Launch failed slices again
    and only those are done. The tag readmodel/strategy of the backfill, in_place or shadow, chooses the strategy. On
    one machine rebuild_read_models does the same with processes.
    """
    rebuild_slice()


@dg.job(config=config_for_each_read_model("verify_read_model", VerifyConfig(), AGGREGATE_TYPE_TAG))
def verify_read_models() -> None:
    """Verify a whole read model: after an incident or a release, or to know whether a rebuild is needed.

    The partition names the read model: `chat` is chats_read_model, `task` is tasks_read_model. Compares documents with
    their events, at any time and beside a rebuild; writes none, but remembers findings, and evaluates the checks of the
    asset. The config chooses a part, a cheaper tier, or that repairs are queued. Fails when anything differs, with the
    counts, a table of what was found, and where the whole report lies. `nightly_verification` launches it.
    """
    verify_read_model()
