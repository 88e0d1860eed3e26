"""The events that the last recheck read, for the search of causes, which reads them again from here.

The amount is limited: further and longer streams are read from the server again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Projection

MOST_EVENTS = 20_000
"""Maximum number of events of all streams of a recheck."""
MOST_CHARACTERS = 8 * 1024 * 1024
"""Maximum size of all streams of a recheck, in characters."""
MOST_OF_A_STREAM = 2_000
"""Maximum number of events of one stream."""


def dated(projection: Projection) -> Projection:
    """The projection with events that always include their time, because causes report it."""
    fold: Fold[Any] = projection.fold
    return replace(projection, fold=replace(fold, envelope=tuple(dict.fromkeys((*fold.envelope, "occurred_at")))))


def characters_of(event: Event) -> int:
    """The approximate size of an event in characters."""
    data, characters = event.get("data"), 0
    if isinstance(data, dict):
        # Called for every event of a finding's stream, and a generator takes three times as long.
        for value in data.values():
            if isinstance(value, str):
                characters += len(value)
    return characters


@dataclass(slots=True)
class KeptEvents:
    """Whole streams by aggregate, of one recheck at a time."""

    _streams: dict[str, list[Event]] = field(default_factory=dict)

    def passing(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events of a recheck, in order; those of an earlier one are dropped."""
        self._streams = {}
        number = characters = 0
        for key, stream in groupby(events, key=itemgetter("aggregate_id")):
            held: list[Event] = []
            whole = True
            for event in stream:
                yield event
                if whole:
                    held.append(event)
                    number += 1
                    characters += characters_of(event)
                    whole = number <= MOST_EVENTS and characters <= MOST_CHARACTERS and len(held) <= MOST_OF_A_STREAM
            if whole and type(key) is str:
                self._streams[key] = held

    def take(self, aggregate_id: str) -> list[Event] | None:
        """The whole stream of an aggregate, if the last recheck has it; only once."""
        return self._streams.pop(aggregate_id, None)
