"""Leases: who works on a read model (a full rebuild) or an aggregate (a repair) now. One at a time, whoever it is.

A lease is a document of `readmodel_leases` with an expiry by the server's clock (`$$NOW`), a token that grows with
every holder, and a nonce that no two holders share. It is renewed while its holder lives; a dead one's runs out by
itself. What is done under a lease carries its nonce and counts only while the lease does.
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

from pymongo import UpdateOne

from readmodel_pipelines.errors import LeaseLost, ReadModelBusy
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import Collection as MongoCollection
from readmodel_pipelines.mongo.driver import Database, Document, PyMongoError, duplicates_allowed, later
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.wording import moment

OF_A_REBUILD = "rebuild:"
"""What the name of a full rebuild's lease begins with; the read model follows."""
_RENEWALS_PER_LIFE = 3


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
                    hint=f"Wait until it is done. If it died, its lease ends by itself at {until}.",
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
        any_of = [{"_id": name, "nonce": nonce} for name, nonce in nonces.items()]
        left = {"left": {"$divide": [{"$subtract": ["$expires_at", "$$NOW"]}, 1000]}}
        lasting = [
            lease["left"]
            for lease in MongoCollection(database, LEASES).find({"$or": any_of}, left)
            if lease["left"] > 0
        ]
        if len(lasting) < len(nonces):
            raise _lost(nonces)
        ours_until = asked + min(seconds / _RENEWALS_PER_LIFE, *lasting)

    return check


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
        self._collection = MongoCollection(database, LEASES)
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
        free: Any = {"$or": [expired, {"$eq": ["$owner", {"$literal": self._owner}]}]}
        given_back = {"$or": [{"$eq": [{"$type": "$nonce"}, "missing"]}, {"$eq": ["$given_back", True]}]}
        ours: dict[str, Any] = {
            "nonce": self.nonce,
            "owner": {"$literal": self._owner},
            "holder": {"$literal": self._holder},
            "token": {"$add": [{"$ifNull": ["$token", 0]}, 1]},
            "lost": {"$cond": [given_back, 0, {"$add": [{"$ifNull": ["$lost", 0]}, 1]}]},
            "given_back": False,
            "acquired_at": "$$NOW",
            "expires_at": later(self._seconds),
        }
        take = [{"$set": {name: {"$cond": [free, value, f"${name}"]} for name, value in ours.items()}}]
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
        stop = threading.Event()
        renewer = threading.Thread(target=self._keep, args=(stop,), name=f"leases {self.nonce}", daemon=True)
        renewer.start()
        try:
            yield
        finally:
            stop.set()
            renewer.join()

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds / _RENEWALS_PER_LIFE):
            # The next renewal may come through in time; `check` goes by the last one that did.
            with suppress(PyMongoError):
                self._renew()

    def check(self) -> None:
        """Ask whether they are still ours; without an answer from the server only for their life.

        Raises:
            LeaseLost: one of them is not.
        """
        reached(Moment.LEASE_ASKED_FOR, doubt=self._doubt)
        if self._clock() <= self._ours_until:
            return
        with suppress(PyMongoError):
            if self._renew():
                return
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
        renewed = self._collection.update_many(
            self._ours(), [{"$set": {"expires_at": later(self._seconds)}}]
        ).matched_count
        if self._also_renew:
            self._also_renew()
        self._ours_until = asked + self._seconds if renewed == len(self.nonces) else -math.inf
        return renewed == len(self.nonces)

    def _ours(self) -> Document:
        return {"_id": {"$in": list(self.nonces)}, "nonce": self.nonce}


def lost_leases(database: Database, names: Sequence[str]) -> dict[str, int]:
    """How many holders in a row never gave these leases back, the one that holds it now included; 0 is left out."""
    return {
        lease["_id"]: int(lease.get("lost") or 0) + 1
        for lease in MongoCollection(database, LEASES).find({"_id": {"$in": list(names)}})
        if not lease.get("given_back")
    }


def free_leases(database: Database, owner: str) -> int:
    """Let others take at once what a dead owner holds; gives the number of leases. Expiry would do so later."""
    dead = {"owner": owner, "given_back": False}
    return MongoCollection(database, LEASES).update_many(dead, [{"$set": {"expires_at": "$$NOW"}}]).matched_count


def _lost(names: Collection[str]) -> LeaseLost:
    # Aggregates under repair may be many.
    told = all(name.startswith(OF_A_REBUILD) for name in names) or len(names) == 1
    what = ", ".join(names) if told else f"one of {len(names)} aggregates"
    return LeaseLost(
        f"The lease on {what} ran out, or somebody else took it over; nothing more was written.",
        hint="See whether somebody rebuilds it now, and run it again afterwards if it is still needed.",
    )
