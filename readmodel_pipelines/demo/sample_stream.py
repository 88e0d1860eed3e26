"""One aggregate's event stream: the envelope that the application puts around every event.

Versions count 1, 2, 3 … without gaps. `data` repeats the envelope, in random order, the way JSON left it: every number
a double, every time a string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bson import DatetimeMS

from readmodel_pipelines.demo.sample_values import Values
from readmodel_pipelines.repair.new_event import YEAR_ONE, YEAR_ONE_TEXT

Event = dict[str, Any]

_MOST_ATTACHMENTS = 12
_WRITE_DELAYS_MS = (0, 0, 0, 1, 1, 2, 5, 40)


class Stream:
    """The events of one aggregate, made one by one.

    `stale_data_version` keeps `data.version` at 1, as legacy writers left it; the top-level version always counts.
    """

    __slots__ = ("_ns", "_stale_data_version", "_values", "aggregate_id", "aggregate_type", "version")

    def __init__(self, values: Values, aggregate_id: str, aggregate_type: str, *, stale_data_version: bool) -> None:
        self._values = values
        self._ns = values.start_ns()
        self._stale_data_version = stale_data_version
        self.aggregate_id = aggregate_id
        self.aggregate_type = aggregate_type
        self.version = 0

    def now(self) -> str:
        """The text of a moment just before the next event, for the times inside its data."""
        return self._values.instant(self._ns - 300)[0]

    def bare(self, event_type: str, own: Event) -> Event:
        """The next event, without a trace of who asked for it. `own` holds the event's own fields."""
        return self._event(event_type, own, {"timestamp": YEAR_ONE, "correlation_id": ""}, {"timestamp": YEAR_ONE_TEXT})

    def traced(self, event_type: str, own: Event, user_id: str | None = None) -> Event:
        """The next event, with correlation and causation, and the user when there is one."""
        correlation_id, causation_id = self._values.uuid(), self._values.uuid()
        traces = {"correlation_id": correlation_id, "causation_id": causation_id}
        if user_id is not None:
            traces = {"user_id": user_id, **traces}
            if self._values.chance(0.02):
                traces |= {"ip_address": "10.0.0.1", "user_agent": "Mozilla/5.0"}
        repeated = self._values.shuffled({"timestamp": YEAR_ONE_TEXT, **traces})
        return self._event(event_type, own, {"timestamp": YEAR_ONE, **traces}, repeated)

    def requested(self, event_type: str, own: Event, user_id: str) -> Event:
        """The next event, as a web request left it: a real timestamp, a user, sometimes the client's address."""
        text, moment = self._values.instant(self._ns - 200)
        traces = {"user_id": user_id, "correlation_id": self._values.uuid()}
        if self._values.chance(0.5):
            traces |= {"ip_address": "10.0.0.1", "user_agent": "Mozilla/5.0"}
        repeated = self._values.shuffled({"timestamp": text, **traces})
        return self._event(event_type, own, {"timestamp": moment, **traces}, repeated)

    def _event(self, event_type: str, own: Event, metadata: Event, repeated_metadata: Event) -> Event:
        values = self._values
        self.version += 1
        occurred_text, occurred_at = values.instant(self._ns)
        event = {
            "_id": values.object_id(self._ns),
            "aggregate_id": self.aggregate_id,
            "aggregate_type": self.aggregate_type,
            "event_type": event_type,
            "version": self.version,
            "data": values.shuffled(
                {
                    "event_type": event_type,
                    "aggregate_id": self.aggregate_id,
                    "aggregate_type": self.aggregate_type,
                    "occurred_at": occurred_text,
                    "version": 1.0 if self._stale_data_version else float(self.version),
                    "metadata": repeated_metadata,
                    **own,
                }
            ),
            "metadata": metadata,
            "occurred_at": occurred_at,
            "created_at": DatetimeMS(int(occurred_at) + values.pick(_WRITE_DELAYS_MS)),
        }
        # A step back now and then: the application's clocks do not agree, only `version` orders a stream.
        self._ns += int(values.random() * 62_000_000_000) - 2_000_000_000
        return event


class Aggregate:
    """What chats and tasks have in common: the stream that one writes, and its files, of which there are never many."""

    def __init__(self, values: Values, stream: Stream) -> None:
        self.values = values
        self.stream = stream
        self.attachments: list[str] = []

    def attached(self) -> str | None:
        """The id of the next file: a new one, sometimes one that is there already; None when there are enough."""
        repeated = bool(self.attachments) and self.values.chance(0.15)
        if repeated:
            return self.values.pick(self.attachments)
        if len(self.attachments) >= _MOST_ATTACHMENTS:
            return None
        self.attachments.append(self.values.uuid())
        return self.attachments[-1]

    def detached(self) -> str | None:
        """The id of a file that is there no more; None without any."""
        if not self.attachments:
            return None
        return self.attachments.pop(int(self.values.random() * len(self.attachments)))


A = TypeVar("A", bound=Aggregate)


def next_event(aggregate: A, actions: Sequence[Callable[[A], Event | None]]) -> Event:
    """What one of these actions gives, each as likely as the others; some cannot happen now."""
    while True:
        event = aggregate.values.pick(actions)(aggregate)
        if event is not None:
            return event
