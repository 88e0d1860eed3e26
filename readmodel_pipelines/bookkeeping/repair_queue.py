"""The repair queue: the application's collection of failed read-model updates, as producers write it.

DATA_CONTRACT.md, «Repair queue», has the producers' fields and those that are added here. A task is *open* while it is
pending or in work (`processing`). It is *due* when it is pending and its next attempt is not in the future, or in work
under a lease that ran out. Whoever takes tasks holds the lease of their aggregate; the lease's nonce (`lease_token`)
stands in them, and nothing is completed or failed but under it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pymongo import UpdateMany, UpdateOne

from readmodel_pipelines.bookkeeping.queue_stats import QueueStats, Status, stats_of
from readmodel_pipelines.bookkeeping.repair_task import (
    FIELDS,
    NO_MORE,
    OPEN,
    OURS,
    TASK_TYPE,
    UNKNOWN_AGGREGATE_TYPE,
    UNKNOWN_TASK_TYPE,
    abandoned_until,
    attempt_of,
    history_with,
    ids_of,
    new_task,
    pending_until,
    under,
)
from readmodel_pipelines.errors import RepairQueueFull, UsageError
from readmodel_pipelines.events.ids import UUID, is_utf8
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.mongo.driver import CODEC, Database, Document, later, ours, server_time
from readmodel_pipelines.mongo.driver import Collection as MongoCollection
from readmodel_pipelines.mongo.scan import Query
from readmodel_pipelines.projections.registry import by_fold, projections_for
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.wording import storable

_SCANNED_PER_AGGREGATE = 10
_BLANKS = r"[ \t\n\r\f\v]*"


@dataclass(slots=True)
class Due:
    """What is due, the oldest first: aggregate ids by stream type, and tasks that name no aggregate, by reason."""

    aggregates: dict[str, list[str]] = field(default_factory=dict)
    poison: dict[str, list[Document]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.aggregates or self.poison)


class RepairQueue:
    """The operations on the queue. A *stream* here is a type of stream and its id: what one lease covers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = ours(database)
        self._tasks = MongoCollection(self._database, settings.repair_queue_collection, codec_options=CODEC)
        self._limit = settings.repair_queue_limit
        groups = by_fold(projections_for(settings))
        # People and producers name a read model; every one made from the same stream is repaired with it.
        self.read_models = {group[0].fold.aggregate_type: tuple(item.name for item in group) for group in groups}
        self._spellings = {
            stream: re.compile(f"^{_BLANKS}({'|'.join(spellings)}){_BLANKS}$", re.IGNORECASE)
            for stream, spellings in _spellings(self.read_models).items()
        }

    def add(self, aggregate_id: str, aggregate_type: str, error: str = "") -> bool:
        """Queue a repair, in the producers' form; False when a pending task of the aggregate takes it in.

        A task in work never does: its repair may have read the events already.

        Raises:
            UsageError: the id is no UUID, or no read model has that name.
            RepairQueueFull: there are too many open tasks.
        """
        stream = self.stream_of(aggregate_id, aggregate_type)
        pending = self._pending(stream, aggregate_id)
        latest = {"$set": {"error": storable(error)}}
        if self._tasks.update_one(pending, latest).matched_count:
            return False
        if self._tasks.count_documents(OPEN, limit=self._limit) >= self._limit:
            raise RepairQueueFull(
                f"The repair queue holds {self._limit:,} open tasks; the repair of {aggregate_id} was not queued.",
                hint="See that repairs run (`readmodel repair-queue stats`), or raise READMODEL_REPAIR_QUEUE_LIMIT.",
            )
        new = {**latest, "$setOnInsert": new_task(aggregate_type)}
        return self._tasks.update_one(pending, new, upsert=True).upserted_id is not None

    def add_many(self, ids: Sequence[str], aggregate_type: str, error: str) -> tuple[int, int]:
        """Queue the repairs of these aggregates; gives how many are new and how many the queue has no room for.

        An aggregate with a pending task keeps that one as it is, and needs no room.

        Raises:
            UsageError: an id is no UUID, or no read model has that name.
        """
        pending, _ = self.known(ids, aggregate_type)
        new = [aggregate_id for aggregate_id in dict.fromkeys(ids) if aggregate_id not in pending]
        room = max(0, self._limit - self._tasks.count_documents(OPEN, limit=self._limit))
        writes = []
        for aggregate_id in new[:room]:
            pending_one = self._pending(self.stream_of(aggregate_id, aggregate_type), aggregate_id)
            task = {**new_task(aggregate_type), "error": storable(error)}
            writes.append(UpdateOne(pending_one, {"$setOnInsert": task}, upsert=True))
        added = self._tasks.bulk_write(writes, ordered=False).upserted_count if writes else 0
        return added, len(new) - len(writes)

    def known(self, ids: Sequence[str], aggregate_type: str) -> tuple[Collection[str], Collection[str]]:
        """Which of these aggregates have a pending task, and which a dead letter as their newest task instead.

        Raises:
            UsageError: an id is no UUID, or no read model has that name.
        """
        streams = {self.stream_of(aggregate_id, aggregate_type) for aggregate_id in ids}
        pending, dead = set(), set()
        for stream in streams:
            waits = {"$max": {"$eq": ["$status", "pending"]}}
            newest = {"$max": {"created_at": "$created_at", "status": "$status"}}
            of_each: Document = {"$group": {"_id": "$aggregate_id", "waits": waits, "newest": newest}}
            for group in self._tasks.aggregate([{"$match": self._of(stream, ids)}, of_each]):
                # The filter finds arrays that hold an id, too.
                if not isinstance(group["_id"], str):
                    continue
                if group["waits"]:
                    pending.add(group["_id"])
                elif group["newest"].get("status") == "failed":
                    dead.add(group["_id"])
        return pending, dead

    def stream_of(self, aggregate_id: str, aggregate_type: str) -> str:
        """The type of the stream that a repair of this aggregate reads.

        Raises:
            UsageError: the id is no UUID, or no read model has that name.
        """
        stream = self._stream_of(aggregate_type)
        if stream is None:
            known = ", ".join(name for names in self.read_models.values() for name in names)
            raise UsageError(f"There is no read model {aggregate_type!r} to repair.", hint=f"Name one of: {known}.")
        if not isinstance(aggregate_id, str) or not UUID.fullmatch(aggregate_id):
            raise UsageError(f"{aggregate_id!r} is no aggregate id.", hint="It is a UUID in lower case with hyphens.")
        return stream

    def due(self, limit: int, without: Collection[str] = (), task_ids: Sequence[str] | None = None) -> Due:
        """What is due of at most `limit` aggregates, those in `without` left out.

        With `task_ids` what is open of these tasks, whether due or not.
        """
        due = Due()
        now = self.now()
        chosen: Document = {"aggregate_id": {"$nin": list(without)}} if without else {}
        if task_ids is not None:
            wanted = [Query({**OPEN, **chosen, "_id": {"$in": ids_of(task_ids)}}, FIELDS)]
        else:
            wanted = self.due_queries(now, chosen)
        found: set[tuple[str, str]] = set()
        for query in wanted:
            # Several tasks of one aggregate are common; thousands must not be read to find the next one.
            most = limit * _SCANNED_PER_AGGREGATE
            for task in self._tasks.find(query.where, query.fields, sort=query.sort or None, limit=most):
                stream, poison = self._sorted_out(task)
                if isinstance(task["_id"], str) and not is_utf8(task["_id"]):
                    # No filter can name it.
                    continue
                if poison:
                    due.poison.setdefault(poison, []).append(task)
                elif (stream, task["aggregate_id"]) not in found:
                    found.add((stream, task["aggregate_id"]))
                    due.aggregates.setdefault(stream, []).append(task["aggregate_id"])
                if len(found) >= limit:
                    return due
        return due

    @staticmethod
    def due_queries(now: datetime, chosen: Mapping[str, Any] | None = None) -> list[Query]:
        """What `due` asks for: tasks that wait no longer, then those whose worker died."""
        in_order = (("next_attempt_at", 1), ("created_at", 1))
        return [
            Query({**pending_until(now), **(chosen or {})}, FIELDS, in_order),
            Query({**abandoned_until(now), **(chosen or {})}, FIELDS),
        ]

    def claim(
        self, stream: str, ids: Sequence[str], token: str, holder: str, seconds: float, task_ids: Sequence[str] = ()
    ) -> int:
        """Claim all due tasks of these aggregates, whose leases the caller holds; gives the number of tasks.

        With `task_ids` these too, although they are not due.
        """
        # The lease tells that nobody works on these, whatever else a task in work says.
        takable: list[Document] = [pending_until(self.now()), {"status": "processing"}]
        if task_ids:
            takable.append({"status": "pending", "_id": {"$in": ids_of(task_ids)}})
        lost = {"at": "$$NOW", "reason": "lease_lost", "claimed_by": "$claimed_by"}
        taken = {
            "status": "processing",
            "claimed_by": {"$literal": holder},
            "lease_token": token,
            "lease_until": later(seconds),
            "last_retry_at": "$$NOW",
            "attempts": {"$cond": [{"$eq": ["$status", "processing"]}, history_with(lost), "$attempts"]},
        }
        return self._tasks.update_many({**self._of(stream, ids), "$or": takable}, [{"$set": taken}]).modified_count

    def renew(self, ids: Sequence[str], token: str, seconds: float) -> None:
        """Tell others that these tasks are still worked on."""
        self._tasks.update_many(under(token, ids), [{"$set": {"lease_until": later(seconds)}}])

    def complete(self, ids: Sequence[str], token: str) -> int:
        """The aggregates are repaired; gives the number of tasks, those taken over by somebody else left out."""
        done = {"$set": {"status": "completed"}, "$currentDate": {"completed_at": True}}
        forget = {"$unset": dict.fromkeys((*OURS, "next_attempt_at", "reason"), "")}
        return self._tasks.update_many(under(token, ids), {**done, **forget}).modified_count

    def fail(self, failures: Sequence[Failure], token: str) -> Failed:
        """One more attempt failed: tasks with attempts left wait for the next, the others are parked."""
        # Producers write the count, whatever is in it.
        spent = {"$max": [0, {"$convert": {"input": "$retry_count", "to": "int", "onError": 0, "onNull": 0}}]}
        ids = [failure.aggregate_id for failure in failures]
        most = {
            group["_id"]: group["most"]
            for group in self._tasks.aggregate(
                [{"$match": under(token, ids)}, {"$group": {"_id": "$aggregate_id", "most": {"$max": spent}}}]
            )
        }
        again: list[UpdateMany] = []
        park: list[UpdateMany] = []
        for failure in failures:
            this = under(token, [failure.aggregate_id])
            attempt = attempt_of(failure.reason, failure.detail)
            failed = {
                "retry_count": {"$add": [spent, 1]},
                "attempts": history_with(attempt),
                "reason": attempt["reason"],
            }
            waits = [int(delay * 1000) for delay in failure.delays]
            last = {**this, "$expr": {"$gte": [spent, len(waits)]}}
            park.append(UpdateMany(last, [{"$set": {**failed, "status": "failed"}}, {"$unset": NO_MORE}]))
            if waits:
                next_attempt = {"$add": ["$$NOW", {"$arrayElemAt": [waits, spent]}]}
                waiting = {**failed, "status": "pending", "next_attempt_at": next_attempt}
                again.append(UpdateMany(this, [{"$set": waiting}, {"$unset": list(OURS)}]))
        return Failed(
            parked=self._tasks.bulk_write(park, ordered=False).modified_count if park else 0,
            retried=self._tasks.bulk_write(again, ordered=False).modified_count if again else 0,
            parked_ids={item.aggregate_id for item in failures if most.get(item.aggregate_id, -1) >= len(item.delays)},
        )

    def give_back(self, ids: Sequence[str], token: str, seconds: float = 0) -> int:
        """Let others take these tasks, in so many seconds, as if they had not been taken."""
        waiting = {"status": "pending", "next_attempt_at": later(seconds)}
        given_back: list[Document] = [{"$set": waiting}, {"$unset": list(OURS)}]
        return self._tasks.update_many(under(token, ids), given_back).modified_count

    def park(self, tasks: Sequence[Document], reason: str, detail: str, holder: str) -> int:
        """Park tasks that name no aggregate, so that nobody can lease it; gives the number."""
        these = {**OPEN, "_id": {"$in": [task["_id"] for task in tasks]}}
        attempt = {**attempt_of(reason, detail), "claimed_by": {"$literal": holder}}
        history = {"attempts": history_with(attempt), "last_retry_at": "$$NOW"}
        parked = {"status": "failed", "reason": attempt["reason"], **history}
        return self._tasks.update_many(these, [{"$set": parked}, {"$unset": NO_MORE}]).modified_count

    def free(self, holder: str) -> int:
        """Let others take at once what a dead holder took; its lease would run out later."""
        dead = {"status": "processing", "claimed_by": holder}
        return self._tasks.update_many(dead, [{"$set": {"lease_until": "$$NOW"}}]).modified_count

    def requeue(self, *, task_id: str | None = None, reason: str | None = None, all_failed: bool = False) -> int:
        """Bring tasks back with all their attempts: one by its id unless it is in work, or dead letters.

        Raises:
            UsageError: not exactly one of the three is given, or the task is not there, or in work.
        """
        if [task_id is not None, reason is not None, all_failed].count(True) != 1:
            raise UsageError("Say which tasks to requeue.", hint="Give one of --id, --reason and --all-failed.")
        where: Document = {"status": "failed"}
        if reason is not None:
            where["reason"] = storable(reason)
        if task_id is not None:
            where = {"_id": {"$in": ids_of([task_id])}, "status": {"$ne": "processing"}}
        back = {"$set": {"status": "pending", "retry_count": 0}}
        forget = {"$unset": dict.fromkeys(("next_attempt_at", "completed_at", "reason", *OURS), "")}
        requeued = self._tasks.update_many(where, {**back, **forget}).matched_count
        if task_id is not None and not requeued:
            in_work = self._tasks.find_one({"_id": where["_id"]}, {"_id": 1})
            state = "is in work" if in_work else "is not there"
            raise UsageError(f"The task {task_id} {state}.", hint="`readmodel repair-queue list` shows the tasks.")
        return requeued

    def purge(self, status: Literal["completed", "failed"], older_than_days: float = 0) -> int:
        """Delete completed tasks, or dead letters, whose end lies so long ago; gives the number."""
        ended = "completed_at" if status == "completed" else "last_retry_at"
        where: Document = {"status": status}
        if older_than_days:
            where[ended] = {"$lt": self.now() - timedelta(days=older_than_days)}
        return self._tasks.delete_many(where).deleted_count

    def tasks(self, status: Status | None = None, reason: str | None = None, limit: int = 50) -> Iterator[Document]:
        """Tasks as they are stored, the oldest first; dates as `DatetimeMS`."""
        where = {name: storable(text) for name, text in (("status", status), ("reason", reason)) if text is not None}
        return iter(self._tasks.find(where, sort=[("created_at", 1)], limit=limit))

    def stats(self) -> QueueStats:
        """The queue in numbers."""
        now = self.now()
        return stats_of(self._tasks, now, [query.where for query in self.due_queries(now)])

    def now(self) -> datetime:
        """The server's time: what leases and attempts go by."""
        return server_time(self._database)

    def _stream_of(self, aggregate_type: Any) -> str | None:
        if not isinstance(aggregate_type, str):
            return None
        return next((name for name, spelling in self._spellings.items() if spelling.match(aggregate_type)), None)

    def _sorted_out(self, task: Document) -> tuple[str, str | None]:
        """The type of the task's stream, or why it names none."""
        stream = self._stream_of(task.get("aggregate_type"))
        if task.get("task_type") != TASK_TYPE:
            return "", UNKNOWN_TASK_TYPE
        if stream is None:
            return "", UNKNOWN_AGGREGATE_TYPE
        aggregate_id = task.get("aggregate_id")
        if not isinstance(aggregate_id, str) or not UUID.fullmatch(aggregate_id):
            return "", Reason.BAD_AGGREGATE_ID.value
        return stream, None

    def _pending(self, stream: str, aggregate_id: str) -> Document:
        return {**self._of(stream, [aggregate_id]), "aggregate_id": aggregate_id, "status": "pending"}

    def _of(self, stream: str, ids: Sequence[str]) -> Document:
        return {"aggregate_id": {"$in": list(ids)}, "aggregate_type": self._spellings[stream], "task_type": TASK_TYPE}


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed. `delays` are the seconds to wait after a first failed attempt, a second and so on.

    A task that failed more often is parked; without delays every one is: no retry can mend it.
    """

    aggregate_id: str
    reason: str
    detail: str
    delays: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """What became of failed attempts: tasks parked, tasks to be tried again, and the aggregates of those parked."""

    parked: int
    retried: int
    parked_ids: Collection[str]


def _spellings(read_models: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """What each type of stream is called: the names of its read models, and its own where no read model has that."""
    taken = {name for names in read_models.values() for name in names}
    return {
        stream: [re.escape(name) for name in (*names, *({stream} - taken))] for stream, names in read_models.items()
    }
