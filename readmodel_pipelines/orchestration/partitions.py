"""Partitions and tags: they say which read model, slice or aggregate a run works on.

The partition `chat` means `chats_read_model` and `task` means `tasks_read_model`, as `--type` does on the command line,
whatever streams tasks are made from. The projections of READMODEL_PROJECTIONS are read when the definitions load. If
one is unusable, the definitions do not load, and Dagster shows the reason. A tag has one value per run, so only a run
on one read model or one aggregate carries it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import dagster as dg

from readmodel_pipelines.orchestration import SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.projections.names import ALL
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.rebuild import Slice
from readmodel_pipelines.rebuild_state import Strategy

AGGREGATE_TYPE_TAG = "readmodel/aggregate_type"
AGGREGATE_ID_TAG = "readmodel/aggregate_id"
REBUILD_TAG = "readmodel/rebuild"
"""`dagster.yaml` starts one run for each value of this tag at a time; a verification does not carry it.

The value names the read model and the database, because another code location may rebuild the same read model of
another database.
"""

DATABASE_TAG = "readmodel/database"
"""On every job: the database of its code location, as a fingerprint of the settings."""

STRATEGY_TAG = "readmodel/strategy"
"""On a backfill: its strategy. The runs of a backfill always have the config of their partitions."""

_BACKFILL_TAGS = ("dagster/root_backfill_id", "dagster/backfill")
"""Dagster's own tags: the original backfill of a repeated one, and the backfill that launched a run."""

Context = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext

READ_MODELS: Mapping[str, Projection] = {item.name: item for item in projections_for(SETTINGS_AT_LOAD)}

if TYPE_CHECKING:
    ReadModelName = str
    ReadModelOrAll = str
else:
    # Dagster makes an enumeration of each, so that the Launchpad offers the choices.
    ReadModelName = Literal[tuple(READ_MODELS)]
    ReadModelOrAll = Literal[(*READ_MODELS, ALL)]

SLICES: Mapping[str, tuple[str, Slice]] = {
    f"{name}_{number:02d}_of_{of:02d}": (name, Slice(number, of))
    for of in [SETTINGS_AT_LOAD.slices]
    for name in READ_MODELS
    for number in range(1, of + 1)
}
"""All slices by partition name, for example `chat_03_of_16`."""


def partitioned(
    op: str, config: dg.Config, *tags: str, of: Mapping[str, str] | None = None
) -> dg.PartitionedConfig[Any]:
    """A partition for each read model, or for each key of `of`, which maps partitions to read models.

    Its runs give `op` this config, which the Launchpad shows, and carry the `tags`, whose value is the read model.
    """
    read_models = of or {name: name for name in READ_MODELS}

    @dg.static_partitioned_config(
        partition_keys=list(read_models),
        tags_for_partition_key_fn=lambda partition_key: {
            tag: f"{read_models[partition_key]}@{SETTINGS_AT_LOAD.fingerprint()}"
            if tag == REBUILD_TAG
            else read_models[partition_key]
            for tag in tags
        },
    )
    def each(_partition_key: str) -> Mapping[str, Any]:
        return run_config(op, config)

    return each


def run_config(op: str, config: dg.Config) -> dict[str, Any]:
    """The run config that gives `op` this config."""
    return {"ops": {op: {"config": config.model_dump()}}}


def read_model_named_by(context: dg.OpExecutionContext) -> Projection:
    """The read model of the run's partition."""
    again = f"it again with one of the partitions {', '.join(READ_MODELS)}"
    return READ_MODELS[_partition(context, "read model", again)]


def slice_named_by(context: dg.OpExecutionContext) -> tuple[Projection, Slice]:
    """The read model and the slice of the run's partition."""
    name, part = SLICES[_partition(context, "slice", "a backfill of all slices of a read model")]
    return READ_MODELS[name], part


def _partition(context: dg.OpExecutionContext, what: str, launch: str) -> str:
    if not context.has_partition_key:
        lacks = f"This run has no partition, so it does not say which {what} is meant"
        raise failure(f"{lacks}. Nothing was done. Launch {launch}.")
    return context.partition_key


def tag_run(context: Context, read_models: Sequence[str], aggregate_ids: Sequence[str] = ()) -> None:
    """Tag the run with its subject: read models by their names in the registry, and aggregates."""
    tags = {}
    if len(read_models) == 1:
        tags[AGGREGATE_TYPE_TAG] = read_models[0]
    if len(aggregate_ids) == 1:
        tags[AGGREGATE_ID_TAG] = aggregate_ids[0]
    if not tags.items() <= context.run.tags.items():
        context.instance.add_run_tags(context.run.run_id, tags)


def campaign_of(context: Context) -> str:
    """The backfill of a slice, the original one if it was launched again; empty for a single run."""
    return next((said for tag in _BACKFILL_TAGS if (said := context.run.tags.get(tag))), "")


def strategy_of(context: Context, configured: Strategy) -> Strategy:
    """The strategy in the run's tag, else the configured one."""
    strategies: Mapping[str, Strategy] = {item: item for item in get_args(Strategy)}
    said = context.run.tags.get(STRATEGY_TAG, configured)
    if said not in strategies:
        raise failure(
            f"The tag {STRATEGY_TAG} of this run is {said!r}, which is no strategy. Nothing was done. Launch it again "
            f"with one of {', '.join(strategies)}."
        )
    return strategies[said]
