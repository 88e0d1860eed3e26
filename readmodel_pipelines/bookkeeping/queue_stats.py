"""The repair queue in numbers: how deep, how old, how fast, what is dead. Each is cheap, however long the queue is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.mongo.driver import Collection
from readmodel_pipelines.wording import numbers

Status = Literal["pending", "processing", "completed", "failed"]
STATUSES: tuple[Status, ...] = ("pending", "processing", "completed", "failed")

_RATE_MINUTES = 5


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue in numbers. `other` are tasks whose status is none of ours; ages in seconds, rates per minute.

    `completed` is as the server estimates it: after a crash of the server it may be off for a while.
    """

    pending: int
    processing: int
    completed: int
    failed: int
    other: int
    due: int
    oldest_pending_seconds: float
    repairs_per_minute: float
    dead_letters: Mapping[str, int]

    @property
    def open(self) -> int:
        """Tasks that a repair has yet to end."""
        return self.pending + self.processing

    def reasons_in_words(self) -> str:
        """How many dead letters have which reason."""
        return numbers(dict(sorted(self.dead_letters.items())))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        numbers = {name: getattr(self, name) for name in self.__slots__}
        return numbers | {"dead_letters": dict(self.dead_letters)}


def stats_of(tasks: Collection, now: datetime, due: Sequence[Mapping[str, Any]]) -> QueueStats:
    """The numbers of a queue at a moment of the server's; `due` are the filters of what a worker may take."""
    counts = {status: tasks.count_documents({"status": status}) for status in STATUSES if status != "completed"}
    other = tasks.count_documents({"status": {"$nin": list(STATUSES)}})
    oldest = tasks.find_one({"status": "pending"}, {"created_at": 1}, sort=[("created_at", 1)]) or {}
    created = int(at) / 1000 if isinstance(at := oldest.get("created_at"), DatetimeMS) else now.timestamp()
    since = now - timedelta(minutes=_RATE_MINUTES)
    recent = tasks.count_documents({"status": "completed", "completed_at": {"$gte": since}})
    reasons = tasks.aggregate([{"$match": {"status": "failed"}}, {"$group": {"_id": "$reason", "tasks": {"$sum": 1}}}])
    return QueueStats(
        **counts,
        # They are by far the most: counted one by one they would cost as much as all else a hundred times over.
        completed=max(0, tasks.estimated_document_count() - sum(counts.values()) - other),
        other=other,
        due=sum(tasks.count_documents(where) for where in due),
        oldest_pending_seconds=max(0.0, now.timestamp() - created),
        repairs_per_minute=recent / _RATE_MINUTES,
        dead_letters={str(group["_id"] or "unknown"): group["tasks"] for group in reasons},
    )
