"""What the other rooms need of the driver: its types, to say what is handed over, its errors, and its time-out.

Only `bookkeeping`, `cutover`, `embedded` and this room import the driver itself; they alone talk to MongoDB.
"""

from __future__ import annotations

from pymongo import timeout
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)

__all__ = [
    "BulkWriteError",
    "ClientSession",
    "Collection",
    "ConfigurationError",
    "ConnectionFailure",
    "Database",
    "OperationFailure",
    "PyMongoError",
    "timeout",
]
