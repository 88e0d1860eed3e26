"""The repair queue: the application's collection of failed read-model updates, in the producers' form.

DATA_CONTRACT.md, «Repair queue», has the producers' fields and those added here. A task is *open* while it is pending
or in work (`processing`). It is *due* if it is pending and its next attempt is not in the future, or if it is in work
under an expired lease. A worker takes tasks with the lease of their aggregate. The lease's nonce (`lease_token`) is
stored in them, and only its holder can complete or fail them.

Any program may have written a task. Tasks are read byte by byte and one by one. A task that names no aggregate, or that
cannot be written, becomes a dead letter (`task_writes.py`) and blocks no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, Literal

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats, Status, stats_of
from readmodel_pipelines.bookkeeping.repair_streams import RepairStreams
from readmodel_pipelines.bookkeeping.repair_task import (
    FIELDS,
    NO_MORE,
    OPEN,
    OURS,
    WRITABLE,
    abandoned_until,
    attempt_of,
    history_with,
    ids_of,
    key_of,
    new_task,
    pending_until,
    under,
)
from readmodel_pipelines.bookkeeping.set_aside import SetAside
from readmodel_pipelines.bookkeeping.task_writes import TaskWrites, Update
from readmodel_pipelines.errors import RepairQueueFull, UsageError
from readmodel_pipelines.events.exact import sendable
from readmodel_pipelines.mongo.beforehand import Beforehand
from readmodel_pipelines.mongo.driver import (
    CODEC,
    Database,
    Document,
    ServerTime,
    later,
    ours,
    server_time,
    server_time_asked,
)
from readmodel_pipelines.mongo.driver import Collection as MongoCollection
from readmodel_pipelines.mongo.exactly import found_exactly
from readmodel_pipelines.mongo.patience import repeats
from readmodel_pipelines.mongo.scan import Query
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.side_by_side import side_by_side
from readmodel_pipelines.wording import storable

_SCANNED_PER_AGGREGATE = 10


@dataclass(slots=True)
class Due:
    """The due work, the oldest first: aggregate ids by stream type, and tasks that name no aggregate, by reason."""

    aggregates: dict[str, list[str]] = field(default_factory=dict)
    poison: dict[str, list[Document]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.aggregates or self.poison)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the queue must know first: the server's time, and the `_id`s of the tasks set aside."""

    now: ServerTime
    aside: Sequence[Any]


