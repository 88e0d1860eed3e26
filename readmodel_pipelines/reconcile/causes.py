"""Determines the causes of findings, by walking their streams once more.

The pass gives the events that it has just read, and the recheck those that it read. Other streams are read in batches
and held one at a time; a long one is read again for each walk. Findings and events are limited; findings beyond the
limit are counted and have no cause.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.cause import Cause, with_times
from readmodel_pipelines.reconcile.diagnosis import Stream, at_once, cause_of
from readmodel_pipelines.reconcile.finding import Finding, finding_of
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


@dataclass(frozen=True, slots=True)
class Explained:
    """Findings with their causes, and for each the events walked to find it, 0 if that needed none.

    `not_looked_for` is the number of findings left without a cause by the limit.
    """

    findings: Sequence[Finding]
    walked: Sequence[int]
    not_looked_for: int


@dataclass(slots=True)
class Budget:
    """The remaining budget of findings and events, and the number of findings left without a cause."""

    findings: int
    events: int
    not_looked_for: int = 0

    @classmethod
    def of(cls, findings: int) -> "Budget":
        """The budget for so many findings."""
        return cls(findings, findings * EVENTS_FOR_EACH)

    def charge(self, explained: Explained) -> None:
        """Take what a worker used. It did not know what others used, so the last causes may be beyond the limit."""
        self.not_looked_for += explained.not_looked_for
        for finding, walked in zip(explained.findings, explained.walked, strict=True):
            if walked and self.take():
                self.events -= walked
            elif walked:
                finding.cause = None

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
        self.budget = budget
        self._kept = kept or KeptEvents()
        self._fold: Fold[Any] = dated(projection).fold
        self._made: set[str] | None = None

    def explain(self, verdicts: Sequence[Verdict]) -> Explained:
        """The findings for these verdicts, with causes; without one for malformed streams, for documents that are right
        now, and beyond the limit.
        """
        before = self.budget.not_looked_for
        found = [finding_of(self._projection.read_model, verdict) for verdict in verdicts]
        walked = [0] * len(found)
        causes = [None if verdict.cause is not None else at_once(verdict) for verdict in verdicts]
        places = {
            verdict.aggregate_id: place
            for place, verdict in enumerate(verdicts)
            if causes[place] is None and verdict.outcome in _STREAMS and is_plain(verdict.aggregate_id)
            if self.budget.take()
        }
        left = len(places)
        for place, cause, number in self._found(verdicts, places):
            causes[place], walked[place] = cause, number
            left -= 1
            self.budget.events -= number
            if self.budget.events < 1:
                self.budget.not_looked_for += left
                break
        if "occurred_at" not in self._projection.fold.envelope:
            self._date(causes, {key: place for key, place in places.items() if verdicts[place].cause is not None})
        for finding, cause in zip(found, causes, strict=True):
            finding.cause = cause
        return Explained(found, walked, self.budget.not_looked_for - before)

    def beforehand(self, verdict: Verdict, events: Sequence[Event]) -> None:
        """Find the cause of a verdict while the events that it comes from are held. It has no times of events yet."""
        is_whole = bool(events) and events[-1].get("version") == verdict.version
        if is_whole and self.budget.findings > 0 and self.budget.events > 0 and at_once(verdict) is None:
            verdict.cause, verdict.walked = self._cause(verdict, lambda: events, intact=events)

    def _found(self, verdicts: Sequence[Verdict], places: Mapping[str, int]) -> Iterator[tuple[int, Cause | None, int]]:
        """Place, cause and events walked; first of those that need no read."""
        ids = []
        for key, place in places.items():
            if verdicts[place].cause is not None:
                yield place, verdicts[place].cause, verdicts[place].walked
            else:
                ids.append(key)
        unread = []
        for key in sorted(ids):
            if held := self._kept.take(key):
                yield places[key], *self._cause(verdicts[places[key]], lambda held=held: held, intact=held)  # type: ignore[misc]
            else:
                unread.append(key)
        wanted = frozenset(unread)
        for key, events in groupby(self._store.read(self._fold, unread) if unread else (), itemgetter("aggregate_id")):
            if type(key) is str and key in wanted:
                yield places[key], *self._cause(verdicts[places[key]], self._again_and_again(key, events))

    def _again_and_again(self, key: str, events: Iterator[Event]) -> Callable[[], Iterable[Event]]:
        held = list(_as_many_as_fit(events))
        following = list(islice(events, 1))
        if not following:
            return lambda: held
        first: list[Iterable[Event]] = [chain(held, following, events)]

        def read() -> Iterable[Event]:
            return first.pop() if first else self._store.read(self._fold, [key])

        return read

    def _cause(
        self, verdict: Verdict, events: Callable[[], Iterable[Event]], intact: Sequence[Event] | None = None
    ) -> tuple[Cause | None, int]:
        """The cause, and the number of events walked to find it; those of large documents count as several."""
        walked = 0

        def counted() -> Iterable[Event]:
            nonlocal walked
            if intact is not None:
                walked += len(intact)
                return intact
            return one_by_one()

        def one_by_one() -> Iterator[Event]:
            nonlocal walked
            for event in events():
                walked += 1
                yield event

        stream = Stream(self._projection, verdict.aggregate_id, counted, self._allowed, self._is_made, intact)
        cause = cause_of(verdict, stream)
        return cause, max(walked, len(intact or ())) * (1 + verdict.size // _WEIGHT)

    def _date(self, causes: list[Cause | None], places: Mapping[str, int]) -> None:
        """Complete the causes at these places with the times of events, which the pass did not read."""
        found = {key: cause for key, place in places.items() if (cause := causes[place])}
        naming = {key: cause for key, cause in found.items() if cause.lost or cause.one_of}
        times: Fold[Any] = replace(self._fold, events={}, envelope=("occurred_at",))
        read = self._store.read(times, sorted(naming)) if naming else ()
        for key, events in groupby(read, itemgetter("aggregate_id")):
            if type(key) is str:
                causes[places[key]] = with_times(naming[key], events)

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
