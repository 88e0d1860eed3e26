"""Checks the id of an aggregate that a person gave; the error says where ids are found."""

from readmodel_pipelines.errors import AggregateNotFound, UsageError
from readmodel_pipelines.events.ids import UUID
from readmodel_pipelines.mongo.store import Store


def checked_id(store: Store, aggregate_id: str) -> str:
    """The id in the form of the events.

    Raises:
        UsageError: it is no UUID.
    """
    lowered = aggregate_id.strip().lower() if isinstance(aggregate_id, str) else ""
    if not UUID.fullmatch(lowered):
        raise UsageError(
            f"{aggregate_id!r} is no aggregate id.",
            hint="An id is a UUID: 8-4-4-4-12 hexadecimal digits with hyphens, such as "
            f"6f1c2f6e-8d0b-4c5e-9a53-0d4d2a7b9c11. It is {_where_ids_are(store)}.",
        )
    return lowered


def not_found(store: Store, aggregate_id: str) -> AggregateNotFound:
    """The error for an aggregate without an event and without a document."""
    return AggregateNotFound(
        f"There is neither an event nor a document for {aggregate_id}.",
        hint=f"Check the id: it is {_where_ids_are(store)}. Check READMODEL_DATABASE and the type: a legacy "
        "task has an id of its own.",
    )


def _where_ids_are(store: Store) -> str:
    places = [f"{item.key} in {store.live(item).name}" for item in store.projections]
    return ", ".join([f"aggregate_id in {store.events.name}", *places])
