"""Leases as others see them: who holds one now, and who left one behind. The doctor and the metrics look here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from readmodel_pipelines.bookkeeping.leases import OF_A_REBUILD
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import LEASES

_IS_OF_A_REBUILD = {"$eq": [{"$indexOfBytes": ["$_id", OF_A_REBUILD]}, 0]}


@dataclass(frozen=True, slots=True)
class LeasesHeld:
    """Leases that are held now: of full rebuilds by what they are on, and the number of aggregates under repair."""

    of_rebuilds: frozenset[str]
    of_repairs: int


def leases_held(database: Database) -> LeasesHeld:
    """The leases that have not run out; those of repairs, which may be many, are counted by the server."""
    live = {"$expr": {"$gt": ["$expires_at", "$$NOW"]}}
    groups = database[LEASES].aggregate(
        [{"$match": live}, {"$group": {"_id": {"$cond": [_IS_OF_A_REBUILD, "$_id", None]}, "number": {"$sum": 1}}}]
    )
    held = {group["_id"]: int(group["number"]) for group in groups}
    of_repairs = held.pop(None, 0)
    return LeasesHeld(frozenset(name.removeprefix(OF_A_REBUILD) for name in held), of_repairs)


@dataclass(frozen=True, slots=True)
class NotGivenBack:
    """A lease that is not given back: of a full rebuild, or, with an empty `on`, `number` of one holder's repairs."""

    on: str
    holder: str
    until: datetime
    number: int = 1


def not_given_back(database: Database) -> list[NotGivenBack]:
    """The leases that somebody holds, or ran out of without having ended; `until` as stored, naive."""
    group = {
        "_id": {
            "on": {"$cond": [_IS_OF_A_REBUILD, "$_id", ""]},
            "holder": "$holder",
            "over": {"$lte": ["$expires_at", "$$NOW"]},
        },
        "until": {"$min": "$expires_at"},
        "number": {"$sum": 1},
    }
    where = {"given_back": {"$ne": True}, "expires_at": {"$type": "date"}}
    found = database[LEASES].aggregate([{"$match": where}, {"$group": group}, {"$sort": {"until": 1, "_id": 1}}])
    return [
        NotGivenBack(
            item["_id"]["on"].removeprefix(OF_A_REBUILD), str(item["_id"].get("holder")), item["until"], item["number"]
        )
        for item in found
    ]
