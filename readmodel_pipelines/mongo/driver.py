"""What this project needs of the driver and of the server: types, errors, the server's time.

Only `bookkeeping`, `cutover`, `embedded` and this room import the driver itself; they alone talk to MongoDB.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import timeout as timeout
from pymongo.client_session import ClientSession as ClientSession
from pymongo.errors import BulkWriteError as BulkWriteError
from pymongo.errors import ConfigurationError as ConfigurationError
from pymongo.errors import ConnectionFailure as ConnectionFailure
from pymongo.errors import OperationFailure as OperationFailure
from pymongo.errors import PyMongoError as PyMongoError
from pymongo.read_concern import ReadConcern as ReadConcern
from pymongo.read_preferences import ReadPreference as ReadPreference
from pymongo.write_concern import WriteConcern

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.exact import CODEC as CODEC
from readmodel_pipelines.mongo.collection import AnyCollection as AnyCollection
from readmodel_pipelines.mongo.collection import Collection as Collection
from readmodel_pipelines.mongo.database import AnyDatabase, PatientDatabase
from readmodel_pipelines.mongo.failures import DENIED as DENIED
from readmodel_pipelines.mongo.failures import DUPLICATE_KEY as DUPLICATE_KEY
from readmodel_pipelines.mongo.failures import UNAUTHORIZED as UNAUTHORIZED
from readmodel_pipelines.mongo.patience import patiently
from readmodel_pipelines.projections.projection import Document as Document

Database = AnyDatabase

MAJORITY = WriteConcern("majority")

ODD_RECORD = (LookupError, TypeError, ValueError, AttributeError)
"""What reading a record raises that somebody else wrote, or another version: a field lacks, or is of another type."""

AS_IT_IS: CodecOptions[Document] = CodecOptions()
"""The driver's own, for collections of this project's own: whatever a connection string says."""

UNFIT = frozenset({2, 15, 22, 52, 55, 56, 57, 121, 10334, 17280, 17419})
"""What is to be written cannot be: its nesting, names, size, or a validator."""


def ours(database: Database) -> Database:
    """A database that reads from the primary, with majority read and write concern, and decodes as this project does.

    Whatever a connection string says, or an application that brings a client of its own. A verb at work has patience
    with it.

    Raises:
        UsageError: the client speaks the stable API alone, which has not what a rebuild is safe by.
    """
    api = database.client.options.pool_options.server_api
    if api is not None and api.strict:
        raise UsageError(
            "This client speaks MongoDB's Stable API strictly, and that has no way to say by identity what a rebuild "
            "writes to, nor to rename or watch it; nothing was done.",
            hint="Bring a client without strict=True: ServerApi('1') is enough for a server with requireApiVersion.",
        )
    concerns = ReadPreference.PRIMARY, WriteConcern("majority"), ReadConcern("majority")
    return PatientDatabase(database.client, database.name, AS_IT_IS, *concerns)


def server_time(database: Database) -> datetime:
    """The server's time, aware: what leases, attempts and ages go by."""
    client = database.client
    moment: datetime = patiently(lambda: client.admin.command("hello"), client)["localTime"]
    return moment.replace(tzinfo=UTC)


def round_trip_seconds(database: Database) -> float:
    """What the way to the server and back takes, as the driver measures it all the time beside; 0 until it knows."""
    servers = database.client.topology_description.server_descriptions().values()
    return min((item.round_trip_time for item in servers if item.round_trip_time and item.is_writable), default=0.0)


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
