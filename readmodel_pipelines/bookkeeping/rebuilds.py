"""The record of rebuilds, `readmodel_rebuilds`: how far each is, so that a killed one goes on where it was.

One document for a rebuild and one for each of its ranges (DATA_CONTRACT.md, «Rebuilds»). A range's cursor says from
where it is still to be done; it is written with every batch. Which state may follow which says `rebuild_state`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne
from pymongo.database import Database

from readmodel_pipelines.bookkeeping.scratch import Owner
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.rebuild_state import MAY_BECOME, UNFINISHED, RebuildState
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.ranges import IdRange

_SHOWN_AT_MOST = 50
_WRITES = ("inserted", "replaced", "deleted", "superseded")


class WrongState(UsageError):
    """The rebuild is in a state in which that cannot be done."""

    code = "wrong_state"


@dataclass(frozen=True, slots=True)
class RebuildRange:
    """One range of a rebuild: what is still to be done of it, and to which slice it belongs."""

    rebuild_id: str
    number: int
    slice: int
    rest: IdRange


@dataclass(frozen=True, slots=True)
class RangeProgress:
    """How far the ranges of a rebuild are: events read, ranges done, and when that was last saved."""

    events: int
    ranges_done: int
    at: datetime


class Rebuilds:
    """Records of rebuilds in a database."""

    def __init__(self, database: Database[Document]) -> None:
        self._rebuilds = database[REBUILDS]

    def begin(self, rebuild_id: str, about: Mapping[str, Any], ranges: Sequence[tuple[int, IdRange]]) -> Document:
        """A new rebuild with these (slice, range)s; gives its document."""
        self._rebuilds.insert_many(
            [
                {
                    "_id": f"{rebuild_id}/{number}",
                    "of": rebuild_id,
                    "number": number,
                    "slice": part,
                    "lower": within.lower,
                    "upper": within.upper,
                    "cursor": within.lower,
                    "done": False,
                    "counts": {},
                    "events": 0,
                    "seconds": 0.0,
                }
                for number, (part, within) in enumerate(ranges)
            ]
        )
        # Last, so that a rebuild has all its ranges as soon as it can be found.
        new = {"kind": "rebuild", "state": RebuildState.BUILDING.value, "runs": 1, "ranges": len(ranges), **about}
        self._rebuilds.update_one(
            {"_id": rebuild_id},
            [
                {"$set": {name: {"$literal": value} for name, value in new.items()}},
                {"$set": {"started_at": "$$NOW", "updated_at": "$$NOW"}},
            ],
            upsert=True,
        )
        return self.get(rebuild_id)

    def get(self, rebuild_id: str) -> Document:
        """The rebuild's document.

        Raises:
            UsageError: there is none with this id.
        """
        found = self._rebuilds.find_one({"_id": rebuild_id, "kind": "rebuild"})
        if found is None:
            raise UsageError(f"There is no rebuild {rebuild_id!r}.", hint="`readmodel rebuilds list` shows them.")
        return found

    def unfinished(self, read_models: Sequence[str] | None) -> list[Document]:
        """The rebuilds of any of these read models (None: of all) that are not at their end, the newest first."""
        where: Document = {"kind": "rebuild", "state": {"$in": list(UNFINISHED)}}
        where |= {} if read_models is None else {"read_models": {"$in": list(read_models)}}
        return list(self._rebuilds.find(where, sort=[("started_at", -1)]))

    def last(self, read_models: Sequence[str], **about: Any) -> Document | None:
        """The newest rebuild of just these read models."""
        where = {"kind": "rebuild", "read_models": list(read_models), **about}
        return self._rebuilds.find_one(where, sort=[("started_at", -1)])

    def last_done(self, collection: str) -> Document | None:
        """The newest rebuild of this live collection, alone or together with others, that is done."""
        where = {"kind": "rebuild", "read_models": collection, "state": RebuildState.DONE.value}
        return self._rebuilds.find_one(where, sort=[("started_at", -1)])

    def listed(self, most: int = _SHOWN_AT_MOST) -> list[Document]:
        """The newest rebuilds."""
        return list(self._rebuilds.find({"kind": "rebuild"}, sort=[("started_at", -1)], limit=most))

    def resumed(self, rebuild: Mapping[str, Any]) -> None:
        """Somebody goes on with it; since it was last worked on it stood still."""
        worked_until = self.progress_of(rebuild).at
        idle = {"$max": [0, {"$divide": [{"$subtract": ["$$NOW", worked_until]}, 1000]}]}
        changed = {
            "runs": {"$add": ["$runs", 1]},
            "idle_seconds": {"$add": [{"$ifNull": ["$idle_seconds", 0.0]}, idle]},
            "updated_at": "$$NOW",
        }
        self._rebuilds.update_one({"_id": rebuild["_id"]}, [{"$set": changed}])

    def progress_of(self, rebuild: Mapping[str, Any]) -> RangeProgress:
        """How far its ranges are."""
        done = {"$sum": {"$cond": ["$done", 1, 0]}}
        of_all = {"_id": None, "events": {"$sum": "$events"}, "done": done, "at": {"$max": "$updated_at"}}
        found = next(self._rebuilds.aggregate([{"$match": {"of": rebuild["_id"]}}, {"$group": of_all}]), None)
        noted: datetime = rebuild["updated_at"]
        if found is None:
            return RangeProgress(0, 0, noted)
        return RangeProgress(found["events"], found["done"], max(noted, found["at"] or noted))

    def to(self, rebuild: Mapping[str, Any], state: RebuildState, **changed: Any) -> Document:
        """Bring it into a state, if it is in one from which that may follow; gives its document.

        Raises:
            WrongState: it is not.
        """
        before = [item.value for item, following in MAY_BECOME.items() if state in following]
        new = {"state": state.value, **changed}
        stamps = {"updated_at": "$$NOW"} | ({} if state in UNFINISHED else {"ended_at": "$$NOW"})
        found = self._rebuilds.find_one_and_update(
            {"_id": rebuild["_id"], "kind": "rebuild", "state": {"$in": before}},
            [{"$set": {**{name: {"$literal": value} for name, value in new.items()}, **stamps}}],
            return_document=ReturnDocument.AFTER,
        )
        if found is not None and "ended_at" in found:
            # They expire together.
            self._rebuilds.update_many({"of": rebuild["_id"]}, {"$set": {"ended_at": found["ended_at"]}})
        if found is None:
            now = self.get(rebuild["_id"])["state"]
            raise WrongState(
                f"Rebuild {rebuild['_id']} is {now} and cannot become {state.value}.",
                hint=f"Only {' or '.join(before)} may. `readmodel rebuilds show {rebuild['_id']}` tells more.",
            )
        return found

    def report(self, rebuild: Mapping[str, Any], part: int, campaign: str) -> None:
        """A slice has come to it, launched by a campaign."""
        self._rebuilds.update_one({"_id": rebuild["_id"]}, {"$addToSet": {"reported": part, "campaigns": campaign}})

    def note(self, rebuild: Mapping[str, Any], **changed: Any) -> None:
        """Write something on it."""
        new = {name: {"$literal": value} for name, value in changed.items()}
        self._rebuilds.update_one({"_id": rebuild["_id"]}, [{"$set": {**new, "updated_at": "$$NOW"}}])

    def keep_copies(self, rebuild: Mapping[str, Any], copies: Mapping[str, str], token: Any) -> None:
        """The copies are this one's from now on, and no older one's any more: they are about to be made."""
        for read_model, copy in copies.items():
            older = {"_id": {"$ne": rebuild["_id"]}, f"copies.{read_model}": copy}
            self._rebuilds.update_many(older, {"$unset": {f"copies.{read_model}": ""}})
        self.note(rebuild, copies=dict(copies), copy_token=token)

    def ranges(
        self, rebuild: Mapping[str, Any], part: int | None = None, *, done: bool | None = None
    ) -> Iterator[Document]:
        """Its ranges in order: of a slice or of all; only those that are done, or only those that are not."""
        where: Document = {"of": rebuild["_id"]}
        where |= {} if part is None else {"slice": part}
        where |= {} if done is None else {"done": done}
        return iter(self._rebuilds.find(where, sort=[("number", 1)]))

    def save(
        self, at: RebuildRange, cursor: str | None, counts: Mapping[str, Mapping[str, int]], events: int, seconds: float
    ) -> None:
        """A batch of a range is done: everything before `cursor`, or all of the range when that is None."""
        more = {
            f"counts.{model}.{name}": number
            for model, numbers in counts.items()
            for name, number in numbers.items()
            if number
        }
        place = {"done": True} if cursor is None else {"cursor": cursor}
        self._rebuilds.update_one(
            {"_id": f"{at.rebuild_id}/{at.number}"},
            {
                "$set": place,
                "$inc": {**more, "events": events, "seconds": seconds},
                "$currentDate": {"updated_at": True},
            },
        )

    def again(self, rebuild: Mapping[str, Any]) -> None:
        """All ranges are to be done once more. In place outcomes are counted anew, and what was written stays."""
        ranges = list(self.ranges(rebuild))
        if rebuild["strategy"] == "in_place":
            for item in ranges:
                item["counts"] = {
                    name: {kind: number for kind, number in numbers.items() if kind in _WRITES}
                    for name, numbers in item["counts"].items()
                }
        self._rebuilds.bulk_write(
            [
                UpdateOne(
                    {"_id": item["_id"]}, {"$set": {"cursor": item["lower"], "done": False, "counts": item["counts"]}}
                )
                for item in ranges
            ]
        )


def owner_of(rebuild: Mapping[str, Any], live: str = "") -> Owner:
    """Whose keys a rebuild's are: those that concern one live collection, or all of them."""
    return Owner(live or rebuild["read_models"][0], rebuild["_id"])


def range_of(document: Mapping[str, Any]) -> RebuildRange:
    """What is still to be done of a range."""
    rest = IdRange(document["cursor"], document["upper"])
    return RebuildRange(document["of"], document["number"], document["slice"], rest)


def counts_of(ranges: Sequence[Mapping[str, Any]], read_model: str) -> Counts:
    """What was counted in these ranges."""
    total = Counts()
    for item in ranges:
        for name, number in item["counts"].get(read_model, {}).items():
            setattr(total, name, getattr(total, name) + number)
    return total


def age_seconds(rebuild: Mapping[str, Any], now: datetime) -> float:
    """How long ago it began, by the server's clock."""
    started_at: datetime = rebuild["started_at"]
    return (now.replace(tzinfo=None) - started_at).total_seconds()
