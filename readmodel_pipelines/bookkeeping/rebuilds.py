"""The record of rebuilds, `readmodel_rebuilds`: how far each is, so that a killed one goes on where it was.

One document for a rebuild and one for each of its ranges (DATA_CONTRACT.md, «Rebuilds»), which become values here
alone: what records of earlier versions lack has a default, and of one of another form `ODD_RECORD` is raised. A range's
cursor says from where it is still to be done; it is written with every batch. Which state may follow which says
`rebuild_state`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateOne, WriteConcern

from readmodel_pipelines.bookkeeping.kept_keys import Owner
from readmodel_pipelines.errors import UsageError, raised
from readmodel_pipelines.mongo.changes import Token
from readmodel_pipelines.mongo.driver import ODD_RECORD, Collection, Database, Document
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild_state import MAY_FOLLOW, UNFINISHED, RebuildState, Strategy
from readmodel_pipelines.reconcile.outcome import WRITES, Counts
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.wording import storable

_SHOWN_AT_MOST = 50
_WRITES = (*WRITES, "superseded")


@dataclass(frozen=True, slots=True)
class RebuildRecord:
    """A rebuild as it was when it was read; `stored` is its document, and `read_models` are live collections."""

    id: str
    state: RebuildState
    strategy: Strategy
    read_models: list[str]
    started_at: datetime
    updated_at: datetime
    stored: Mapping[str, Any]
    ended_at: datetime | None = None
    names: Sequence[str] = ()
    ranges: int = 0
    passes: int = 1
    token: Token | None = None
    live_tokens: Mapping[str, Token] = field(default_factory=dict)
    no_history: str = ""
    idle_seconds: float = 0.0
    shadows: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    copy_token: Token | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: int = 0
    finished: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    mended: Mapping[str, int] = field(default_factory=dict)
    reported: Sequence[int] = ()
    campaigns: Sequence[str] = ()

    @property
    def in_shadow(self) -> bool:
        """Whether it builds collections beside the live ones."""
        return self.strategy == "shadow"

    def built_beside(self, projections: Iterable[Projection]) -> tuple[str, ...]:
        """Those of the read models that it builds beside the live ones."""
        return tuple(item.read_model for item in projections if self.in_shadow)

    @property
    def first_pass(self) -> bool:
        """Whether nothing had to be looked at twice."""
        return self.passes == 1

    @property
    def seconds(self) -> float:
        """How long it took from its beginning to its end; 0 before that."""
        return 0.0 if self.ended_at is None else (self.ended_at - self.started_at).total_seconds()

    def age_seconds(self, now: datetime) -> float:
        """How long ago it began, by the server's clock."""
        return (now.replace(tzinfo=None) - self.started_at).total_seconds()

    def owner(self, live: str = "") -> Owner:
        """Whose its keys are: those that concern one live collection, or all of them."""
        return Owner(live or self.read_models[0], self.id)


@dataclass(frozen=True, slots=True)
class RebuildRange:
    """One range of a rebuild, from `lower` on, by the `_id` of its document: what is to be done, what was counted."""

    id: str
    rest: IdRange
    lower: str | None = None
    done: bool = False
    events: int = 0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def whole(self) -> IdRange:
        """All of it, done or not."""
        return IdRange(self.lower, self.rest.upper)


_KNOWN = {item.name for item in fields(RebuildRecord)}


def record_of(document: Mapping[str, Any]) -> RebuildRecord:
    """The rebuild that a document of it tells of."""
    known = {"names": document["read_models"], **document}
    told = {name: value for name, value in known.items() if name in _KNOWN}
    state = RebuildState(document["state"])
    return RebuildRecord(**{**told, "id": document["_id"], "state": state, "stored": document})


def range_of(document: Mapping[str, Any]) -> RebuildRange:
    """The range that a document of it tells of."""
    told = (document[name] for name in ("lower", "done", "events", "counts"))
    return RebuildRange(document["_id"], IdRange(document["cursor"], document["upper"]), *told)


def counted(ranges: Iterable[RebuildRange], read_model: str) -> Counts:
    """What was counted in these ranges."""
    total = Counts()
    for item in ranges:
        total.add(Counts(**item.counts.get(read_model, {})))
    return total


