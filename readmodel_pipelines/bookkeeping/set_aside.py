"""Tasks set aside: those of the repair queue that cannot be written, so that nobody could end them.

A task of nearly 16 MiB has no room for a status. If a field occurs twice, the one that counts may stay unchanged. The
dead letter of such a task is stored in `readmodel_set_aside`, under the task's own `_id`. All readers treat it as a
dead letter, and no worker takes the task. The task itself is unchanged.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.events.exact import sendable, written
from readmodel_pipelines.mongo.driver import Collection, Database, Document, duplicates_allowed
from readmodel_pipelines.mongo.exactly import found_exactly
from readmodel_pipelines.mongo.names import SET_ASIDE
from readmodel_pipelines.reconcile.extended_json import json_text
from readmodel_pipelines.wording import cut

_MOST = 1_000
_LONGEST = 4_096
_KEPT = ("aggregate_id", "aggregate_type", "task_type", "created_at")


class SetAside:
    """The tasks set aside of a database's queue: few, because each is excluded from queries by its `_id`."""

    def __init__(self, database: Database) -> None:
        self._letters = Collection(database, SET_ASIDE)

    def ids(self, where: Mapping[str, Any] | None = None) -> list[Any]:
        """The `_id`s of the tasks."""
        return [letter["_id"] for letter in found_exactly(self._letters, where or {}, {"_id": 1}, limit=_MOST)]

    def letters(self, where: Mapping[str, Any]) -> list[Document]:
        """The dead letters, in the form of tasks, the oldest first."""
        return list(found_exactly(self._letters, where, sort=[("created_at", 1)], limit=_MOST))

    def put(self, tasks: Sequence[Document], attempt: Mapping[str, Any], now: datetime) -> None:
        """Set these tasks aside; `attempt` goes into the history of their dead letters.

        Raises:
            ReadModelError: there are too many, so the queue itself cannot be written.
        """
        number = self._letters.estimated_document_count() + len(tasks)
        if number > _MOST:
            raise ReadModelError(
                f"{number:,} tasks of the repair queue cannot be written: {attempt['detail']}.",
                hint="A validator, a cap or a view prevents it. Fix that, then run `readmodel repair-queue requeue "
                "--all-failed`.",
            )
        ended = {"status": "failed", "reason": attempt["reason"], "last_retry_at": now, "attempts": [attempt]}
        letters = [
            {
                "_id": task["_id"],
                **{name: task[name] for name in _KEPT if name in task and is_short(task[name])},
                **ended,
            }
            for task in tasks
            # A query cannot contain many more.
            if is_short(task["_id"])
        ]
        if letters:
            with duplicates_allowed():
                self._letters.insert_many([RawBSONDocument(written(letter)) for letter in letters], ordered=False)

    def forget(self, ids: Sequence[Any]) -> int:
        """Remove these; returns their number."""
        return self._letters.delete_counted(sendable({"_id": {"$in": list(ids)}})) if ids else 0


def is_short(value: Any) -> bool:
    """Whether a stored value is short enough for a query."""
    return len(written({"": value})) <= _LONGEST


def shortened(value: Any) -> Any:
    """The value, or the beginning of its text if it is too long."""
    return value if is_short(value) else cut(json_text(value), _LONGEST)
