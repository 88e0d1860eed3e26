"""Leases: one holder at a time works on a read model (a full rebuild) or an aggregate (a repair).

A lease is a document of `readmodel_leases` with an expiry by the server's clock (`$$NOW`), a token that grows with
every holder, and a nonce unique to its holder. Its holder renews it; a dead holder's lease expires. Each write under a
lease carries its nonce and counts only while the lease is held.

A released lease is free, whatever its expiry. An expiry further off than the lease's length means that the server's
clock was ahead when it was written. The next process that asks for the lease shortens it to one length from now, and a
living holder renews it before.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import UpdateOne

from readmodel_pipelines.errors import LeaseLost, ReadModelBusy
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import (
    DUPLICATE_KEY,
    BulkWriteError,
    ClientSession,
    Database,
    Document,
    PyMongoError,
    ServerTime,
    duplicates_allowed,
    later,
)
from readmodel_pipelines.mongo.driver import Collection as MongoCollection
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.mongo.patience import repeats
from readmodel_pipelines.wording import moment

OF_A_REBUILD = "rebuild:"
"""Prefix of the name of a full rebuild's lease; the read model follows."""
PRESENCE = "worker"
"""The `kind` of documents beside the leases that are none: living workers (`presence.py`)."""
_RENEWALS_PER_LIFE = 3
_LONGEST_SECONDS = 10**9
HAS_LENGTH: Document = {
    "$and": [{"$isNumber": "$seconds"}, {"$gte": ["$seconds", 0]}, {"$lte": ["$seconds", _LONGEST_SECONDS]}]
}
"""Whether a lease states its length. Earlier versions did not store it, and an invalid number would fail the command.
"""
A_LENGTH_FROM_NOW: Document = {
    "$cond": [HAS_LENGTH, {"$add": ["$$NOW", {"$multiply": ["$seconds", 1000]}]}, "$expires_at"]
}
# Any program may have written any value; it must not fail the command.
_READ: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


def collection_of_leases(database: Database) -> MongoCollection:
    """The collection of leases, with a codec that accepts invalid dates and texts."""
    return MongoCollection(database, LEASES, codec_options=_READ)


def _number(name: str) -> Document:
    """The expression for a count; 0 if the value is no number."""
    return {"$convert": {"input": f"${name}", "to": "long", "onError": 0, "onNull": 0}}


def this_process() -> str:
    """The name of a holder that has none of its own."""
    return f"{socket.gethostname()} process {os.getpid()}"


def is_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine that has ended; False if unknown."""
    found = re.fullmatch(rf"{re.escape(socket.gethostname())} process (\d+)", holder)
    if found is None:
        return False
    with suppress(PermissionError, OverflowError):
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return True
    return False


@contextmanager
def hold_leases(
    database: Database, read_models: Sequence[str], seconds: float, holder: str = "", owner: str = "", shared: str = ""
) -> Iterator[Leases]:
    """Take the leases of all read models, in order of their names, and renew them during the block.

    `holder` is the name that others see. A process with the same `owner` as the holder takes the lease over at once: it
    is the second attempt of a dead run. With `shared`, the name of a piece of work, all its processes hold the leases
    together; one that ends leaves them to the others.

    Raises:
        ReadModelBusy: another process holds one; the message has its name, start and expiry.
    """
    leases = Leases(database, seconds, holder, shared or owner, nonce=shared)
    reached(Moment.LEASE_TAKEN, doubt=leases._doubt)
    try:
        for read_model in sorted(read_models):
            name = f"{OF_A_REBUILD}{read_model}"
            held = leases.acquire([name])[name]
            if name not in leases.nonces:
                until = moment(held.get("expires_at"))
                raise ReadModelBusy(
                    f"{read_model} is being rebuilt by {held.get('holder')} since {moment(held.get('acquired_at'))}.",
                    hint=f"Wait until it ends. If its process is dead, the lease expires at {until}; `readmodel leases "
                    f"break {name}` frees it now.",
                    on=read_model,
                )
        with leases.kept():
            yield leases
    finally:
        if not shared:
            # Without a server the lease expires by itself, and the first error must be reported.
            with suppress(PyMongoError):
                leases.give_back()


def check_held(
    database: Database, nonces: Mapping[str, str], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """For a worker process: raise `LeaseLost` when its parent no longer holds these leases.

    Asks the server once in a third of their length, and earlier if they expire earlier.
    """
    ours_until = -math.inf

    def doubt() -> None:
        nonlocal ours_until
        ours_until = -math.inf

    def check() -> None:
        nonlocal ours_until
        reached(Moment.LEASE_ASKED_FOR, doubt=doubt)
        if clock() < ours_until:
            return
        asked = clock()
        any_of = [{"_id": name, "nonce": nonce, "given_back": {"$ne": True}} for name, nonce in nonces.items()]
        left = {"left": {"$divide": [{"$subtract": ["$expires_at", "$$NOW"]}, 1000]}}
        lasting = [
            lease["left"] for lease in collection_of_leases(database).find({"$or": any_of}, left) if lease["left"] > 0
        ]
        if len(lasting) < len(nonces):
            raise _lost(nonces)
        ours_until = asked + min(seconds / _RENEWALS_PER_LIFE, *lasting)

    return check


@contextmanager
def renewing(renew: Callable[[], object], seconds: float, name: str) -> Iterator[None]:
    """Call `renew` in a thread of this name while the block runs, several times within the expiry of `seconds`."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(seconds / _RENEWALS_PER_LIFE):
            with suppress(PyMongoError):
                renew()

    renewer = threading.Thread(target=keep, name=name, daemon=True)
    renewer.start()
    try:
        yield
    finally:
        stop.set()
        renewer.join()


