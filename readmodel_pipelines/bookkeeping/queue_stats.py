"""Numbers of the repair queue: depth, age, rate, dead letters. Each is cheap, however long the queue is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS
from readmodel_pipelines.events.exact import sendable
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.scan import NO_ARRAY
from readmodel_pipelines.wording import numbers

Status = Literal["pending", "processing", "completed", "failed"]
STATUSES: tuple[Status, ...] = ("pending", "processing", "completed", "failed")

_RATE_MINUTES = 5
# A dead letter written by hand may contain any value.
_IS_A_WORD = {"$and": [{"$eq": [{"$type": "$reason"}, "string"]}, {"$lte": [{"$strLenBytes": "$reason"}, 100]}]}
_BY_REASON: list[Document] = [
    {"$group": {"_id": {"$cond": [_IS_A_WORD, "$reason", "unknown"]}, "tasks": {"$sum": 1}}},
    {"$sort": {"tasks": -1}},
    {"$limit": 100},
]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue in numbers. `other` are tasks with an unknown status; ages in seconds, rates per minute.

    `completed` is the server's estimate, which may be wrong for a while after a crash of the server.
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
        """Number of open tasks."""
        return self.pending + self.processing

    def reasons_in_words(self) -> str:
        """Number of dead letters by reason; an unknown reason may contain any text."""
        told: Counter[str] = Counter()
        for reason, number in self.dead_letters.items():
            told[reason if reason in DEAD_LETTER_REASONS else "other"] += number
        return numbers(dict(sorted(told.items())))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        numbers = {name: getattr(self, name) for name in self.__slots__}
        return numbers | {"dead_letters": dict(self.dead_letters)}


def stats_of(
    tasks: Collection, now: datetime, due: Sequence[Mapping[str, Any]], aside: Sequence[Document] = ()
) -> QueueStats:
    """The numbers of a queue at a time of the server's clock; `due` are the filters for tasks that a worker may take.

    Tasks in `aside` count as dead letters, whatever their content.
    """
    ids = {"_id": {"$nin": [letter["_id"] for letter in aside]}} if aside else {}

    def number(where: Mapping[str, Any]) -> int:
        return tasks.count_documents(sendable({**where, **ids}))

    counts = {status: number({"status": status}) for status in STATUSES if status != "completed"}
    other = number({"status": {"$nin": list(STATUSES)}})
    waiting = {"status": "pending", "created_at": {"$type": "date", **NO_ARRAY}, **ids}
    # Without `_id`, whose type is unknown.
    oldest = tasks.find_one(sendable(waiting), {"_id": 0, "created_at": 1}, sort=[("created_at", 1)])
    created = int(oldest["created_at"]) / 1000 if oldest else now.timestamp()
    since = now - timedelta(minutes=_RATE_MINUTES)
    recent = number({"status": "completed", "completed_at": {"$gte": since}})
    reasons = Counter(str(letter["reason"]) for letter in aside)
    for group in tasks.aggregate([{"$match": {"status": "failed"}}, *_BY_REASON]):
        reasons[group["_id"]] += group["tasks"]
    counts["failed"] += len(aside)
    return QueueStats(
        **counts,
        # They are by far the most; counting them one by one would cost a hundred times more than everything else.
        completed=max(0, tasks.estimated_document_count() - sum(counts.values()) - other),
        other=other,
        due=sum(map(number, due)),
        oldest_pending_seconds=max(0.0, now.timestamp() - created),
        repairs_per_minute=recent / _RATE_MINUTES,
        dead_letters=reasons,
    )
