"""Writes to tasks of the repair queue; a task that cannot be written is set aside, and all others are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import UpdateMany, UpdateOne
from pymongo.errors import WriteError

from readmodel_pipelines.batched import fitting
from readmodel_pipelines.bookkeeping.repair_task import (
    CANNOT_BE_WRITTEN,
    FIELDS,
    NO_MORE,
    OPEN,
    UNWRITABLE,
    attempt_of,
    history_with,
    key_of,
)
from readmodel_pipelines.bookkeeping.set_aside import SetAside
from readmodel_pipelines.events.exact import sendable
from readmodel_pipelines.mongo.driver import BulkWriteError, Collection, Database, Document, server_time
from readmodel_pipelines.mongo.exactly import found_exactly
from readmodel_pipelines.mongo.failures import is_the_servers, raise_servers_own

Update = Mapping[str, Any] | list[Document]

_MOST_BYTES = 8 * 2**20
_LONGEST_WHY = 300


class TaskWrites:
    """Writes to the tasks of a queue; `refused` has the tasks set aside by them, with their reasons."""

    def __init__(self, database: Database, tasks: Collection) -> None:
        self._database = database
        self._tasks = tasks
        self._set_aside = SetAside(database)
        self.refused: list[tuple[Document, str]] = []

    def write(
        self, where: Mapping[str, Any], update: Update, *, there: int | None = None, matches_again: bool = False
    ) -> int:
        """Write all tasks at once or, if the server refuses one, each by itself; returns the number written.

        They are counted first, unless it is known how many are `there`, or a repetition `matches_again` what is
        written.
        """
        try:
            if matches_again:
                return self._tasks.update_many(sendable(where), update).matched_count
            return self._tasks.update_counted(sendable(where), update, there)
        except WriteError as error:
            if is_the_servers(error.code):
                raise
        tasks = list(found_exactly(self._tasks, where, FIELDS))
        alone = [UpdateOne(sendable({"$and": [where, {"_id": {"$in": [task["_id"]]}}]}), update) for task in tasks]
        try:
            return self._tasks.bulk_write(alone, ordered=False).matched_count if alone else 0
        except BulkWriteError as error:
            refused = error.details["writeErrors"]
            raise_servers_own(refused, error.details["writeConcernErrors"])
            for item in refused:
                task, why = tasks[item["index"]], str(item["errmsg"])[:_LONGEST_WHY]
                self._put_aside([task], CANNOT_BE_WRITTEN, why, "")
                self.refused.append((task, why))
            return int(error.details["nMatched"])

    def write_each(self, writes: Sequence[tuple[Mapping[str, Any], Update]]) -> int:
        """Write the tasks of each filter; returns their number."""
        if not writes:
            return 0
        try:
            many = [UpdateMany(where, update) for where, update in writes]
            return self._tasks.bulk_write(many, ordered=False).matched_count
        except BulkWriteError as error:
            refused = error.details["writeErrors"]
            raise_servers_own(refused, error.details["writeConcernErrors"])
            return int(error.details["nMatched"]) + sum(self.write(*writes[item["index"]]) for item in refused)

    def make_dead_letters(self, tasks: Sequence[Document], reason: str, detail: str, holder: str) -> None:
        """Make dead letters of open tasks; tasks that cannot be written are set aside."""
        attempt = {**attempt_of(reason, detail), "claimed_by": {"$literal": holder}}
        history = {"attempts": history_with(attempt), "last_retry_at": "$$NOW"}
        dead = {"status": "failed", "reason": attempt["reason"], **history}
        for some in fitting(tasks, lambda task: len(key_of(task)), _MOST_BYTES):
            these: Document = {**OPEN, "_id": {"$in": [task["_id"] for task in some]}}
            if reason not in UNWRITABLE:
                self.write(these, [{"$set": dead}, {"$unset": NO_MORE}])
            # They are reported as dead letters in both cases.
            self.refused.clear()
            # A task that is still open could not be written.
            if left := list(found_exactly(self._tasks, these, FIELDS)):
                self._put_aside(left, reason, detail, holder)

    def _put_aside(self, tasks: Sequence[Document], reason: str, detail: str, holder: str) -> None:
        now = server_time(self._database)
        self._set_aside.put(tasks, {"at": now, "reason": reason, "detail": detail, "claimed_by": holder}, now)
