"""A task of the repair queue: why it may be parked, and the filters and updates that say what a task is by its fields.

DATA_CONTRACT.md, «Repair queue», has the fields.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.mongo.driver import Document
from readmodel_pipelines.reconcile.outcome import Why
from readmodel_pipelines.wording import storable

TASK_TYPE = "readmodel_sync"
UNKNOWN_AGGREGATE_TYPE = "unknown_aggregate_type"
UNKNOWN_TASK_TYPE = "unknown_task_type"
AGGREGATE_NOT_FOUND = "aggregate_not_found"
CRASHES_WORKER = "crashes_worker"
DEAD_LETTER_REASONS: tuple[str, ...] = (
    *(reason.value for reason in Reason),
    *(why.value for why in (Why.KEY_HELD, Why.NEEDS_REPLICA_SET, Why.WRITE_REFUSED, Why.NO_EVENTS)),
    *(UNKNOWN_AGGREGATE_TYPE, UNKNOWN_TASK_TYPE, AGGREGATE_NOT_FOUND, CRASHES_WORKER),
)
"""Why repairs park tasks."""

_HISTORY = 10
_LONGEST_DETAIL = 500
OURS = ("lease_until", "lease_token")
"""The fields of a task in work that only this project writes."""

FIELDS = {"aggregate_id": 1, "aggregate_type": 1, "task_type": 1, "status": 1}
"""What tells which repair a task asks for."""
OPEN: Document = {"status": {"$in": ["pending", "processing"]}}
NO_MORE = [*OURS, "next_attempt_at"]
"""The fields that a parked task has no more."""


def new_task(aggregate_type: str) -> Document:
    """A task's first fields, as producers write them."""
    return {"aggregate_type": aggregate_type.strip().lower(), "created_at": datetime.now(UTC), "retry_count": 0}


def pending_until(now: datetime) -> Document:
    """The filter for tasks that wait no longer."""
    # Producers know nothing of `next_attempt_at`: a task without it is due.
    return {"status": "pending", "next_attempt_at": {"$not": {"$gt": now}}}


def abandoned_until(now: datetime) -> Document:
    """The filter for tasks in work under a lease that ran out."""
    # One without a lease was left so by the application's own worker, which never comes back to it.
    return {"status": "processing", "lease_until": {"$not": {"$gt": now}}}


def under(token: str, ids: Sequence[str]) -> Document:
    """The filter for tasks in work under a lease, by its nonce."""
    return {"aggregate_id": {"$in": list(ids)}, "status": "processing", "lease_token": token}


def attempt_of(reason: str, detail: str) -> Document:
    """The expression for an attempt that failed, as the history has it."""
    return {
        "at": "$$NOW",
        "reason": {"$literal": reason},
        "detail": {"$literal": storable(detail)[:_LONGEST_DETAIL]},
        "claimed_by": "$claimed_by",
    }


def history_with(attempt: Document) -> Document:
    """The expression for a task's last attempts, this one included."""
    history = {"$cond": [{"$isArray": "$attempts"}, "$attempts", []]}
    return {"$slice": [{"$concatArrays": [history, [attempt]]}, -_HISTORY]}


def ids_of(task_ids: Iterable[str]) -> list[Any]:
    """The `_id`s that texts may mean: producers' are objectIds, hand-made ones texts."""
    # What is no UTF-8 is nobody's, and no query can ask for it.
    texts = list(map(storable, task_ids))
    return [*texts, *(ObjectId(text) for text in texts if ObjectId.is_valid(text))]
