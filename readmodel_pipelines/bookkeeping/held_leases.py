"""Leases as others see them: who holds one now, and who left one behind. The doctor and the metrics look here."""

from dataclasses import dataclass
from datetime import datetime

from readmodel_pipelines.bookkeeping.leases import OF_A_REBUILD
from readmodel_pipelines.mongo.driver import Collection, Database
from readmodel_pipelines.mongo.names import LEASES


@dataclass(frozen=True, slots=True)
class TakenLease:
    """A lease that is not given back: of a full rebuild, or, with an empty `on`, `number` of one holder's repairs.

    It is held `until` then (naive, as stored); when that is `over`, somebody ran out of it without having ended.
    """

    on: str
    holder: str
    until: datetime
    number: int = 1
    over: bool = False


def taken_leases(database: Database) -> list[TakenLease]:
    """The leases that are not given back; those of repairs, which may be many, are counted by the server."""
    of_a_rebuild = {"$eq": [{"$indexOfBytes": ["$_id", OF_A_REBUILD]}, 0]}
    group = {
        "_id": {
            "on": {"$cond": [of_a_rebuild, "$_id", ""]},
            "holder": "$holder",
            "over": {"$lte": ["$expires_at", "$$NOW"]},
        },
        "until": {"$min": "$expires_at"},
        "number": {"$sum": 1},
    }
    where = {"given_back": {"$ne": True}, "expires_at": {"$type": "date"}}
    found = Collection(database, LEASES).aggregate(
        [{"$match": where}, {"$group": group}, {"$sort": {"until": 1, "_id": 1}}]
    )
    return [
        TakenLease(
            of["on"].removeprefix(OF_A_REBUILD), str(of.get("holder")), item["until"], item["number"], of["over"]
        )
        for item in found
        for of in [item["_id"]]
    ]
