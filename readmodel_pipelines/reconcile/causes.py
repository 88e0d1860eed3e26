"""Determines the causes of findings, with one more pass over the streams of these, in batches.

Streams are held one at a time, and a long one is read again for each walk. Findings and events are limited; findings
beyond the limit are counted and have no cause.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.cause import Cause
from readmodel_pipelines.reconcile.diagnosis import Stream, at_once, cause_of
from readmodel_pipelines.reconcile.kept_events import (
    MOST_CHARACTERS,
    MOST_OF_A_STREAM,
    KeptEvents,
    characters_of,
    dated,
)
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.replay import document_of, walk

EVENTS_FOR_EACH = 100
"""Maximum number of events read per finding; longer streams use the share of shorter ones."""

_WEIGHT = 4_096
"""A document with more bytes counts as several, because it is made again after each event."""
_SAMPLE = 200
_STREAMS = (Outcome.MISSING, Outcome.DIFFERENT, Outcome.UNEXPECTED)


@dataclass(slots=True)
class Budget:
    """The remaining budget of findings and events, and the number of findings left without a cause."""

    findings: int
    events: int = field(init=False)
    not_looked_for: int = 0

    def __post_init__(self) -> None:
        self.events = self.findings * EVENTS_FOR_EACH

    def take(self) -> bool:
        """Take one finding from the budget; returns whether there was one left."""
        if self.findings < 1 or self.events < 1:
            self.not_looked_for += 1
            return False
        self.findings -= 1
        return True


class Causes:
    """Determines the causes of verdicts of one read model, in batches."""

    def __init__(
        self,
        store: EventStore,
        projection: Projection,
        allowed: Collection[str],
        budget: Budget,
        kept: KeptEvents | None = None,
    ) -> None:
        self._store = store
        self._projection = projection
        self._allowed = allowed
        self._budget = budget
        self._kept = kept or KeptEvents()
        self._fold: Fold[Any] = dated(projection).fold
        self._made: set[str] | None = None

    def of(self, verdicts: Sequence[Verdict]) -> list[Cause | None]:
        """The cause of each verdict; None for malformed streams, for documents that are right now, and beyond the
        limit.
        """
        causes = [at_once(verdict) for verdict in verdicts]
        places = {
            verdict.aggregate_id: place
            for place, verdict in enumerate(verdicts)
            if causes[place] is None and verdict.outcome in _STREAMS and is_plain(verdict.aggregate_id)
            if self._budget.take()
        }
        if places:
            for stream in self._streams(sorted(places)):
                place = places.pop(stream.aggregate_id)
                causes[place] = cause_of(verdicts[place], self._weighed(stream, verdicts[place].size))
                if self._budget.events < 1:
                    self._budget.not_looked_for += len(places)
                    break
        return causes

    def _streams(self, ids: Sequence[str]) -> Iterator[Stream]:
        unread = []
        for key in ids:
            held = self._kept.take(key)
            if held:
                yield self._stream(key, lambda held=held: held)  # type: ignore[misc]
            else:
                unread.append(key)
        wanted = frozenset(unread)
        for key, events in groupby(self._store.read(self._fold, unread) if unread else (), itemgetter("aggregate_id")):
            if type(key) is str and key in wanted:
                yield self._stream(key, self._again_and_again(key, events))

    def _stream(self, key: str, events: Callable[[], Iterable[Event]]) -> Stream:
        return Stream(self._projection, key, events, self._allowed, self._is_made)

    def _again_and_again(self, key: str, events: Iterator[Event]) -> Callable[[], Iterable[Event]]:
        held = list(_as_many_as_fit(events))
        following = list(islice(events, 1))
        if not following:
            return lambda: held
        first: list[Iterable[Event]] = [chain(held, following, events)]

        def read() -> Iterable[Event]:
            return first.pop() if first else self._store.read(self._fold, [key])

        return read

    def _weighed(self, stream: Stream, size: int) -> Stream:
        """The stream; each event read is taken from the budget."""
        weight = 1 + size // _WEIGHT

        def counted() -> Iterator[Event]:
            number = 0
            try:
                for event in stream.events():
                    number += 1
                    yield event
            finally:
                self._budget.events -= number * weight

        return replace(stream, events=counted)

    def _is_made(self, name: str) -> bool:
        """Whether the projection makes a field in any state of some streams."""
        if self._made is None:
            made: set[str] = set()
            ids = sorted(set(self._store.sample(self._fold, _SAMPLE)))
            for key, events in groupby(self._store.read(self._fold, ids), key=itemgetter("aggregate_id")):

                def after(_: Event, state: Any, key: str = key) -> None:
                    document = document_of(self._projection, key, state)
                    made.update(document if isinstance(document, dict) else ())

                walk(events, self._projection.fold, after, self._allowed)
            self._made = made
        return name in self._made


def _as_many_as_fit(events: Iterator[Event]) -> Iterator[Event]:
    characters = 0
    for event in islice(events, MOST_OF_A_STREAM):
        yield event
        characters += characters_of(event)
        if characters > MOST_CHARACTERS:
            return
