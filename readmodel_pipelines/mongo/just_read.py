"""The end of a read of events, held so that the stream that was read last can be looked at again without a query."""

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.mongo.driver import Document

HELD = 3
"""Maximum number of batches held; events may have megabytes."""
_ID = itemgetter("aggregate_id")


@dataclass(slots=True)
class JustRead:
    """The last batches of a read for a fold."""

    fold: Fold[Any]
    _batches: deque[list[Document]] = field(default_factory=lambda: deque(maxlen=HELD))
    _dropped: bool = False

    def add(self, batch: list[Document]) -> None:
        """Hold a batch, and drop the oldest one."""
        self._dropped = self._dropped or len(self._batches) == HELD
        self._batches.append(batch)

    def of(self, aggregate_id: str) -> list[Document]:
        """The events of this stream; none if some of them are not held."""
        events: list[Document] = []
        for batch in reversed(self._batches):
            try:
                start, end = (find(batch, aggregate_id, key=_ID) for find in (bisect_left, bisect_right))
            except TypeError:
                # A symbol, which has no order with texts here.
                return []
            events[:0] = batch[start:end]
            if start:
                break
        else:
            if self._dropped:
                return []
        # A symbol may lie among the events of the same text, where no comparison met it.
        return events if all(event["aggregate_id"] == aggregate_id for event in events) else []
