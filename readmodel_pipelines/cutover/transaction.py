"""Several reads and writes that count together or not at all; when somebody else writes in between, it begins anew."""

from collections.abc import Callable
from typing import TypeVar

from readmodel_pipelines.mongo.driver import ClientSession, Collection
from readmodel_pipelines.mongo.patience import patiently

_Result = TypeVar("_Result")


def in_transaction(collection: Collection, do: Callable[[ClientSession], _Result]) -> _Result:
    """Do it in a transaction; whatever it is told by the collection is of the moment of its first operation."""
    client = collection.database.client

    def once() -> _Result:
        with client.start_session() as session:
            # Not the client's own, which come from the connection string.
            return session.with_transaction(
                do, collection.read_concern, collection.write_concern, collection.read_preference
            )

    return patiently(once, client)
