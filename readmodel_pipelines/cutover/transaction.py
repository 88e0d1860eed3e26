"""Runs reads and writes in a transaction, and repeats it after a write conflict."""

from collections.abc import Callable
from typing import TypeVar

from readmodel_pipelines.mongo.driver import ClientSession, Collection
from readmodel_pipelines.mongo.patience import patiently

_Result = TypeVar("_Result")


def in_transaction(collection: Collection, do: Callable[[ClientSession], _Result]) -> _Result:
    """Run it in a transaction; all its reads see the data at the time of its first operation."""
    client = collection.database.client

    def once() -> _Result:
        with client.start_session() as session:
            # Not the client's own concerns, which come from the connection string.
            return session.with_transaction(
                do, collection.read_concern, collection.write_concern, collection.read_preference
            )

    return patiently(once, client)
