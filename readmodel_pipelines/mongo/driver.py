"""What this project needs of the driver and of the server: types, errors, the server's time.

Only `bookkeeping`, `cutover`, `embedded` and this room import the driver itself; they alone talk to MongoDB.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pymongo.database
from bson.codec_options import CodecOptions
from pymongo import timeout as timeout
from pymongo.client_session import ClientSession as ClientSession
from pymongo.errors import BulkWriteError as BulkWriteError
from pymongo.errors import ConfigurationError as ConfigurationError
from pymongo.errors import ConnectionFailure as ConnectionFailure
from pymongo.errors import OperationFailure as OperationFailure
from pymongo.errors import PyMongoError as PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from readmodel_pipelines.events.exact import CODEC as CODEC
from readmodel_pipelines.mongo.collection import AnyCollection as AnyCollection
from readmodel_pipelines.mongo.collection import Collection as Collection
from readmodel_pipelines.projections.projection import Document as Document

Database = pymongo.database.Database[Document]

MAJORITY = WriteConcern("majority")

ODD_RECORD = (LookupError, TypeError, ValueError, AttributeError)
"""What reading a record raises that somebody else wrote, or another version: a field lacks, or is of another type."""

AS_IT_IS: CodecOptions[Document] = CodecOptions()
"""The driver's own, for collections of this project's own: whatever a connection string says."""

UNAUTHORIZED = 13
DENIED: Mapping[int | None, str] = {
    UNAUTHORIZED: "not authorized",
    18: "authentication failed",
    8000: "authentication failed",
}
"""Codes of a server that lets us not in, or not do something, in words."""
DUPLICATE_KEY = 11000
INVALID_NAMESPACE = 73
UNFIT = frozenset({2, 15, 22, 52, 55, 56, 57, 121, 10334, 17280})
"""What is to be written cannot be: its nesting, names, size, or a validator."""


def ours(database: Database) -> Database:
    """A database that reads from the primary, with majority read and write concern, and decodes as this project does.

    Whatever a connection string says, or an application that brings a client of its own.
    """
    return database.with_options(AS_IT_IS, ReadPreference.PRIMARY, WriteConcern("majority"), ReadConcern("majority"))


def server_time(database: Database) -> datetime:
    """The server's time, aware: what leases, attempts and ages go by."""
    moment: datetime = database.client.admin.command("hello")["localTime"]
    return moment.replace(tzinfo=UTC)


def later(seconds: float) -> Document:
    """The expression for the server's time in so many seconds."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}


def there(database: Database, names: Iterable[str]) -> list[str]:
    """Those of these collections that are there, as far as the user may do anything with them."""
    # Without `authorizedCollections` it takes a right on the whole database.
    these = {"name": {"$in": list(names)}}
    return database.list_collection_names(filter=these, authorizedCollections=True)


def is_there(collection: Collection, where: Mapping[str, Any] | None = None) -> bool:
    """Whether there is such a document; nothing of it is read, for the driver refuses some values."""
    return collection.find_one(where or {}, {"_id": 0, "readmodel_no_such_field": 1}) is not None


@contextmanager
def duplicates_allowed() -> Iterator[None]:
    """For an unordered batch: what is there already, by a unique key, is no error; whatever else went wrong is."""
    try:
        yield
    except BulkWriteError as error:
        duplicates = {item["code"] for item in error.details["writeErrors"]} == {DUPLICATE_KEY}
        if not duplicates or error.details["writeConcernErrors"]:
            raise