def _literally(values: Mapping[str, Any]) -> Document:
    """The expressions for these values, whatever is in their texts."""
    told = ((name, storable(value) if isinstance(value, str) else value) for name, value in values.items())
    return {name: {"$literal": value} for name, value in told}


class WrongState(UsageError):
    """The rebuild is in a state in which that cannot be done."""


@dataclass(frozen=True, slots=True)
class RangeProgress:
    """How far the ranges of a rebuild are: events read, ranges done, and when that was last saved."""

    events: int
    ranges_done: int
    at: datetime


class Rebuilds:
    """Records of rebuilds in a database."""

    def __init__(self, database: Database) -> None:
        self._rebuilds = Collection(database, REBUILDS)
        # For what comes before a write that waits for a majority: that one waits for both.
        self._unwaited = self._rebuilds.with_options(write_concern=WriteConcern(w=1))

    def begin(self, rebuild_id: str, about: Mapping[str, Any], ranges: Sequence[tuple[int, IdRange]]) -> RebuildRecord:
        """A new rebuild with these (slice, range)s."""
        self._unwaited.insert_many(
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
        stored: Any = self._rebuilds.find_one_and_update(
            {"_id": rebuild_id},
            [{"$set": {**_literally(new), "started_at": "$$NOW", "updated_at": "$$NOW"}}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return record_of(stored)

    def stored(self, rebuild_id: str) -> Document:
        """The rebuild's document as it lies there, for showing.

        Raises:
            UsageError: there is none with this id.
        """
        found = self._rebuilds.find_one({"_id": storable(rebuild_id), "kind": "rebuild"})
        if found is None:
            raise UsageError(f"There is no rebuild {rebuild_id!r}.", hint="`readmodel rebuilds list` shows them.")
        return found

    def get(self, rebuild_id: str) -> RebuildRecord:
        """The rebuild.

        Raises:
            UsageError: there is none with this id, or its record is not what a rebuild writes.
        """
        try:
            return record_of(self.stored(rebuild_id))
        except ODD_RECORD as error:
            raise UsageError(
                f"The record of the rebuild {rebuild_id} has another form ({raised(error)}).",
                hint="Another version, or somebody else, wrote it; `readmodel rebuilds show` has what is there.",
            ) from None

    def listed(self, most: int = _SHOWN_AT_MOST, **where: Any) -> list[Document]:
        """The documents of the newest rebuilds."""
        return list(self._rebuilds.find({"kind": "rebuild", **where}, sort=[("started_at", -1)], limit=most))

    def unfinished(self, read_models: Sequence[str] | None) -> list[RebuildRecord]:
        """The rebuilds of any of these read models (None: of all) that are not at their end, the newest first."""
        of_these = {} if read_models is None else {"read_models": {"$in": list(read_models)}}
        return [record_of(item) for item in self.listed(0, state={"$in": list(UNFINISHED)}, **of_these)]

    def last_done(self, read_models: str | list[str]) -> RebuildRecord | None:
        """The newest that is done: of one live collection, alone or together with others, or of just these."""
        found = self.listed(1, read_models=read_models, state=RebuildState.DONE.value)
        return record_of(found[0]) if found else None

    def resumed(self, rebuild: RebuildRecord) -> None:
        """Somebody goes on with it; since it was last worked on it stood still."""
        worked_until = self.progress_of(rebuild).at
        idle = {"$max": [0, {"$divide": [{"$subtract": ["$$NOW", worked_until]}, 1000]}]}
        changed = {
            "runs": {"$add": ["$runs", 1]},
            "idle_seconds": {"$add": [{"$ifNull": ["$idle_seconds", 0.0]}, idle]},
            "updated_at": "$$NOW",
        }
        self._rebuilds.update_one({"_id": rebuild.id}, [{"$set": changed}])

    def progress_of(self, rebuild: RebuildRecord) -> RangeProgress:
        """How far its ranges are."""
        done = {"$sum": {"$cond": ["$done", 1, 0]}}
        of_all = {"_id": None, "events": {"$sum": "$events"}, "done": done, "at": {"$max": "$updated_at"}}
        found = next(self._rebuilds.aggregate([{"$match": {"of": rebuild.id}}, {"$group": of_all}]), None)
        if found is None:
            return RangeProgress(0, 0, rebuild.updated_at)
        return RangeProgress(found["events"], found["done"], max(rebuild.updated_at, found["at"] or rebuild.updated_at))

    def to(self, rebuild: RebuildRecord, state: RebuildState, **changed: Any) -> RebuildRecord:
        """Bring it into a state, if it is in one from which that may follow; gives it as it is then.

        Raises:
            WrongState: it is not.
        """
        before = MAY_FOLLOW[state]
        stamps = {"updated_at": "$$NOW"} | ({} if state in UNFINISHED else {"ended_at": "$$NOW"})
        found = self._rebuilds.find_one_and_update(
            {"_id": rebuild.id, "kind": "rebuild", "state": {"$in": list(before)}},
            [{"$set": {**_literally({"state": state.value, **changed}), **stamps}}],
            return_document=ReturnDocument.AFTER,
        )
        if found is not None and "ended_at" in found:
            # They expire together.
            self._unwaited.update_many({"of": rebuild.id}, {"$set": {"ended_at": found["ended_at"]}})
        if found is None:
            raise WrongState(
                f"Rebuild {rebuild.id} is {self.get(rebuild.id).state} and cannot become {state.value}.",
                hint=f"Only {' or '.join(before)} may. `readmodel rebuilds show {rebuild.id}` tells more.",
            )
        return record_of(found)

    def report(self, rebuild: RebuildRecord, part: int, campaign: str) -> None:
        """A slice has come to it, launched by a campaign."""
        self._rebuilds.update_one({"_id": rebuild.id}, {"$addToSet": {"reported": part, "campaigns": campaign}})

    def note(self, rebuild: RebuildRecord, **changed: Any) -> None:
        """Write something on it."""
        self._rebuilds.update_one({"_id": rebuild.id}, [{"$set": {**_literally(changed), "updated_at": "$$NOW"}}])

    def keep_copies(self, rebuild: RebuildRecord, copies: Mapping[str, str], token: Any) -> None:
        """The copies are this one's from now on, and no older one's any more: they are about to be made."""
        for read_model, copy in copies.items():
            older = {"_id": {"$ne": rebuild.id}, f"copies.{read_model}": copy}
            self._rebuilds.update_many(older, {"$unset": {f"copies.{read_model}": ""}})
        self.note(rebuild, copies=dict(copies), copy_token=token)

    def stored_ranges(self, rebuild_id: str, **where: Any) -> Iterator[Document]:
        """The documents of its ranges in order."""
        return iter(self._rebuilds.find({"of": rebuild_id, **where}, sort=[("number", 1)]))

    def ranges(self, rebuild: RebuildRecord, part: int | None = None) -> list[RebuildRange]:
        """Its ranges in order: of a slice or of all."""
        of_slice = {} if part is None else {"slice": part}
        return [range_of(item) for item in self.stored_ranges(rebuild.id, **of_slice)]

    def left(self, rebuild: RebuildRecord, part: int | None = None) -> list[RebuildRange]:
        """As `ranges`, but only those that are not done."""
        return [item for item in self.ranges(rebuild, part) if not item.done]

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
            {"_id": at.id},
            {
                "$set": place,
                "$inc": {**more, "events": events, "seconds": seconds},
                "$currentDate": {"updated_at": True},
            },
        )

    def again(self, rebuild: RebuildRecord) -> None:
        """All ranges are to be done once more. In place outcomes are counted anew, and what was written stays."""
        changes = []
        for item in self.ranges(rebuild):
            counts = item.counts
            if not rebuild.in_shadow:
                counts = {
                    name: {kind: number for kind, number in numbers.items() if kind in _WRITES}
                    for name, numbers in counts.items()
                }
            open_again = {"cursor": item.lower, "done": False, "counts": counts}
            changes.append(UpdateOne({"_id": item.id}, {"$set": open_again}))
        self._rebuilds.bulk_write(changes)
