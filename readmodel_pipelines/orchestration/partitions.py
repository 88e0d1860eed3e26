"""What a run is about, and how it says so: by its partition, a read model or a slice of one, and by tags.

The partition `chat` means `chats_read_model` and `task` means `tasks_read_model`, whichever streams tasks are made
from: as `--type` on the command line. What READMODEL_PROJECTIONS adds is read when the definitions load, and when it
cannot be used they do not: Dagster shows why. A tag has one value in a run: only a run over one read model, or over
one aggregate, says which.
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
"""`dagster.yaml` lets one run for each value of this tag start; a verification does not carry it and need not wait.

The value says the read model and the database: another code location may rebuild the same read model of another one.
"""

DATABASE_TAG = "readmodel/database"
"""Of every job: which database its code location works on, as settings tell it apart from others."""

STRATEGY_TAG = "readmodel/strategy"
"""How a backfill says the strategy: its runs have the config of their partitions, whatever config it is given."""

_BACKFILL_TAGS = ("dagster/root_backfill_id", "dagster/backfill")
"""Dagster's own: the backfill that another one does failed partitions of again, and that which launched a run."""

Context = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext

READ_MODELS: Mapping[str, Projection] = {item.name: item for item in projections_for(SETTINGS_AT_LOAD)}

if TYPE_CHECKING:
    ReadModelName = str
    ReadModelOrAll = str
else:
    # Dagster makes an enumeration of each, which the Launchpad offers.
    ReadModelName = Literal[tuple(READ_MODELS)]
    ReadModelOrAll = Literal[(*READ_MODELS, ALL)]

SLICES: Mapping[str, tuple[str, Slice]] = {
    f"{name}_{number:02d}_of_{of:02d}": (name, Slice(number, of))
    for of in [SETTINGS_AT_LOAD.slices]
    for name in READ_MODELS
    for number in range(1, of + 1)
}
"""Such as `chat_03_of_16`."""


def partitioned(
    op: str, config: dg.Config, *tags: str, of: Mapping[str, str] | None = None
) -> dg.PartitionedConfig[Any]:
    """A partition for each read model, or for each of `of`, which says whose it is.

    Its runs give `op` this config, for the Launchpad to show, and carry `tags`, which say the read model.
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
    """The config of a run that gives `op` this one."""
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
        lacks = f"This run names no partition, so it is not known which {what} is meant"
        raise failure(f"{lacks}; nothing was done. Launch {launch}.")
    return context.partition_key


def tag_run(context: Context, read_models: Sequence[str], aggregate_ids: Sequence[str] = ()) -> None:
    """Write on the run what it is about: read models by their names in the registry, and aggregates."""
    tags = {}
    if len(read_models) == 1:
        tags[AGGREGATE_TYPE_TAG] = read_models[0]
    if len(aggregate_ids) == 1:
        tags[AGGREGATE_ID_TAG] = aggregate_ids[0]
    if not tags.items() <= context.run.tags.items():
        context.instance.add_run_tags(context.run.run_id, tags)


def campaign_of(context: Context) -> str:
    """The backfill that a slice belongs to, launched again or not; empty for a run by itself."""
    return next((said for tag in _BACKFILL_TAGS if (said := context.run.tags.get(tag))), "")


def strategy_of(context: Context, configured: Strategy) -> Strategy:
    """The strategy that the run's tag says, else the configured one."""
    strategies: Mapping[str, Strategy] = {item: item for item in get_args(Strategy)}
    said = context.run.tags.get(STRATEGY_TAG, configured)
    if said not in strategies:
        raise failure(
            f"The tag {STRATEGY_TAG} of this run is {said!r}, which is no strategy; nothing was done. "
            f"Launch it again with one of {', '.join(strategies)}."
        )
    return strategies[said]
