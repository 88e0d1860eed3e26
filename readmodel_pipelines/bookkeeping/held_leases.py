"""Leases for display: who holds one now, and whose lease expired without a release."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from readmodel_pipelines.bookkeeping.leases import (
    A_LENGTH_FROM_NOW,
    HAS_LENGTH,
    OF_A_REBUILD,
    PRESENCE,
    collection_of_leases,
    is_gone,
)
from readmodel_pipelines.mongo.driver import Database, Document


@dataclass(frozen=True, slots=True)
class TakenLease:
    """A lease that was not released: of a full rebuild or, with an empty `on`, `number` leases of one holder's repairs.

    `until` is its expiry (naive, as stored). If it is `over`, the holder did not release it in time. If it is `too_far`
    in the future, the server's clock was ahead; the next process that asks for the lease shortens it.
    """

    on: str
    holder: str
    until: datetime
    number: int = 1
    over: bool = False
    too_far: bool = False

    def is_at_work(self, gone: Callable[[str], bool] = is_gone) -> bool:
        """Whether its holder may be alive: the lease has not expired, and no process is known to be dead."""
        return not (self.over or self.too_far or gone(self.holder))


_TAKEN: Document = {"given_back": {"$ne": True}, "expires_at": {"$type": "date"}, "kind": {"$ne": PRESENCE}}
_OVER: Document = {"$lte": ["$expires_at", "$$NOW"]}
_TOO_FAR: Document = {"$and": [HAS_LENGTH, {"$gt": ["$expires_at", A_LENGTH_FROM_NOW]}]}


def taken_leases(database: Database) -> list[TakenLease]:
    """The leases that were not released; those of repairs, of which there may be many, are counted by the server."""
    of_a_rebuild = {"$eq": [{"$indexOfBytes": ["$_id", OF_A_REBUILD]}, 0]}
    group = {
        "_id": {"on": {"$cond": [of_a_rebuild, "$_id", ""]}, "holder": "$holder", "over": _OVER, "too_far": _TOO_FAR},
        "until": {"$min": "$expires_at"},
        "number": {"$sum": 1},
    }
    found = collection_of_leases(database).aggregate(
        [{"$match": _TAKEN}, {"$group": group}, {"$sort": {"until": 1, "_id": 1}}]
    )
    return [
        TakenLease(
            on=of["on"].removeprefix(OF_A_REBUILD),
            holder=str(of.get("holder")),
            until=item["until"],
            number=item["number"],
            over=of["over"],
            too_far=of["too_far"],
        )
        for item in found
        for of in [item["_id"]]
    ]


def each_taken(database: Database, most: int) -> list[Document]:
    """The leases that were not released, one by one by name, with `over` and `too_far`; at most `limit`."""
    told = {"holder": 1, "acquired_at": 1, "expires_at": 1, "seconds": 1, "over": _OVER, "too_far": _TOO_FAR}
    pipeline: list[Document] = [{"$match": _TAKEN}, {"$sort": {"_id": 1}}, {"$limit": most}, {"$project": told}]
    return list(collection_of_leases(database).aggregate(pipeline))


def has_living(database: Database, owner: str) -> bool | None:
    """Whether an owner holds an unexpired lease; None if it holds no lease."""
    living = {"$max": {"$not": [{"$or": [_OVER, _TOO_FAR]}]}}
    pipeline: list[Document] = [{"$match": {"owner": owner, **_TAKEN}}, {"$group": {"_id": None, "living": living}}]
    return next((bool(found["living"]) for found in collection_of_leases(database).aggregate(pipeline)), None)


def taken(database: Database, name: str) -> Document | None:
    """The lease with this name, if it was not released."""
    return collection_of_leases(database).find_one({"_id": name, **_TAKEN})