class RepairQueue:
    """The operations on the queue; `streams` interprets tasks, `make_dead_letters` makes dead letters of open tasks.

    `refused` has the tasks that could not be written and were set aside, with their reasons.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = ours(database)
        self._set_aside = SetAside(self._database)
        self._tasks = MongoCollection(self._database, settings.repair_queue_collection, codec_options=CODEC)
        self._limit = settings.repair_queue_limit
        self._lease_seconds = settings.repair_lease_seconds
        self.streams = RepairStreams(settings)
        self._writes = TaskWrites(self._database, self._tasks)
        self.make_dead_letters = self._writes.make_dead_letters
        self.refused = self._writes.refused

    def add(self, aggregate_id: str, aggregate_type: str, error: str = "") -> bool:
        """Queue a repair, in the producers' form; False if the aggregate already has a pending task.

        A task in work does not count, because its repair may have read the events already.

        Raises:
            UsageError: the id is no UUID, or no read model has that name.
            RepairQueueFull: there are too many open tasks.
        """
        stream = self.streams.stream_of(aggregate_id, aggregate_type)
        pending = {**self.streams.tasks_of(stream, [aggregate_id]), "status": "pending", **WRITABLE}
        error = storable(error)
        if self._tasks.update_one(pending, {"$set": {"error": error}}).matched_count:
            return False
        if self._tasks.count_documents(OPEN, limit=self._limit) >= self._limit:
            raise RepairQueueFull(
                f"The repair queue holds {self._limit:,} open tasks, so the repair of {aggregate_id} was not queued.",
                hint=(
                    "`readmodel repair-queue stats` shows whether repairs run. Start a worker, or raise "
                    "READMODEL_REPAIR_QUEUE_LIMIT."
                ),
            )
        self._tasks.insert_one({**new_task(aggregate_id, aggregate_type), "error": error})
        return True

    def add_many(self, ids: Sequence[str], aggregate_type: str, error: str) -> tuple[int, int]:
        """Queue the repairs of these aggregates; returns the numbers of new ones and of those without room.

        An aggregate with a pending task keeps it unchanged, and needs no room.

        Raises:
            UsageError: an id is no UUID, or no read model has that name.
        """
        pending, _ = self.known(ids, aggregate_type)
        new = [aggregate_id for aggregate_id in dict.fromkeys(ids) if aggregate_id not in pending]
        room = max(0, self._limit - self._tasks.count_documents(OPEN, limit=self._limit))
        why = {"error": storable(error)}
        tasks = [{**new_task(aggregate_id, aggregate_type), **why} for aggregate_id in new[:room]]
        added = len(self._tasks.insert_many(tasks, ordered=False).inserted_ids) if tasks else 0
        return added, len(new) - len(tasks)

    def known(self, ids: Sequence[str], aggregate_type: str) -> tuple[Collection[str], Collection[str]]:
        """Those of these aggregates with a pending task, and those whose newest task is a dead letter.

        Raises:
            UsageError: an id is no UUID, or no read model has that name.
        """
        streams = {self.streams.stream_of(aggregate_id, aggregate_type) for aggregate_id in ids}
        pending, dead = set(), set()
        for stream in streams:
            waits = {"$max": {"$eq": ["$status", "pending"]}}
            newest = {"$max": {"created_at": "$created_at", "dead": {"$eq": ["$status", "failed"]}}}
            of_each: list[Document] = [
                {"$match": {**self.streams.tasks_of(stream, ids), **WRITABLE}},
                {"$group": {"_id": "$aggregate_id", "waits": waits, "newest": newest}},
                {"$project": {"waits": 1, "dead": "$newest.dead"}},
            ]
            for group in self._tasks.aggregate(of_each):
                if group["waits"]:
                    pending.add(group["_id"])
                elif group["dead"]:
                    dead.add(group["_id"])
        return pending, dead

    def due(
        self,
        limit: int,
        without: Collection[str] = (),
        task_ids: Sequence[str] | None = None,
        passed_over: Collection[bytes] = (),
        look: Look | None = None,
    ) -> Due:
        """The due work of at most `limit` aggregates, except those in `without` and the tasks `passed_over`.

        With `task_ids`, the open ones of these tasks, due or not.
        """
        due = Due()
        look = look or self.look()
        chosen: Document = {"aggregate_id": {"$nin": list(without)}} if without else {}
        if look.aside:
            chosen["_id"] = {"$nin": look.aside}
        if task_ids is not None:
            wanted = [Query({"$and": [OPEN, chosen, {"_id": {"$in": ids_of(task_ids)}}]}, FIELDS)]
        else:
            wanted = self.due_queries(look.now.at, self._lease_seconds, chosen)
        # Several tasks of one aggregate are common; finding the next one must not read thousands.
        most = limit * _SCANNED_PER_AGGREGATE + len(passed_over)
        first, *others = (found_exactly(self._tasks, item.where, item.fields, item.sort, most) for item in wanted)
        # Few, and asked for meanwhile.
        rest = [Beforehand(batched(each, limit), "reads tasks") for each in others]
        found: set[tuple[str, str]] = set()
        for task in chain(first, *map(chain.from_iterable, rest)):
            if key_of(task) in passed_over:
                continue
            stream, poison = self.streams.asked_for(task)
            if poison:
                due.poison.setdefault(poison, []).append(task)
            elif (stream, task["aggregate_id"]) not in found:
                found.add((stream, task["aggregate_id"]))
                due.aggregates.setdefault(stream, []).append(task["aggregate_id"])
            if len(found) >= limit:
                return due
        return due

    def look(self) -> Look:
        """Begin a look at the queue."""
        return Look(*side_by_side(partial(server_time_asked, self._database), self._set_aside.ids))

    @staticmethod
    def due_queries(now: datetime, lease_seconds: float, chosen: Mapping[str, Any] | None = None) -> list[Query]:
        """The queries of `due`: tasks that no longer wait, then tasks of dead workers."""
        in_order = (("next_attempt_at", 1), ("created_at", 1))
        return [
            Query({**pending_until(now), **(chosen or {})}, FIELDS, in_order),
            Query({**abandoned_until(now, lease_seconds), **(chosen or {})}, FIELDS),
        ]

    def claim(
        self,
        stream: str,
        ids: Sequence[str],
        token: str,
        holder: str,
        seconds: float,
        task_ids: Sequence[str] = (),
        now: datetime | None = None,
    ) -> int:
        """Claim all tasks of these aggregates that are due `now`, whose leases the caller holds; returns their number.

        With `task_ids`, also these tasks if they are not due.
        """
        # The lease proves that nobody works on them, whatever a task in work says.
        takable: list[Document] = [pending_until(now or self.now()), {"status": "processing"}]
        if task_ids:
            takable.append({"status": "pending", "_id": {"$in": ids_of(task_ids)}})
        lost = {"at": "$$NOW", "reason": "lease_lost", "claimed_by": "$claimed_by"}
        # A task that is already ours was taken a moment ago, and the reply was lost.
        of_another = {"$and": [{"$eq": ["$status", "processing"]}, {"$ne": ["$lease_token", token]}]}
        taken = {
            "status": "processing",
            "claimed_by": {"$literal": holder},
            "lease_token": token,
            "lease_until": later(seconds),
            "last_retry_at": "$$NOW",
            "attempts": {"$cond": [of_another, history_with(lost), "$attempts"]},
        }
        where = {**self.streams.tasks_of(stream, ids), "$or": takable, **WRITABLE}
        return self._writes.write(where, [{"$set": taken}], matches_again=True)

    def renew(self, ids: Sequence[str], token: str, seconds: float) -> None:
        """Extend the lease in these tasks."""
        self._tasks.update_many(under(token, ids), [{"$set": {"lease_until": later(seconds)}}])

    def complete(self, ids: Sequence[str], token: str, tasks: int | None = None) -> int:
        """Complete the tasks of repaired aggregates; returns their number, without tasks that others took over.

        They are counted first, for the case that the reply is lost, unless it is known that they had so many `tasks`.
        """
        done = {"$set": {"status": "completed"}, "$currentDate": {"completed_at": True}}
        forget = {"$unset": dict.fromkeys((*OURS, "next_attempt_at", "reason"), "")}
        return self._writes.write(under(token, ids), {**done, **forget}, there=tasks)

    def fail(self, failures: Sequence[Failure], token: str) -> Failed:
        """Record a failed attempt: tasks with attempts left wait for the next, the others become dead letters."""
        # Producers write the count, so it may have any value.
        spent = {"$max": [0, {"$convert": {"input": "$retry_count", "to": "int", "onError": 0, "onNull": 0}}]}
        ids = [failure.aggregate_id for failure in failures]
        of_each = {"_id": {"id": "$aggregate_id", "spent": spent}, "tasks": {"$sum": 1}}
        groups = self._tasks.aggregate([{"$match": under(token, ids)}, {"$group": of_each}])
        tasks = {(group["_id"]["id"], group["_id"]["spent"]): group["tasks"] for group in groups}
        most = {failure.aggregate_id: len(failure.delays) for failure in failures}
        ending = {key: number for key, number in tasks.items() if key[1] >= most[key[0]]}
        again: list[tuple[Document, Update]] = []
        letters: list[tuple[Document, Update]] = []
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
            letters.append((last, [{"$set": {**failed, "status": "failed"}}, {"$unset": NO_MORE}]))
            if waits:
                next_attempt = {"$add": ["$$NOW", {"$arrayElemAt": [waits, spent]}]}
                waiting = {**failed, "status": "pending", "next_attempt_at": next_attempt}
                again.append((this, [{"$set": waiting}, {"$unset": list(OURS)}]))
        asked = repeats()
        dead, retried = self._writes.write_each(letters), self._writes.write_each(again)
        if repeats() > asked:
            # The last reply does not include writes before a lost reply.
            dead = sum(ending.values())
            retried = sum(tasks.values()) - dead
        return Failed(dead_letters=dead, retried=retried, dead_ids={aggregate_id for aggregate_id, _ in ending})

    def give_back(self, ids: Sequence[str], token: str, seconds: float = 0) -> int:
        """Release these tasks after a delay in seconds, as if they had not been taken."""
        waiting = {"status": "pending", "next_attempt_at": later(seconds)}
        given_back: list[Document] = [{"$set": waiting}, {"$unset": list(OURS)}]
        return self._writes.write(under(token, ids), given_back)

    def free(self, holder: str) -> int:
        """Release the tasks of a dead holder at once, not when its lease expires."""
        dead: Document = {"status": "processing", "claimed_by": holder}
        return self._writes.write(dead, {"$currentDate": {"lease_until": True}})

    def requeue(self, *, task_id: str | None = None, reason: str | None = None, all_failed: bool = False) -> int:
        """Requeue tasks with a fresh number of attempts: one by its id unless it is in work, or dead letters.

        Raises:
            UsageError: not exactly one of the three is given, or the task does not exist, or is in work.
        """
        if [task_id is not None, reason is not None, all_failed].count(True) != 1:
            raise UsageError("The tasks to requeue are not given.", hint="Give one of --id, --reason and --all-failed.")
        where: Document = {"status": "failed"}
        if reason is not None:
            where["reason"] = storable(reason)
        if task_id is not None:
            where = {"_id": {"$in": ids_of([task_id])}, "status": {"$ne": "processing"}}
        back = {"$set": {"status": "pending", "retry_count": 0}}
        forget = {"$unset": dict.fromkeys(("next_attempt_at", "completed_at", "reason", *OURS), "")}
        aside = self._set_aside.ids({**where, "status": "failed"})
        requeued = self._writes.write({"$and": [where, {"_id": {"$nin": aside}}]}, {**back, **forget})
        requeued += self._set_aside.forget(aside)
        if task_id is not None and not requeued:
            in_work = self._tasks.count_documents(sendable({"_id": where["_id"]}), limit=1)
            state = "is in work" if in_work else "does not exist"
            raise UsageError(f"The task {task_id} {state}.", hint="`readmodel repair-queue list` shows the tasks.")
        return requeued

    def purge(self, status: Literal["completed", "failed"], older_than_days: float = 0) -> int:
        """Delete completed tasks, or dead letters, that ended at least this long ago; returns their number."""
        ended = "completed_at" if status == "completed" else "last_retry_at"
        where: Document = {"status": status}
        if older_than_days:
            where[ended] = {"$lt": self.now() - timedelta(days=older_than_days)}
        deleted = self._tasks.delete_counted(where)
        if status == "failed" and (aside := self._set_aside.ids(where)):
            deleted += self._tasks.delete_counted(sendable({"_id": {"$in": aside}}))
            self._set_aside.forget(aside)
        return deleted

    def tasks(self, status: Status | None = None, reason: str | None = None, limit: int = 50) -> Iterator[Document]:
        """Tasks as stored: those set aside first, then the oldest; dates as `DatetimeMS`."""
        asked = (("status", status), ("reason", reason))
        where: Document = {name: storable(text) for name, text in asked if text is not None}
        letters = self._set_aside.letters(where)[:limit]
        if aside := self._set_aside.ids():
            where["_id"] = {"$nin": aside}
        yield from letters
        if len(letters) < limit:
            yield from found_exactly(self._tasks, where, sort=[("created_at", 1)], limit=limit - len(letters))

    def stats(self) -> QueueStats:
        """The queue in numbers."""
        now = self.now()
        due = [query.where for query in self.due_queries(now, self._lease_seconds)]
        return stats_of(self._tasks, now, due, self._set_aside.letters({}))

    def left_for(self, seconds: float) -> bool:
        """Whether a task has been due for this long and was not taken."""
        before = self.now() - timedelta(seconds=seconds)
        waited: Document = {**pending_until(before), "created_at": {"$lt": before}}
        return self._tasks.count_documents(waited, limit=1) > 0

    def now(self) -> datetime:
        """The server's time, which decides on leases and attempts."""
        return server_time(self._database)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. `delays` are the seconds to wait after the first failed attempt, the second and so on.

    A task with more failed attempts becomes a dead letter; without delays every task does, because no retry can repair
    it.
    """

    aggregate_id: str
    reason: str
    detail: str
    delays: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The result of failed attempts: dead letters, tasks to be tried again, and the aggregates of the dead letters."""

    dead_letters: int
    retried: int
    dead_ids: Collection[str]