class Leases:
    """Leases taken together under one nonce; `nonces` maps the names of ours to it, as others see them.

    `also_renew` is called with every renewal, for things that expire with the leases.
    """

    def __init__(
        self,
        database: Database,
        seconds: float,
        holder: str = "",
        owner: str = "",
        also_renew: Callable[[], object] | None = None,
        nonce: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collection = collection_of_leases(database)
        self._clock = clock
        self._seconds = seconds
        self._holder = holder or this_process()
        self.nonce = nonce or uuid.uuid4().hex
        self._owner = owner or self.nonce
        self._also_renew = also_renew
        self._ours_until = math.inf
        self.nonces: dict[str, str] = {}

    def acquire(self, names: Sequence[str], now: ServerTime | None = None) -> dict[str, Document]:
        """Take the free ones of these, and those of the same owner; returns every lease by name, whoever holds it.

        `lost` in a lease counts consecutive holders that never released it. With the server's time, those that nobody
        holds are inserted first, at a tenth of the cost.
        """
        leases: dict[str, Document] = {}
        before = self.nonces
        # They may be ours, if an interruption comes before the reply.
        self.nonces = before | dict.fromkeys(names, self.nonce)
        if now is not None and self._clock() - now.asked < self._seconds / _RENEWALS_PER_LIFE:
            leases = self._insert(names, now)
        if rest := [name for name in names if name not in leases]:
            leases |= self._take(rest)
        ours_now = [name for name in names if leases.get(name, {}).get("nonce") == self.nonce]
        self.nonces = before | dict.fromkeys(ours_now, self.nonce)
        return leases

    def _insert(self, names: Sequence[str], now: ServerTime) -> dict[str, Document]:
        """Take those of these that have no document; none if that is uncertain because a reply was lost."""
        ours = {
            "nonce": self.nonce,
            "owner": self._owner,
            "holder": self._holder,
            "token": 1,
            "lost": 0,
            "given_back": False,
            "acquired_at": now.at,
            "expires_at": now.at + timedelta(seconds=self._seconds),
            "seconds": self._seconds,
        }
        leases = {name: {"_id": name, **ours} for name in names}
        asked = repeats()
        try:
            self._collection.insert_many(leases.values(), ordered=False)
        except BulkWriteError as error:
            refused = error.details["writeErrors"]
            if any(item["code"] != DUPLICATE_KEY for item in refused) or error.details["writeConcernErrors"]:
                raise
            for item in refused:
                del leases[names[item["index"]]]
        self._ours_until = min(self._ours_until, now.asked + self._seconds)
        return leases if repeats() == asked else {}

    def _take(self, names: Sequence[str]) -> dict[str, Document]:
        """Take the free ones of these; returns every lease by name."""
        expired = {"$lte": [{"$ifNull": ["$expires_at", datetime.fromtimestamp(0, UTC)]}, "$$NOW"]}
        given_back = {"$or": [{"$eq": [{"$type": "$nonce"}, "missing"]}, {"$eq": ["$given_back", True]}]}
        free: Any = {"$or": [given_back, expired, {"$eq": ["$owner", {"$literal": self._owner}]}]}
        # A lease that is already ours was taken a moment ago, and the reply was lost.
        already = {"$eq": ["$nonce", self.nonce]}
        known = [{"case": given_back, "then": 0}, {"case": already, "then": _number("lost")}]
        ours: dict[str, Any] = {
            "nonce": self.nonce,
            "owner": {"$literal": self._owner},
            "holder": {"$literal": self._holder},
            "token": {"$add": [_number("token"), 1]},
            "lost": {"$switch": {"branches": known, "default": {"$add": [_number("lost"), 1]}}},
            "given_back": False,
            "acquired_at": "$$NOW",
            "expires_at": later(self._seconds),
            "seconds": self._seconds,
        }
        theirs = {name: f"${name}" for name in ours} | {"expires_at": {"$min": ["$expires_at", A_LENGTH_FROM_NOW]}}
        take = [{"$set": {name: {"$cond": [free, value, theirs[name]]} for name, value in ours.items()}}]
        asked = self._clock()
        # A process whose insert met another's insert did not get the lease.
        with duplicates_allowed():
            self._collection.bulk_write([UpdateOne({"_id": name}, take, upsert=True) for name in names], ordered=False)
        leases = {lease["_id"]: lease for lease in self._collection.find({"_id": {"$in": list(names)}})}
        self._ours_until = min(self._ours_until, asked + self._seconds)
        return leases

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew them while the block runs."""
        # A later renewal may come in time; `check` uses the last one that succeeded.
        with renewing(self._renew, self._seconds, f"leases {self.nonce}"):
            yield

    def check(self) -> None:
        """Check, once their expiry has passed, whether they are still ours.

        Raises:
            LeaseLost: one of them is not.
            PyMongoError: no server answered.
        """
        reached(Moment.LEASE_ASKED_FOR, doubt=self._doubt)
        if self._clock() <= self._ours_until:
            return
        if not self._renew():
            raise _lost(self.nonces)

    def confirm(self) -> None:
        """Like `check`, but always asks the server; so nobody else has changed values read before.

        Raises:
            LeaseLost: one of them is not ours.
        """
        if self._collection.count_documents({**self._ours(), "given_back": {"$ne": True}}) < len(self.nonces):
            raise _lost(self.nonces)

    def claim(self, session: ClientSession) -> None:
        """Like `confirm`, inside a transaction: it commits before another process takes them, or not at all.

        Raises:
            LeaseLost: one of them is not ours.
        """
        ours = {**self._ours(), "given_back": {"$ne": True}}
        later_again = [{"$set": {"expires_at": later(self._seconds)}}]
        if self._collection.update_many(ours, later_again, session=session).matched_count < len(self.nonces):
            raise _lost(self.nonces)

    def _doubt(self) -> None:
        self._ours_until = -math.inf

    def give_back(self) -> None:
        """Release them but keep their documents, so that the next token is greater."""
        self._collection.update_many(self._ours(), [{"$set": {"expires_at": "$$NOW", "given_back": True}}])

    def delete(self) -> None:
        """Release them and delete their documents."""
        self._collection.delete_many(self._ours())

    def abandon(self) -> None:
        """Let others take them at once, as from a dead holder."""
        self._collection.update_many(self._ours(), [{"$set": {"expires_at": "$$NOW"}}])

    def _renew(self) -> bool:
        reached(Moment.LEASE_RENEWED)
        asked = self._clock()
        # A released lease stays released, even if it is shared: a renewal may still be running.
        ours = {**self._ours(), "given_back": {"$ne": True}}
        renewed = self._collection.update_many(ours, [{"$set": {"expires_at": later(self._seconds)}}]).matched_count
        if self._also_renew:
            self._also_renew()
        self._ours_until = asked + self._seconds if renewed == len(self.nonces) else -math.inf
        return renewed == len(self.nonces)

    def _ours(self) -> Document:
        return {"_id": {"$in": list(self.nonces)}, "nonce": self.nonce}


def lost_leases(database: Database, least: int) -> dict[str, int]:
    """The leases that at least so many consecutive holders never released, including the current one, with their
    number.
    """
    where = {"_id": {"$type": "string"}, "lost": {"$gte": least - 1}}
    return {
        lease["_id"]: lease["lost"] + 1
        for lease in collection_of_leases(database).find(where)
        if not lease.get("given_back")
        if isinstance(lease["lost"], int)
    }


def free_leases(database: Database, owner: str) -> int:
    """Free a dead owner's leases at once, not at their expiry; returns their number."""
    dead = {"owner": owner, "given_back": False}
    return collection_of_leases(database).update_counted(dead, [{"$set": {"expires_at": "$$NOW"}}])


def break_lease(database: Database, name: str) -> bool:
    """Free the lease of a holder known to be dead; False if nobody holds it.

    A holder that is alive after all gets `LeaseLost`.
    """
    broken = {"nonce": uuid.uuid4().hex, "token": {"$add": [_number("token"), 1]}}
    held = {"_id": name, "given_back": {"$ne": True}}
    change = [{"$set": {**broken, "given_back": True, "expires_at": "$$NOW"}}]
    return collection_of_leases(database).update_counted(held, change) > 0


def _lost(names: Collection[str]) -> LeaseLost:
    # There may be many aggregates under repair.
    told = all(name.startswith(OF_A_REBUILD) for name in names) or len(names) == 1
    what = ", ".join(names) if told else f"one of {len(names)} aggregates"
    return LeaseLost(
        f"The lease on {what} expired or was taken over. Nothing more was written.",
        hint="`readmodel leases list` shows the current holder. Run the command again after that one has ended.",
    )
