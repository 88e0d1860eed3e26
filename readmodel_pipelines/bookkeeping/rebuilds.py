"""The records of rebuilds, `readmodel_rebuilds`: their progress, so that a killed one can be resumed.

One document for a rebuild and one for each of its ranges (DATA_CONTRACT.md, «Rebuilds»). A range's cursor is the
position from which it continues; it is saved with every batch. `rebuild_state` has the allowed transitions.

A run that takes a rebuild over increments `runs`, and puts its own mark on its ranges. Each change requires both values
as the run knows them, so a frozen run that wakes up changes nothing. A run that takes over reads first, then confirms
its leases, and changes only what it has read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne, WriteConcern

from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange, RebuildRecord, range_of, record_of
from readmodel_pipelines.errors import LeaseLost, UsageError, raised
from readmodel_pipelines.mongo.driver import ODD_RECORD, Collection, Database, Document
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.mongo.patience import repeats
from readmodel_pipelines.rebuild_state import MAY_FOLLOW, UNFINISHED, RebuildState
from readmodel_pipelines.reconcile.outcome import WRITES
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.wording import storable

_SHOWN_AT_MOST = 50
_WRITES = (*WRITES, "superseded")


def _literally(values: Mapping[str, Any]) -> Document:
    """The expressions for these values, whatever their texts contain."""
    told = ((name, storable(value) if isinstance(value, str) else value) for name, value in values.items())
    return {name: {"$literal": value} for name, value in told}


class WrongState(UsageError):
    """The state of the rebuild does not allow this."""


@dataclass(frozen=True, slots=True)
class RangeProgress:
    """The progress of a rebuild's ranges: events read, ranges done, and the time of the last save."""

    events: int
    ranges_done: int
    at: datetime


