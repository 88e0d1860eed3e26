"""Presence: that a worker lives which takes whatever comes into the repair queue, so that nobody need be launched.

A document beside the leases with an expiry by the server's clock, renewed while the worker lives. It holds nothing:
who works on an aggregate has its lease, and a worker whose presence ran out does its work all the same.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from readmodel_pipelines.bookkeeping.leases import PRESENCE, collection_of_leases, renewing, this_process
from readmodel_pipelines.mongo.driver import Database, Document, PyMongoError, later

SECONDS = 30.0


@contextmanager
def present(database: Database, queue: str) -> Iterator[None]:
    """Whoever asks is told that a worker takes what comes into this queue, while the block runs."""
    records, this = collection_of_leases(database), {"_id": f"{PRESENCE}:{uuid.uuid4().hex}"}
    about = {"kind": PRESENCE, "queue": {"$literal": queue}, "holder": {"$literal": this_process()}}

    def renew() -> None:
        records.update_one(this, [{"$set": {**about, "expires_at": later(SECONDS)}}], upsert=True)

    try:
        # Without a server it runs out by itself, and comes back with it.
        with suppress(PyMongoError):
            renew()
        with renewing(renew, SECONDS, "presence"):
            yield
    finally:
        with suppress(PyMongoError):
            records.delete_one(this)


def is_attended(database: Database, queue: str) -> bool:
    """Whether such a worker lives."""
    # No further off than it can be: the server's clock stood ahead.
    lives: list[Document] = [{"$gt": ["$expires_at", "$$NOW"]}, {"$lte": ["$expires_at", later(SECONDS)]}]
    where = {"kind": PRESENCE, "queue": queue, "$expr": {"$and": lives}}
    return collection_of_leases(database).count_documents(where, limit=1) > 0
