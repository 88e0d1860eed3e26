"""Leases: who may do a full rebuild of a read model now. One at a time, whoever starts it.

A lease is a document of `readmodel_leases` with an expiry by the server's clock (`$$NOW`) and a token that grows with
every holder. It is renewed while its holder lives; a dead one's runs out by itself.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import PyMongoError

from readmodel_pipelines.errors import LeaseLost, ReadModelBusy
from readmodel_pipelines.mongo.scan import Document

COLLECTION = "readmodel_leases"
_RENEWALS_PER_LIFE = 3


@contextmanager
def hold_leases(
    database: Database[Document], read_models: Sequence[str], seconds: float, holder: str = "", owner: str = ""
) -> Iterator[Callable[[], None]]:
    """Hold the lease of every read model, in order of their names, and renew them meanwhile.

    `holder` is who others are told holds it. Who names the same `owner` as the holder takes the lease over at once: the
    second try of a work whose first one died.

    Yields a function that raises `LeaseLost` once one of them is not ours any more: ask before every write.

    Raises:
        ReadModelBusy: somebody else holds one; says who, since when and until when.
    """
    with ExitStack() as stack:
        checks = [stack.enter_context(_hold(database, name, seconds, holder, owner)) for name in sorted(read_models)]
        yield lambda: [check() for check in checks].clear()


@contextmanager
def _hold(
    database: Database[Document], read_model: str, seconds: float, holder: str, owner: str
) -> Iterator[Callable[[], None]]:
    lease = _Lease(database, read_model, seconds, holder or f"{socket.gethostname()} process {os.getpid()}", owner)
    lease.acquire()
    stop = threading.Event()
    renewer = threading.Thread(target=lease.keep, args=(stop,), name=f"lease of {read_model}", daemon=True)
    renewer.start()
    try:
        yield lease.check
    finally:
        stop.set()
        renewer.join()
        lease.release()


class _Lease:
    def __init__(self, database: Database[Document], read_model: str, seconds: float, holder: str, owner: str) -> None:
        self._collection = database[COLLECTION]
        self._read_model = read_model
        self._id = f"rebuild:{read_model}"
        self._seconds = seconds
        self._holder = holder
        self._nonce = uuid.uuid4().hex
        self._owner = owner or self._nonce
        self._ours_until = 0.0

    def acquire(self) -> None:
        expired = {"$lte": [{"$ifNull": ["$expires_at", datetime.fromtimestamp(0, UTC)]}, "$$NOW"]}
        free: Any = {"$or": [expired, {"$eq": ["$owner", {"$literal": self._owner}]}]}
        ours: dict[str, Any] = {
            "nonce": self._nonce,
            "owner": {"$literal": self._owner},
            "holder": {"$literal": self._holder},
            "token": {"$add": [{"$ifNull": ["$token", 0]}, 1]},
            "acquired_at": "$$NOW",
            "expires_at": self._expiry(),
        }
        take = {name: {"$cond": [free, value, f"${name}"]} for name, value in ours.items()}
        asked = time.monotonic()
        lease = self._collection.find_one_and_update(
            {"_id": self._id}, [{"$set": take}], upsert=True, return_document=ReturnDocument.AFTER
        )
        if lease is None or lease["nonce"] != self._nonce:
            held = lease or {}
            raise ReadModelBusy(
                f"{self._read_model} is being rebuilt by {held.get('holder')} since {_utc(held.get('acquired_at'))}.",
                hint=f"Wait until it is done. If it died, its lease ends by itself at {_utc(held.get('expires_at'))}.",
            )

        self._ours_until = asked + self._seconds

    def keep(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds / _RENEWALS_PER_LIFE):
            # The next renewal may come through in time; `check` goes by the last one that did.
            with suppress(PyMongoError):
                self._renew()

    def check(self) -> None:
        if time.monotonic() <= self._ours_until:
            return
        with suppress(PyMongoError):
            if self._renew():
                return
        raise LeaseLost(
            f"The lease on {self._read_model} ran out, or somebody else took it over; nothing more was written.",
            hint="See whether somebody rebuilds it now, and run it again afterwards if it is still needed.",
        )

    def release(self) -> None:
        ours = {"_id": self._id, "nonce": self._nonce}
        # Without a server the lease runs out by itself, and what went wrong first must be told.
        with suppress(PyMongoError):
            self._collection.update_one(ours, [{"$set": {"expires_at": "$$NOW"}}])

    def _renew(self) -> bool:
        asked = time.monotonic()
        ours = {"_id": self._id, "nonce": self._nonce}
        renewed = self._collection.update_one(ours, [{"$set": {"expires_at": self._expiry()}}]).matched_count == 1
        self._ours_until = asked + self._seconds if renewed else 0.0
        return renewed

    def _expiry(self) -> dict[str, Any]:
        return {"$add": ["$$NOW", int(self._seconds * 1000)]}


def _utc(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if isinstance(moment, datetime) else "an unknown time"
