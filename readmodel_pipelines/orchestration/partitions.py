"""Partitions: one for each read model, by its name in the registry, and the tags that its runs carry.

The partition `chat` means `chats_read_model` and `task` means `tasks_read_model`, whichever streams tasks are made
from: as `--type` on the command line. What READMODEL_PROJECTIONS adds is read when the definitions load, and when it
cannot be used they do not: Dagster shows why.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from readmodel_pipelines.orchestration.load_time import SETTINGS_AT_LOAD
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.rebuild import Slice
from readmodel_pipelines.rebuild_state import Strategy

AGGREGATE_TYPE_TAG = "readmodel/aggregate_type"
REBUILD_TAG = "readmodel/rebuild"
"""`dagster.yaml` lets one run for each value of this tag start; a verification does not carry it and need not wait."""

READ_MODELS: Mapping[str, Projection] = {item.name: item for item in projections_for(SETTINGS_AT_LOAD)}

if TYPE_CHECKING:
    ReadModelName = str
else:
    # Dagster makes an enumeration of it, which the Launchpad offers.
    ReadModelName = Literal[tuple(READ_MODELS)]

_BACKFILL_TAGS = ("dagster/root_backfill_id", "dagster/backfill")
"""Dagster's own: the backfill that another one does failed partitions of again, and that which launched a run."""

STRATEGY_TAG = "readmodel/strategy"
"""How a backfill says the strategy: its runs have the config of their partitions, whatever config it is given."""

_STRATEGIES: Mapping[str, Strategy] = {"in_place": "in_place", "shadow": "shadow"}

SLICES: Mapping[str, tuple[str, Slice]] = {
    f"{name}_{number:02d}_of_{of:02d}": (name, Slice(number, of))
    for of in [SETTINGS_AT_LOAD.slices]
    for name in READ_MODELS
    for number in range(1, of + 1)
}


def config_for_each_read_model(op: str, config: dg.Config, *tags: str) -> dg.PartitionedConfig[Any]:
    """A partition for each read model: its runs give `op` this config, for the Launchpad to show, and carry `tags`."""

    @dg.static_partitioned_config(
        partition_keys=list(READ_MODELS),
        tags_for_partition_key_fn=lambda partition_key: dict.fromkeys(tags, partition_key),
    )
    def each(_partition_key: str) -> Mapping[str, Any]:
        return {"ops": {op: {"config": config.model_dump()}}}

    return each


def config_for_each_slice(op: str, config: dg.Config) -> dg.PartitionedConfig[Any]:
    """A partition for each slice of each read model, such as `chat_03_of_16`."""

    @dg.static_partitioned_config(
        partition_keys=list(SLICES),
        tags_for_partition_key_fn=lambda partition_key: {AGGREGATE_TYPE_TAG: SLICES[partition_key][0]},
    )
    def each(_partition_key: str) -> Mapping[str, Any]:
        return {"ops": {op: {"config": config.model_dump()}}}

    return each


def slice_named_by(context: dg.OpExecutionContext) -> tuple[Projection, Slice]:
    """The read model and the slice of the run's partition."""
    if not context.has_partition_key:
        raise dg.Failure(
            "This run names no partition, so it is not known which slice is meant; nothing was done. "
            "Launch a backfill of all slices of a read model.",
            allow_retries=False,
        )
    name, part = SLICES[context.partition_key]
    return READ_MODELS[name], part


def campaign_of(context: dg.OpExecutionContext) -> str:
    """The backfill that a slice belongs to, launched again or not; empty for a run by itself."""
    return next((said for tag in _BACKFILL_TAGS if (said := context.run.tags.get(tag))), "")


def strategy_of(context: dg.OpExecutionContext, configured: Strategy) -> Strategy:
    """The strategy that the run's tag says, else the configured one."""
    said = context.run.tags.get(STRATEGY_TAG, configured)
    if said not in _STRATEGIES:
        raise dg.Failure(
            f"The tag {STRATEGY_TAG} of this run is {said!r}, which is no strategy; nothing was done. "
            f"Launch it again with one of {', '.join(_STRATEGIES)}.",
            allow_retries=False,
        )
    return _STRATEGIES[said]


def read_model_named_by(context: dg.OpExecutionContext) -> Projection:
    """The read model of the run's partition."""
    if not context.has_partition_key:
        raise dg.Failure(
            f"This run names no partition, so it is not known which read model is meant; nothing was done. "
            f"Launch it again with one of the partitions {', '.join(READ_MODELS)}.",
            allow_retries=False,
        )
    return READ_MODELS[context.partition_key]
