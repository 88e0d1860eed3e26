"""Presence: records that a worker is alive and takes all tasks of the repair queue, so no run needs to be launched.

It is a document beside the leases with an expiry by the server's clock, renewed while the worker lives. It locks
nothing: work on an aggregate needs its lease, and a worker whose presence expired continues.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from readmodel_pipelines.bookkeeping.leases import PRESENCE, collection_of_leases, renewing, this_process
from readmodel_pipelines.mongo.driver import Database, Document, PyMongoError, later

SECONDS = 30.0


@contextmanager
def present(database: Database, queue: str) -> Iterator[None]:
    """Record the presence of a worker of this queue while the block runs."""
    records, this = collection_of_leases(database), {"_id": f"{PRESENCE}:{uuid.uuid4().hex}"}
    about = {"kind": PRESENCE, "queue": {"$literal": queue}, "holder": {"$literal": this_process()}}

    def renew() -> None:
        records.update_one(this, [{"$set": {**about, "expires_at": later(SECONDS)}}], upsert=True)

    try:
        # Without a server it expires, and is renewed when the server is back.
        with suppress(PyMongoError):
            renew()
        with renewing(renew, SECONDS, "presence"):
            yield
    finally:
        with suppress(PyMongoError):
            records.delete_one(this)


def is_attended(database: Database, queue: str) -> bool:
    """Whether a worker of the queue is alive."""
    # An expiry further off than the length means that the server's clock was ahead.
    lives: list[Document] = [{"$gt": ["$expires_at", "$$NOW"]}, {"$lte": ["$expires_at", later(SECONDS)]}]
    where = {"kind": PRESENCE, "queue": queue, "$expr": {"$and": lives}}
    return collection_of_leases(database).count_documents(where, limit=1) > 0
