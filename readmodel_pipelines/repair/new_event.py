"""New events: from what an application says to the document that the event store holds (DATA_CONTRACT.md, «Events»)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bson import DatetimeMS, ObjectId

from readmodel_pipelines.events.values import ZERO_TIME_MS
from readmodel_pipelines.projections.projection import Document

YEAR_ONE = DatetimeMS(ZERO_TIME_MS)
"""Go's zero time, which most events carry as the timestamp of their metadata."""

YEAR_ONE_TEXT = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event to be appended: its type, its own fields, and who or what caused it where that is known.

    `traces` may hold user_id, correlation_id, causation_id, ip_address and user_agent.
    """

    event_type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    traces: Mapping[str, str] = field(default_factory=dict)

    def stored(self, aggregate_id: str, aggregate_type: str, version: int, now: datetime) -> Document:
        """The document for the event store, `aggregate_type` in its spelling there; `now` has a time zone."""
        envelope = {
            "event_type": self.event_type,
            "aggregate_id": aggregate_id,
            "aggregate_type": aggregate_type,
            "occurred_at": now,
            "version": version,
            "metadata": {"timestamp": YEAR_ONE_TEXT, **self.traces},
        }
        return {
            "_id": ObjectId(),
            "aggregate_id": aggregate_id,
            "aggregate_type": aggregate_type,
            "event_type": self.event_type,
            "version": version,
            "data": _through_json({**self.data, **envelope}),
            "metadata": {"timestamp": YEAR_ONE, "correlation_id": "", **self.traces},
            "occurred_at": now,
            "created_at": now,
        }


def _through_json(value: Any) -> Any:
    """The value as the application's way through JSON leaves it: every number a double, every time a text."""
    if isinstance(value, Mapping):
        return {name: _through_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_through_json(item) for item in value]
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
