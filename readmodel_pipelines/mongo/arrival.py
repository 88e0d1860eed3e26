"""The arrival of an event: it counts once a majority of the servers has it, so that it cannot be rolled back.

An event handler may get an event before that. Without a wait, the document would silently lack the event.
"""

import time
from collections.abc import Mapping
from typing import Any

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.events.values import BadField, whole
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.reconcile.outcome import Why

WAIT_SECONDS = 5.0
"""Default number of seconds to wait for an event."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25


class Arrival:
    """The arrival of one event, which names its stream and usually its version."""

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._aggregate_id = event["aggregate_id"]
        self._version = 0
        self._odd = ""
        self._waited = 0.0
        if event.get("version") is not None:
            try:
                self._version = whole(event["version"], "the version")
            except BadField as error:
                self._odd = str(error)
            if not self._odd and self._version < 1:
                self._odd = f"versions begin at 1, this one is {self._version}"

    def wait(self, store: EventStore, seconds: float) -> None:
        """Wait until a majority has the stream at that version or a later one, or until the time is over."""
        if self._odd or not self._version:
            return
        deadline, pause, self._waited = time.monotonic() + seconds, _FIRST_PAUSE, seconds
        while self.missing_from(store.last_versions([self._aggregate_id]).get(self._aggregate_id)):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def missing_from(self, last: Any) -> tuple[str, str] | None:
        """Reason and detail if the event is missing in a stream that ends with this version; None if it is there.

        A stream whose version is no number is malformed in any case.
        """
        if self._odd:
            return Reason.BAD_VERSION, self._odd
        if self._version and (last is None or (isinstance(last, int | float) and last < self._version)):
            detail = f"no majority of the servers had version {self._version} within {self._waited:g} s"
            return Why.EVENT_NOT_THERE, detail
        return None
