"""The types, errors and the time of the driver and the server that this project needs.

Only `bookkeeping`, `cutover`, `embedded` and this package import the driver itself; only they use MongoDB.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
"""Errors from reading a record of another program or version: a field is missing, or has another type."""

AS_IT_IS: CodecOptions[Document] = CodecOptions()
"""The driver's codec for this project's own collections, whatever the connection string says."""

UNFIT = frozenset({2, 15, 22, 52, 55, 56, 57, 121, 10334, 17280, 17419})
"""The document cannot be written, because of its nesting, names or size, or because of a validator."""


def ours(database: Database) -> Database:
    """A database that reads from the primary with majority read and write concern, and decodes like this project.

    It overrides a connection string and the application's client. During a verb, it repeats commands after transient
    errors.

    Raises:
        UsageError: the client is restricted to the Stable API, which lacks the UUIDs that make a rebuild safe.
    """
    api = database.client.options.pool_options.server_api
    if api is not None and api.strict:
        raise UsageError(
            "This client uses MongoDB's Stable API strictly. That API has no writes by UUID, no rename and no change "
            "stream, which a rebuild needs. Nothing was done.",
            hint="Use a client without strict=True. ServerApi('1') is enough for a server with requireApiVersion.",
        )
    concerns = ReadPreference.PRIMARY, WriteConcern("majority"), ReadConcern("majority")
    return PatientDatabase(database.client, database.name, AS_IT_IS, *concerns)


def server_time(database: Database) -> datetime:
    """The server's time with a time zone, which decides on leases, attempts and ages."""
    client = database.client
    moment: datetime = patiently(lambda: client.admin.command("hello"), client)["localTime"]
    return moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ServerTime:
    """The server's time, and `time.monotonic()` before it was asked for: it was not earlier than that."""

    at: datetime
    asked: float


def server_time_asked(database: Database) -> ServerTime:
    """The server's time, for conclusions that are drawn from it later."""
    asked = time.monotonic()
    return ServerTime(server_time(database), asked)


def round_trip_seconds(database: Database) -> float:
    """Seconds of a round trip to the server, which the driver measures continuously; 0 until it is known."""
    servers = database.client.topology_description.server_descriptions().values()
    return min((item.round_trip_time for item in servers if item.round_trip_time and item.is_writable), default=0.0)


def later(seconds: float) -> Document:
    """The expression for the server's time after a delay in seconds."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}


def there(database: Database, names: Iterable[str]) -> list[str]:
    """Those of these collections that exist and that the user may access."""
    # Without `authorizedCollections` it requires a right on the whole database.
    these = {"name": {"$in": list(names)}}
    return database.list_collection_names(filter=these, authorizedCollections=True)


def is_there(collection: Collection, where: Mapping[str, Any] | None = None) -> bool:
    """Whether such a document exists; its content is not read, because the driver refuses some values."""
    return collection.find_one(where or {}, {"_id": 0, "readmodel_no_such_field": 1}) is not None


@contextmanager
def duplicates_allowed() -> Iterator[None]:
    """For an unordered batch: duplicates of a unique key are no error; any other error is raised."""
    try:
        yield
    except BulkWriteError as error:
        duplicates = {item["code"] for item in error.details["writeErrors"]} == {DUPLICATE_KEY}
        if not duplicates or error.details["writeConcernErrors"]:
            raise
