"""A task of the repair queue: the reasons of dead letters, and filters and updates for its fields.

DATA_CONTRACT.md, «Repair queue», has the fields.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from readmodel_pipelines.events.exact import written
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.mongo.scan import NO_ARRAY
from readmodel_pipelines.reconcile.outcome import Why
from readmodel_pipelines.wording import storable

TASK_TYPE = "readmodel_sync"
UNKNOWN_AGGREGATE_TYPE = "unknown_aggregate_type"
UNKNOWN_TASK_TYPE = "unknown_task_type"
REPEATED_FIELD = "repeated_field"
CANNOT_BE_WRITTEN = "cannot_be_written"
UNWRITABLE = (REPEATED_FIELD, CANNOT_BE_WRITTEN)
"""The reasons of tasks that cannot be written."""
AGGREGATE_NOT_FOUND = "aggregate_not_found"
CRASHES_WORKER = "crashes_worker"
DEAD_LETTER_REASONS: tuple[str, ...] = (
    *(reason.value for reason in Reason),
    *(why.value for why in (Why.KEY_HELD, Why.NEEDS_REPLICA_SET, Why.WRITE_REFUSED, Why.NO_EVENTS)),
    *(UNKNOWN_AGGREGATE_TYPE, UNKNOWN_TASK_TYPE, REPEATED_FIELD, CANNOT_BE_WRITTEN),
    *(AGGREGATE_NOT_FOUND, CRASHES_WORKER),
)
"""The reasons with which repairs make dead letters."""

_HISTORY = 10
_LONGEST_DETAIL = 500
OURS = ("lease_until", "lease_token")
"""The fields of a task in work that only this project writes."""

LARGEST = 16 * 2**20 - 64 * 2**10
"""Maximum number of bytes of a task with room for all added fields."""
_SIZE = {"$bsonSize": "$$ROOT"}
# A merge keeps one of several fields with the same name.
_TWICE = {"$ne": [_SIZE, {"$bsonSize": {"$mergeObjects": ["$$ROOT"]}}]}
WRITABLE: Document = {"$expr": {"$and": [{"$lte": [_SIZE, LARGEST]}, {"$not": [_TWICE]}]}}
"""The filter for tasks that can be written. **MongoDB 6.0 crashes** when a pipeline writes a field that occurs twice.
"""

_NAMING = ("aggregate_id", "aggregate_type", "task_type", "status")
FIELDS = dict.fromkeys((*_NAMING, "created_at"), 1) | {"size": _SIZE, "twice": _TWICE}
"""The fields that identify the requested repair, the size, and whether a field occurs twice."""
OPEN: Document = {"status": {"$in": ["pending", "processing"]}}
NO_MORE = [*OURS, "next_attempt_at"]
"""The fields that a dead letter no longer has."""


def new_task(aggregate_id: str, aggregate_type: str) -> Document:
    """A task as producers write it, without its error."""
    named = {"aggregate_id": aggregate_id, "aggregate_type": aggregate_type.strip().lower(), "task_type": TASK_TYPE}
    return {**named, "created_at": datetime.now(UTC), "retry_count": 0, "status": "pending"}


def key_of(task: Document) -> bytes:
    """The key of a task, whatever the type of its `_id`."""
    return written({"_id": task["_id"]})


def pending_until(now: datetime) -> Document:
    """The filter for pending tasks whose next attempt is due."""
    # Producers do not write `next_attempt_at`; a task without it is due.
    return {"status": "pending", "next_attempt_at": {"$not": {"$gt": now}}}


def abandoned_until(now: datetime, lease_seconds: float) -> Document:
    """The filter for tasks in work under a lease that has expired, or that ends later than possible because a clock was
    wrong.
    """
    # A task in work without a lease was left by the application's own worker, which never returns to it. A task under a
    # longer lease is found without need.
    held = {"$gt": now, "$lte": now + timedelta(seconds=lease_seconds)}
    return {"status": "processing", "lease_until": {"$not": held}}


def under(token: str, ids: Sequence[str]) -> Document:
    """The filter for tasks in work under a lease, by its nonce."""
    return {"aggregate_id": text({"$in": list(ids)}), "status": "processing", "lease_token": token}


def attempt_of(reason: str, detail: str) -> Document:
    """The expression for a failed attempt, as the history stores it."""
    return {
        "at": "$$NOW",
        "reason": {"$literal": reason},
        "detail": {"$literal": storable(detail)[:_LONGEST_DETAIL]},
        "claimed_by": "$claimed_by",
    }


def history_with(attempt: Document) -> Document:
    """The expression for a task's last attempts, including this one."""
    history = {"$cond": [{"$isArray": "$attempts"}, "$attempts", []]}
    return {"$slice": [{"$concatArrays": [history, [attempt]]}, -_HISTORY]}


def text(conditions: Document) -> Document:
    """Conditions for a text field: neither an array that contains a text, nor a symbol."""
    return {**conditions, "$type": "string", **NO_ARRAY}


def ids_of(task_ids: Iterable[str]) -> list[Any]:
    """The `_id`s that texts may mean: producers' are ObjectIds, hand-made ones texts."""
    # Text that is not UTF-8 matches no task, and no query can contain it.
    texts = list(map(storable, task_ids))
    return [*texts, *(ObjectId(text) for text in texts if ObjectId.is_valid(text))]
