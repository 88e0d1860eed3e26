"""The registry: every read model there is. Partitions, jobs, assets and command-line choices follow from it.

A new read model is a file beside this one and a line in `projections_for`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS, TASKS_OF_LEGACY_STREAMS


def projections_for(task_source: Literal["chat", "task"]) -> tuple[Projection, ...]:
    """The projections in force; `task_source` chooses between the two generations of tasks."""
    return (CHATS, TASKS_OF_CHATS if task_source == "chat" else TASKS_OF_LEGACY_STREAMS)


def by_fold(projections: Iterable[Projection]) -> list[tuple[Projection, ...]]:
    """Group projections by the streams they are made from: one pass feeds each group."""
    groups: dict[str, list[Projection]] = {}
    for projection in projections:
        groups.setdefault(projection.fold.aggregate_type, []).append(projection)
    return [tuple(group) for group in groups.values()]


def names(projections: Sequence[Projection]) -> tuple[str, ...]:
    """What people call the projections: the choices of a command line, the partitions of a job."""
    return tuple(projection.name for projection in projections)
