"""A run without any event fails, because a mistyped name must not pass for a healthy store, or for orphans.

A run over many aggregates checks this first, before it takes a lease or writes anything.
"""

from collections.abc import Sequence

from readmodel_pipelines.errors import NoEvents
from readmodel_pipelines.mongo.driver import is_there
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.kinds import check_kinds
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold, projections_for

_HINT = (
    "Correct the wrong setting. If there really is no such event, confirm it with --allow-no-events, or "
    "allow_no_events in a job's config."
)


def refuse_without_events(store: Store, *, allowed: bool) -> None:
    """Refuse read models with documents but without any event, unless `allowed`.

    An empty read model is right if the events of other read models exist: nothing has happened yet.

    Raises:
        NoEvents: there is no event that they are made from, and they hold documents; or there is none at all.
        UnsuitableCollection: events or a read model cannot be read.
    """
    if allowed:
        return
    check_kinds(store.database, [store.events.name, *(store.live(item).name for item in store.projections)])
    without = [group for group in by_fold(store.projections) if not _has_events(store, group)]
    if without and any(_has_events(store, group) for group in by_fold(projections_for(store.settings))):
        without = [group for group in without if any(_is_filled(store, item) for item in group)]
    if without:
        raise _nothing_there(store, [item for group in without for item in group])


def every_document_is_an_orphan(store: Store) -> bool:
    """Whether there are documents and no event at all for them: a repair would delete each document."""
    has_events = any(_has_events(store, group) for group in by_fold(store.projections))
    return not has_events and any(_is_filled(store, item) for item in store.projections)


def _has_events(store: Store, made_from_the_same: Sequence[Projection]) -> bool:
    return EventStore(store.events).has_any(made_from_the_same[0].fold)


def _is_filled(store: Store, projection: Projection) -> bool:
    return is_there(store.live(projection))


def _nothing_there(store: Store, projections: Sequence[Projection]) -> NoEvents:
    read_models = [item.read_model for item in projections]
    settings = store.settings
    used = {
        "READMODEL_DATABASE": settings.database,
        "READMODEL_EVENTS_COLLECTION": settings.events_collection,
        "READMODEL_TASK_SOURCE": settings.task_source,
    }
    said = ", ".join(f"{name} is {value}" for name, value in used.items())
    if settings.mongodb_uri is None:
        said += ", READMODEL_MONGODB_URI is not set, so this is the embedded server"
    return NoEvents(
        f"{store.events.full_name} holds {missing_events(projections)}, so {' and '.join(read_models)} cannot be "
        f"compared. No document was changed. {said}.",
        hint=_HINT,
        read_models=read_models,
    )


def missing_events(projections: Sequence[Projection]) -> str:
    """The missing events of read models."""
    return f"no event of aggregate type {' or '.join(sorted({item.fold.stored_as[0] for item in projections}))}"
