"""The arrival of an event: it is there once a majority of the servers has it, and cannot be rolled back any more.

Whoever was handed an event right after it was appended may be earlier than that. One that is not waited for would be
missing in what is made of its stream, and nobody would say so.
"""

import time
from collections.abc import Mapping
from typing import Any

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.events.values import BadField, whole
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.reconcile.outcome import Why

WAIT_SECONDS = 5.0
"""For how long an event is waited for, unless somebody says otherwise."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25


class Arrival:
    """That of one event, which tells its stream and, most often, its version."""

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
        """Until a majority has the stream at that version or a later one, or the time is over."""
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
        """Reason and detail when the event is none of a stream that ends with this version; None: there is no such.

        A stream that ends in no number is malformed whatever is in it.
        """
        if self._odd:
            return Reason.BAD_VERSION, self._odd
        if self._version and (last is None or (isinstance(last, int | float) and last < self._version)):
            detail = f"no majority of the servers had version {self._version} within {self._waited:g} s"
            return Why.EVENT_NOT_THERE, detail
        return None
