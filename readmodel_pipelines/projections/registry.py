"""The registry: every read model there is. Partitions, jobs, assets, checks and command-line choices follow from it.

The built-in ones are files beside this one. Others are files of the application's own, which the setting `projections`
names (docs/extending.md): they are loaded and checked once in a process, and every process loads them by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.extension import check_extension, load_extension
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.task import TASKS_OF_CHATS, TASKS_OF_LEGACY_STREAMS

if TYPE_CHECKING:
    from readmodel_pipelines.settings import Settings, TaskSource


def built_in(task_source: TaskSource) -> tuple[Projection, ...]:
    """The projections of this package; `task_source` chooses between the two generations of tasks."""
    return (CHATS, TASKS_OF_CHATS if task_source == "chat" else TASKS_OF_LEGACY_STREAMS)


def projections_for(settings: Settings) -> tuple[Projection, ...]:
    """The projections in force: the built-in ones, then those that the settings name, in their order.

    Raises:
        UsageError: one that the settings name cannot be loaded, is not whole, or clashes with another one.
    """
    built = built_in(settings.task_source)
    if not settings.projections:
        return built
    return (*built, *_extensions(settings.projections, settings.task_source, settings.named_collections))


def choose_projections(settings: Settings, read_models: Sequence[str]) -> tuple[Projection, ...]:
    """The projections with these names, in the registry's order; all of them when none is named.

    Raises:
        UsageError: there is no such read model.
    """
    known = projections_for(settings)
    unknown = set(read_models) - set(names(known))
    if unknown:
        raise UsageError(
            f"There is no read model {', '.join(sorted(unknown))!r}.", hint=f"Take one of: {', '.join(names(known))}."
        )
    return tuple(item for item in known if not read_models or item.name in read_models)


# The same settings give the same projections: they are compared by identity.
@lru_cache(maxsize=64)
def _extensions(
    sources: tuple[str, ...], task_source: TaskSource, collections: tuple[str, ...]
) -> tuple[Projection, ...]:
    added: list[Projection] = []
    for source in sources:
        for projection in load_extension(source):
            check_extension(source, projection, (*built_in(task_source), *added), collections)
            added.append(projection)
    return tuple(added)


def by_fold(projections: Iterable[Projection]) -> list[tuple[Projection, ...]]:
    """Group projections by the streams they are made from: one pass feeds each group."""
    groups: dict[str, list[Projection]] = {}
    for projection in projections:
        groups.setdefault(projection.fold.aggregate_type, []).append(projection)
    return [tuple(group) for group in groups.values()]


def names(projections: Sequence[Projection]) -> tuple[str, ...]:
    """What people call the projections: the choices of a command line, the partitions of a job."""
    return tuple(projection.name for projection in projections)