class Rebuilds:
    """Records of rebuilds in a database."""

    def __init__(self, database: Database) -> None:
        self._rebuilds = Collection(database, REBUILDS)
        # For the field that a failover may lose.
        self._unwaited = self._rebuilds.with_options(write_concern=WriteConcern(w=1))

    def begin(self, rebuild_id: str, about: Mapping[str, Any], ranges: Sequence[tuple[int, IdRange]]) -> RebuildRecord:
        """Record a new rebuild with these (slice, range)s."""
        # With majority, because a failover before the next write could lose them.
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
        # Last, so that a rebuild has all its ranges when it can be found.
        new = {"kind": "rebuild", "state": RebuildState.BUILDING.value, "runs": 1, "ranges": len(ranges), **about}
        stored: Any = self._rebuilds.find_one_and_update(
            {"_id": rebuild_id},
            [{"$set": {**_literally(new), "started_at": "$$NOW", "updated_at": "$$NOW"}}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return record_of(stored)

    def stored(self, rebuild_id: str) -> Document:
        """The rebuild's document as stored, for display.

        Raises:
            UsageError: there is no rebuild with this id.
        """
        found = self._rebuilds.find_one({"_id": storable(rebuild_id), "kind": "rebuild"})
        if found is None:
            raise UsageError(f"There is no rebuild {rebuild_id!r}.", hint="`readmodel rebuilds list` shows them.")
        return found

    def get(self, rebuild_id: str) -> RebuildRecord:
        """The rebuild with this id.

        Raises:
            UsageError: there is none, or its record has another form.
        """
        try:
            return record_of(self.stored(rebuild_id))
        except ODD_RECORD as error:
            raise UsageError(
                f"The record of the rebuild {rebuild_id} has another form ({raised(error)}).",
                hint="Another version or program wrote it. `readmodel rebuilds list` shows it.",
            ) from None

    def listed(self, most: int = _SHOWN_AT_MOST, **where: Any) -> list[Document]:
        """The documents of the newest rebuilds."""
        return list(self._rebuilds.find({"kind": "rebuild", **where}, sort=[("started_at", -1)], limit=most))

    def unfinished(self, read_models: Sequence[str] | None) -> list[RebuildRecord]:
        """The unfinished rebuilds of any of these read models (None: of all), the newest first."""
        of_these = {} if read_models is None else {"read_models": {"$in": list(read_models)}}
        return [record_of(item) for item in self.listed(0, state={"$in": list(UNFINISHED)}, **of_these)]

    def last_done(self, read_models: str | list[str]) -> RebuildRecord | None:
        """The newest finished one: of one live collection, alone or with others, or of exactly these."""
        found = self.listed(1, read_models=read_models, state=RebuildState.DONE.value)
        return record_of(found[0]) if found else None

    def made_with(self, live: str, read_model: str, **where: Any) -> int | None:
        """The schema version of the newest finished rebuild of a live collection, if recorded."""
        for stored in self.listed(1, read_models=live, state=RebuildState.DONE.value, **where):
            versions = stored.get("schema_versions")
            version = versions.get(read_model) if isinstance(versions, Mapping) else None
            return version if type(version) is int else None
        return None

    def taken_over(self, rebuild: RebuildRecord, confirm: Callable[[], None]) -> RebuildRecord:
        """Take over a rebuild to continue or end it, alone; the time since its last progress is subtracted from its
        duration.

        `confirm` raises `LeaseLost` if the required leases are not the caller's.
        """
        while True:
            seen = self.get(rebuild.id)
            # Read first, then confirm: a process that takes over afterwards changes the values read.
            confirm()
            found = self._rebuilds.find_one_and_update(
                {"_id": seen.id, "runs": seen.runs},
                [{"$set": {"runs": seen.runs + 1, **self._stood_still(seen)}}],
                return_document=ReturnDocument.AFTER,
            )
            if found is not None:
                return record_of(found)

    def joined(self, rebuild: RebuildRecord) -> None:
        """Let a slice join it, beside others."""
        self._rebuilds.update_one({"_id": rebuild.id}, [{"$set": self._stood_still(rebuild)}])

    def _stood_still(self, rebuild: RebuildRecord) -> Document:
        worked_until = self.progress_of(rebuild).at
        idle = {"$max": [0, {"$divide": [{"$subtract": ["$$NOW", worked_until]}, 1000]}]}
        return {"idle_seconds": {"$add": [{"$ifNull": ["$idle_seconds", 0.0]}, idle]}, "updated_at": "$$NOW"}

    def withdraw(self, rebuild: RebuildRecord) -> None:
        """Delete a rebuild in which nothing was done."""
        if self._rebuilds.delete_counted({"_id": rebuild.id, "runs": 1}):
            self._rebuilds.delete_many({"of": rebuild.id})

    def progress_of(self, rebuild: RebuildRecord) -> RangeProgress:
        """The progress of its ranges."""
        done = {"$sum": {"$cond": ["$done", 1, 0]}}
        of_all = {"_id": None, "events": {"$sum": "$events"}, "done": done, "at": {"$max": "$updated_at"}}
        found = next(self._rebuilds.aggregate([{"$match": {"of": rebuild.id}}, {"$group": of_all}]), None)
        if found is None:
            return RangeProgress(0, 0, rebuild.updated_at)
        return RangeProgress(found["events"], found["done"], max(rebuild.updated_at, found["at"] or rebuild.updated_at))

    def to(self, rebuild: RebuildRecord, state: RebuildState, **changed: Any) -> RebuildRecord:
        """Change its state, if the current one allows it; returns the new record.

        Raises:
            WrongState: the current state does not allow it.
            LeaseLost: another run took it over.
        """
        before, asked = MAY_FOLLOW[state], repeats()
        stamps = {"updated_at": "$$NOW"} | ({} if state in UNFINISHED else {"ended_at": "$$NOW"})
        found = self._rebuilds.find_one_and_update(
            {"_id": rebuild.id, "kind": "rebuild", "runs": rebuild.runs, "state": {"$in": list(before)}},
            [{"$set": {**_literally({"state": state.value, **changed}), **stamps}}],
            return_document=ReturnDocument.AFTER,
        )
        if found is None and repeats() > asked:
            # It was changed before, and the reply was lost.
            found = self._rebuilds.find_one({"_id": rebuild.id, "runs": rebuild.runs, "state": state.value})
        if found is not None and "ended_at" in found:
            # They expire together.
            self._unwaited.update_many({"of": rebuild.id}, {"$set": {"ended_at": found["ended_at"]}})
        if found is None:
            now = self.get(rebuild.id)
            if now.runs != rebuild.runs:
                raise _taken_over(now)
            raise WrongState(
                f"Rebuild {rebuild.id} is {now.state} and cannot become {state.value}.",
                hint=f"It must be {' or '.join(before)}. `readmodel rebuilds show {rebuild.id}` shows its state.",
            )
        return record_of(found)

    def report(self, rebuild: RebuildRecord, part: int, campaign: str) -> None:
        """Record that a slice of a campaign joined it."""
        self._rebuilds.update_one({"_id": rebuild.id}, {"$addToSet": {"reported": part, "campaigns": campaign}})

    def note(self, rebuild: RebuildRecord, **changed: Any) -> None:
        """Set fields on the record.

        Raises:
            LeaseLost: another run took it over, or it is finished.
        """
        at_work = {"_id": rebuild.id, "runs": rebuild.runs}
        told = [{"$set": {**_literally(changed), "updated_at": "$$NOW"}}]
        if not self._rebuilds.update_one(at_work, told).matched_count:
            raise _taken_over(self.get(rebuild.id))

    def built(self) -> set[str]:
        """The UUIDs of all collections built by unfinished rebuilds, and of the copies that a rollback needs.

        Earlier versions recorded the names of copies.
        """
        unfinished = {"state": {"$in": list(UNFINISHED)}}
        may_go_back = {"state": RebuildState.DONE.value, "copies": {"$gt": {}}}
        found = self._rebuilds.find({"kind": "rebuild", "$or": [unfinished, may_go_back]}, {"shadows": 1, "copies": 1})
        return {
            built for item in found for kind in ("shadows", "copies") for built in item.get(kind, {}).values() if built
        }

    def refuse_way_back(self, read_models: Sequence[str]) -> None:
        """Refuse a rollback of these that is about to start, because a newer rebuild has begun."""
        where = {"kind": "rebuild", "read_models": {"$in": list(read_models)}, "copies": {"$gt": {}}}
        self._rebuilds.update_many({**where, "state": {"$nin": list(UNFINISHED)}}, {"$inc": {"runs": 1}})

    def give_up_copies(self, read_model: str, copies: Sequence[str]) -> None:
        """Record that no rebuild can be rolled back to these copies, which are about to be dropped."""
        of_it = f"copies.{read_model}"
        self._rebuilds.update_many({of_it: {"$in": list(copies)}}, {"$unset": {of_it: ""}})

    def stored_ranges(self, rebuild_id: str, **where: Any) -> Iterator[Document]:
        """The documents of its ranges in order."""
        return iter(self._rebuilds.find({"of": rebuild_id, **where}, sort=[("number", 1)]))

    def ranges(self, rebuild: RebuildRecord, part: int | None = None) -> list[RebuildRange]:
        """Its ranges in order: of a slice or of all."""
        of_slice = {} if part is None else {"slice": part}
        return [range_of(item) for item in self.stored_ranges(rebuild.id, **of_slice)]

    def left(self, rebuild: RebuildRecord, part: int | None = None) -> list[RebuildRange]:
        """Like `ranges`, but only unfinished ones."""
        return [item for item in self.ranges(rebuild, part) if not item.done]

    def claim(
        self, rebuild: RebuildRecord, mark: str, confirm: Callable[[], None], part: int | None = None
    ) -> list[RebuildRange]:
        """Put a mark on its ranges, of a slice or all, so that no other run saves them; returns the ranges.

        A slice does not get ranges of a later pass. `confirm` is that of `taken_over`.
        """
        while True:
            found = [item for item in self.ranges(rebuild, part) if part is None or item.passes == rebuild.passes]
            confirm()
            marked = {"$set": {"by": mark}}
            changes = [UpdateOne({"_id": item.id, "by": item.by}, marked) for item in found if item.by != mark]
            if not changes or self._rebuilds.bulk_write(changes).matched_count == len(changes):
                return [replace(item, by=mark, begun=item.by is not None) for item in found]

    def save(
        self, at: RebuildRange, cursor: str | None, counts: Mapping[str, Mapping[str, int]], events: int, seconds: float
    ) -> None:
        """Save a batch of a range: everything before `cursor` is done, or the whole range if it is None.

        It is counted once, however often the command is repeated.

        Raises:
            LeaseLost: another run works on that range.
        """
        more = {
            f"counts.{model}.{name}": number
            for model, numbers in counts.items()
            for name, number in numbers.items()
            if number
        }
        place = {"done": True} if cursor is None else {"cursor": cursor}
        this, asked = {"_id": at.id, "by": at.by}, repeats()
        saved = self._rebuilds.update_one(
            {**this, **({"done": False} if cursor is None else {"cursor": {"$ne": cursor}})},
            {
                "$set": place,
                "$inc": {**more, "events": events, "seconds": seconds},
                "$currentDate": {"updated_at": True},
            },
        )
        if not saved.matched_count and not (repeats() > asked and self._rebuilds.find_one({**this, **place})):
            raise _taken_over(self.get(at.id.partition("/")[0]))

    def again(self, rebuild: RebuildRecord, mark: str) -> None:
        """Reopen all its ranges with this mark.

        In place the outcomes are counted again, and the counts of writes stay.
        """
        changes = []
        for item in self.ranges(rebuild):
            counts = item.counts
            if not rebuild.in_shadow:
                counts = {
                    name: {kind: number for kind, number in numbers.items() if kind in _WRITES}
                    for name, numbers in counts.items()
                }
            open_again = {"cursor": item.lower, "done": False, "counts": counts, "passes": rebuild.passes + 1}
            changes.append(UpdateOne({"_id": item.id, "by": mark}, {"$set": open_again}))
        self._rebuilds.bulk_write(changes)


def _taken_over(now: RebuildRecord) -> LeaseLost:
    return LeaseLost(
        f"Rebuild {now.id} was taken over by another run, and is {now.state} now. This run wrote nothing more.",
        hint=f"`readmodel rebuilds show {now.id}` shows its progress.",
    )
