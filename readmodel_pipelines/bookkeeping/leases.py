"""Leases: who works on a read model (a full rebuild) or an aggregate (a repair) now. One at a time, whoever it is.

A lease is a document of `readmodel_leases` with an expiry by the server's clock (`$$NOW`), a token that grows with
every holder, and a nonce that no two holders share. It is renewed while its holder lives; a dead one's runs out by
itself. What is done under a lease carries its nonce and counts only while the lease does.

One that is given back is free, whatever its expiry says. Nor can an expiry be further off than a lease is long: the
server's clock stood ahead when it was written. Who asks for such a lease brings it to one length from now, which a
living holder outlives by renewing it.
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
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import UpdateOne

from readmodel_pipelines.errors import LeaseLost, ReadModelBusy
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import ClientSession, Database, Document, PyMongoError, duplicates_allowed, later
from readmodel_pipelines.mongo.driver import Collection as MongoCollection
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.wording import moment

OF_A_REBUILD = "rebuild:"
"""What the name of a full rebuild's lease begins with; the read model follows."""
PRESENCE = "worker"
"""The `kind` of what lies beside the leases, and is none: that a worker lives (`presence.py`)."""
_RENEWALS_PER_LIFE = 3
_LONGEST_SECONDS = 10**9
HAS_LENGTH: Document = {
    "$and": [{"$isNumber": "$seconds"}, {"$gte": ["$seconds", 0]}, {"$lte": ["$seconds", _LONGEST_SECONDS]}]
}
"""Whether a lease says how long it is. Earlier versions did not; what is no such number would end the command."""
A_LENGTH_FROM_NOW: Document = {
    "$cond": [HAS_LENGTH, {"$add": ["$$NOW", {"$multiply": ["$seconds", 1000]}]}, "$expires_at"]
}
# Anybody may have written anything: it stops nobody.
_READ: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)


def collection_of_leases(database: Database) -> MongoCollection:
    """Where they lie, as they are read: a time that is none here, or a text that is no UTF-8, ends nothing."""
    return MongoCollection(database, LEASES, codec_options=_READ)


def _number(name: str) -> Document:
    """The expression for a count, 0 where something else stands."""
    return {"$convert": {"input": f"${name}", "to": "long", "onError": 0, "onNull": 0}}


def this_process() -> str:
    """What others are told of a holder that has no name of its own."""
    return f"{socket.gethostname()} process {os.getpid()}"


def is_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more; False of all that nobody here can tell."""
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
    """Hold the lease of every read model, in order of their names, and renew them meanwhile.

    `holder` is who others are told holds it. Who names the same `owner` as the holder takes the lease over at once: the
    second try of a work whose first one died. With `shared`, the name of a work, all who do it hold the leases
    together; whoever ends first leaves them to the others.

    Raises:
        ReadModelBusy: somebody else holds one; says who, since when and until when.
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
                    hint=f"Wait until it is done. If it died, its lease ends by itself at {until}, or at once by "
                    f"`readmodel leases break {name}`.",
                    on=read_model,
                )
        with leases.kept():
            yield leases
    finally:
        if not shared:
            # Without a server the lease runs out by itself, and what went wrong first must be told.
            with suppress(PyMongoError):
                leases.give_back()


