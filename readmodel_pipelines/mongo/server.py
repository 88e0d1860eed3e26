"""What everybody needs to know of the server: its time, and the codes of its errors. Imports nothing of this project.

Codes: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database
from pymongo.errors import BulkWriteError

UNAUTHORIZED = 13
DENIED: Mapping[int | None, str] = {
    UNAUTHORIZED: "not authorized",
    18: "authentication failed",
    8000: "authentication failed",
}
"""Codes of a server that lets us not in, or not do something, in words."""
DUPLICATE_KEY = 11000
INVALID_NAMESPACE = 73
LOST = frozenset({91, 11600, 11602, 189, 10107})
"""In shutdown, interrupted at shutdown, interrupted by a change of roles, stepped down, no writable primary."""


def server_time(database: Database[dict[str, Any]]) -> datetime:
    """The server's time, aware: what leases, attempts and ages go by."""
    moment: datetime = database.client.admin.command("hello")["localTime"]
    return moment.replace(tzinfo=UTC)


@contextmanager
def duplicates_allowed() -> Iterator[None]:
    """For an unordered batch: what is there already, by a unique key, is no error; whatever else went wrong is."""
    try:
        yield
    except BulkWriteError as error:
        if {item["code"] for item in error.details["writeErrors"]} != {DUPLICATE_KEY}:
            raise
