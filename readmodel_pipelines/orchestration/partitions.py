"""Partitions: one for each read model, by its name in the registry, and one for each slice of each.

The partition `chat` means `chats_read_model` and `task` means `tasks_read_model`, whichever streams tasks are made
from: as `--type` on the command line. What READMODEL_PROJECTIONS adds is read when the definitions load, and when it
cannot be used they do not: Dagster shows why.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from readmodel_pipelines.orchestration.failure import failure
from readmodel_pipelines.orchestration.settings_at_load import SETTINGS_AT_LOAD
from readmodel_pipelines.orchestration.tags import AGGREGATE_TYPE_TAG
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.rebuild import Slice

READ_MODELS: Mapping[str, Projection] = {item.name: item for item in projections_for(SETTINGS_AT_LOAD)}

if TYPE_CHECKING:
    ReadModelName = str
else:
    # Dagster makes an enumeration of it, which the Launchpad offers.
    ReadModelName = Literal[tuple(READ_MODELS)]

SLICES: Mapping[str, tuple[str, Slice]] = {
    f"{name}_{number:02d}_of_{of:02d}": (name, Slice(number, of))
    for of in [SETTINGS_AT_LOAD.slices]
    for name in READ_MODELS
    for number in range(1, of + 1)
}
"""Such as `chat_03_of_16`."""


def each_read_model(op: str, config: dg.Config, *tags: str) -> dg.PartitionedConfig[Any]:
    """A partition for each read model: its runs give `op` this config, for the Launchpad to show, and carry `tags`."""
    return _each({name: dict.fromkeys(tags, name) for name in READ_MODELS}, op, config)


def each_slice(op: str, config: dg.Config) -> dg.PartitionedConfig[Any]:
    """A partition for each slice of each read model."""
    return _each({key: {AGGREGATE_TYPE_TAG: name} for key, (name, _) in SLICES.items()}, op, config)


def _each(tags: Mapping[str, Mapping[str, str]], op: str, config: dg.Config) -> dg.PartitionedConfig[Any]:
    @dg.static_partitioned_config(
        partition_keys=list(tags), tags_for_partition_key_fn=lambda partition_key: tags[partition_key]
    )
    def each(_partition_key: str) -> Mapping[str, Any]:
        return run_config(op, config)

    return each


def run_config(op: str, config: dg.Config) -> dict[str, Any]:
    """The config of a run that gives `op` this one."""
    return {"ops": {op: {"config": config.model_dump()}}}


def read_model_named_by(context: dg.OpExecutionContext) -> Projection:
    """The read model of the run's partition."""
    which = (
        f"read model is meant; nothing was done. Launch it again with one of the partitions {', '.join(READ_MODELS)}"
    )
    return READ_MODELS[_partition(context, which)]


def slice_named_by(context: dg.OpExecutionContext) -> tuple[Projection, Slice]:
    """The read model and the slice of the run's partition."""
    which = "slice is meant; nothing was done. Launch a backfill of all slices of a read model"
    name, part = SLICES[_partition(context, which)]
    return READ_MODELS[name], part


def _partition(context: dg.OpExecutionContext, which: str) -> str:
    if not context.has_partition_key:
        raise failure(f"This run names no partition, so it is not known which {which}.")
    return context.partition_key