def check_held(
    database: Database, nonces: Mapping[str, str], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """For a worker process: raises `LeaseLost` once its parent does not hold these leases any more.

    Asks the server once in a third of their life, and sooner when they end sooner.
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
    """Have what lives for so many seconds renewed by a thread of this name while the block runs."""
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
    """Leases taken together under one nonce; `nonces` has it by the names of those that we got: others know them so.

    `also_renew` is called with every renewal: what runs out with the leases.
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

    def acquire(self, names: Sequence[str]) -> dict[str, Document]:
        """Take those too that are free, or held by the same owner; gives every lease by name, whosever it is now.

        `lost` in a lease counts the holders, one after the other, who never gave it back.
        """
        expired = {"$lte": [{"$ifNull": ["$expires_at", datetime.fromtimestamp(0, UTC)]}, "$$NOW"]}
        given_back = {"$or": [{"$eq": [{"$type": "$nonce"}, "missing"]}, {"$eq": ["$given_back", True]}]}
        free: Any = {"$or": [given_back, expired, {"$eq": ["$owner", {"$literal": self._owner}]}]}
        # A lease that is ours was taken a moment ago, and the reply was lost.
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
        before = self.nonces
        # Ours perhaps, should we be interrupted before we know.
        self.nonces = before | dict.fromkeys(names, self.nonce)
        # Who met another's insert of the same lease did not get it.
        with duplicates_allowed():
            self._collection.bulk_write([UpdateOne({"_id": name}, take, upsert=True) for name in names], ordered=False)
        leases = {lease["_id"]: lease for lease in self._collection.find({"_id": {"$in": list(names)}})}
        ours_now = [name for name, lease in leases.items() if lease.get("nonce") == self.nonce]
        self.nonces = before | dict.fromkeys(ours_now, self.nonce)
        self._ours_until = min(self._ours_until, asked + self._seconds)
        return leases

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew them while the block runs."""
        # The next renewal may come through in time; `check` goes by the last one that did.
        with renewing(self._renew, self._seconds, f"leases {self.nonce}"):
            yield

    def check(self) -> None:
        """Ask whether they are still ours, once their life may be over.

        Raises:
            LeaseLost: one of them is not.
            PyMongoError: no server says it.
        """
        reached(Moment.LEASE_ASKED_FOR, doubt=self._doubt)
        if self._clock() <= self._ours_until:
            return
        if not self._renew():
            raise _lost(self.nonces)

    def confirm(self) -> None:
        """As `check`, but by the server in any case: what was read before, nobody else has changed by then.

        Raises:
            LeaseLost: one of them is not ours.
        """
        if self._collection.count_documents({**self._ours(), "given_back": {"$ne": True}}) < len(self.nonces):
            raise _lost(self.nonces)

    def claim(self, session: ClientSession) -> None:
        """As `confirm`, inside a transaction: that ends before somebody else takes them, or not at all.

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
        """Give them back but keep their documents, for the next token to be greater."""
        self._collection.update_many(self._ours(), [{"$set": {"expires_at": "$$NOW", "given_back": True}}])

    def delete(self) -> None:
        """Give them back and leave nothing behind."""
        self._collection.delete_many(self._ours())

    def abandon(self) -> None:
        """Let others take them at once, as from a holder that died."""
        self._collection.update_many(self._ours(), [{"$set": {"expires_at": "$$NOW"}}])

    def _renew(self) -> bool:
        reached(Moment.LEASE_RENEWED)
        asked = self._clock()
        # One that is given back stays so, even by whoever shares it: a renewal may be on its way meanwhile.
        ours = {**self._ours(), "given_back": {"$ne": True}}
        renewed = self._collection.update_many(ours, [{"$set": {"expires_at": later(self._seconds)}}]).matched_count
        if self._also_renew:
            self._also_renew()
        self._ours_until = asked + self._seconds if renewed == len(self.nonces) else -math.inf
        return renewed == len(self.nonces)

    def _ours(self) -> Document:
        return {"_id": {"$in": list(self.nonces)}, "nonce": self.nonce}


def lost_leases(database: Database, names: Sequence[str]) -> dict[str, int]:
    """How many holders in a row never gave these leases back, the one that holds it now included; 0 is left out."""
    return {
        lease["_id"]: (int(lost) if isinstance(lost := lease.get("lost"), int) else 0) + 1
        for lease in collection_of_leases(database).find({"_id": {"$in": list(names)}})
        if not lease.get("given_back")
    }


def free_leases(database: Database, owner: str) -> int:
    """Let others take at once what a dead owner holds; gives the number of leases. Expiry would do so later."""
    dead = {"owner": owner, "given_back": False}
    return collection_of_leases(database).update_counted(dead, [{"$set": {"expires_at": "$$NOW"}}])


def break_lease(database: Database, name: str) -> bool:
    """Take a lease from its holder, whom somebody knows to be dead; False when nobody holds it.

    A holder that lives after all finds it lost.
    """
    broken = {"nonce": uuid.uuid4().hex, "token": {"$add": [_number("token"), 1]}}
    held = {"_id": name, "given_back": {"$ne": True}}
    change = [{"$set": {**broken, "given_back": True, "expires_at": "$$NOW"}}]
    return collection_of_leases(database).update_counted(held, change) > 0


def _lost(names: Collection[str]) -> LeaseLost:
    # Aggregates under repair may be many.
    told = all(name.startswith(OF_A_REBUILD) for name in names) or len(names) == 1
    what = ", ".join(names) if told else f"one of {len(names)} aggregates"
    return LeaseLost(
        f"The lease on {what} expired or was taken over. Nothing more was written.",
        hint="`readmodel leases list` shows the current holder. Run the command again when that one has ended.",
    )
