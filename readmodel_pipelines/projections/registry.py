"""The registry of all read models. Partitions, jobs, assets, checks and command-line choices come from it.

The built-in ones are files beside this one. Others are the application's own files, named by the setting `projections`
(docs/extending.md). Every process loads and checks them once.
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
    """The projections in force: the built-in ones, then those of the settings, in their order.

    Raises:
        UsageError: one of the settings cannot be loaded, is incomplete, or conflicts with another one.
    """
    built = built_in(settings.task_source)
    if not settings.projections:
        return built
    return (*built, *_extensions(settings.projections, settings.task_source, settings.named_collections))


def choose_projections(settings: Settings, read_models: Sequence[str]) -> tuple[Projection, ...]:
    """The projections with these names, in the registry's order; without names, all of them.

    Raises:
        UsageError: there is no such read model.
    """
    known = projections_for(settings)
    unknown = set(read_models) - set(names(known))
    if unknown:
        raise UsageError(
            f"There is no read model {', '.join(sorted(unknown))!r}.", hint=f"Give one of: {', '.join(names(known))}."
        )
    return tuple(item for item in known if not read_models or item.name in read_models)


# The same settings give the same objects, because projections are compared by identity.
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
    """The names of the projections: the choices of the command line, and the partitions of jobs."""
    return tuple(projection.name for projection in projections)
