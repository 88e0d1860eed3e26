"""A second look at some aggregates of one read model: what they are now, from their events on. Counts nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Malformed, Reason, State
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import same_document, same_value
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.kept_events import KeptEvents, dated
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.replay import walk
from readmodel_pipelines.reconcile.run import odd_orphans, reconcile

_BLAME_NO_EVENT = (Reason.DOCUMENT_TOO_LARGE, Reason.KEY_CONFLICT)


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Looks at a batch of aggregates at most; `store` is one of its own, for it counts the events that it reads.

    Where the lane knows the contested claims of some aggregates alone, `claims_of` looks up those of others. What is
    read for `verdicts` is left in `kept`.
    """

    store: EventStore
    lane: Lane
    allowed: Collection[str] = ()
    claims_of: Callable[[Sequence[str]], Mapping[str, Malformed]] | None = None
    kept: KeptEvents | None = None

    def knowing_claims_of(self, ids: Sequence[str]) -> SecondLook:
        """The same, for aggregates that nobody asked for: whoever stands in the way of those may be contested, too."""
        if self.claims_of is None or not ids:
            return self
        return replace(self, lane=replace(self.lane, contested={**self.lane.contested, **self.claims_of(ids)}))

    def verdicts(self, ids: Collection[str]) -> list[Verdict]:
        """What these aggregates are now; those that are `same` are left out."""
        verdicts: list[Verdict] = []
        if ids:
            reached(Moment.COMPARISON_AGAIN, ids=ids)
            lane = replace(self.lane, counts=Counts(), emit=verdicts.append, keep=None)
            if self.kept is None:
                reconcile(self.store, [lane], self.allowed, sorted(set(ids)))
            else:
                lane = replace(lane, projection=dated(lane.projection))
                reconcile(self.store, [lane], self.allowed, sorted(set(ids)), passing=self.kept.passing)
        return verdicts

    def standing(self, seen: Sequence[Verdict]) -> list[Verdict]:
        """Those of these verdicts that stand: neither the document nor the end of the stream have changed since.

        Each has what is expected, at the version of its stream. Reads no event: a stream only grows at its end. The
        documents come first, so that none is newer than its stream.
        """
        ids, key = sorted({verdict.aggregate_id for verdict in seen}), self.lane.projection.key
        reached(Moment.COMPARISON_AGAIN, ids=ids)
        documents: dict[str, list[Document]] = defaultdict(list)
        for document in self.lane.model.read(ids):
            documents[document[key]].append(document)
        last = self.store.last_versions(ids)
        return [
            verdict
            for verdict in seen
            if last.get(verdict.aggregate_id) == verdict.version
            and same_value(documents[verdict.aggregate_id], [] if verdict.actual is None else [verdict.actual])
        ]

    def blame(self, verdict: Verdict) -> Malformed | None:
        """Why the stream is malformed, with the event that is to blame, which a look at everything does not read."""
        why = verdict.malformed
        if why is None or why.event_id is not None or why.reason in _BLAME_NO_EVENT:
            return why
        if not is_plain(verdict.aggregate_id):
            return why
        return next((item.malformed for item in self.verdicts([verdict.aggregate_id]) if item.malformed), why)

    def odd_orphans(self, documents: Iterable[Document]) -> Iterable[Verdict]:
        """Those of the documents with an odd key that no event belongs to."""
        return odd_orphans(self.store, self.lane, documents)

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """How far these streams are now."""
        return self.store.last_versions(ids)

    def young(self, ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        """The first version written within the last seconds, of those of the streams that have one."""
        return self.store.young(self.lane.projection.fold, ids, seconds)

    def behind(self, since: Mapping[str, int]) -> set[str]:
        """Those of the aggregates whose document is a moment behind: what their stream folds to at some version.

        Each at the version that `since` gives for it, or a later one.
        """
        if not since:
            return set()
        projection, ids = self.lane.projection, sorted(since)
        documents = {document[projection.key]: document for document in self.lane.model.read(ids)}
        streams = groupby(self.store.read(projection.fold, ids), key=itemgetter("aggregate_id"))
        return {
            key
            for key, events in streams
            if is_of_a_prefix(projection, key, events, documents.get(key), since[key], self.allowed)
        }


def is_of_a_prefix(
    projection: Projection,
    aggregate_id: str,
    events: Iterable[Event],
    document: Document | None,
    since: int,
    allowed: Collection[str] = (),
) -> bool:
    """Whether `document` (None where there is none) is what the stream folds to at some version from `since` on.

    `events` are the whole stream, read after the document. At version 0, before its first event, there is no document.
    A malformed stream has no such prefix.
    """
    found = since < 1 and document is None

    def after(_: Event, state: State) -> None:
        nonlocal found
        found = found or is_wanted(state)

    def is_wanted(state: State) -> bool:
        try:
            if state.version < since or not state.created:
                return False
            expected = projection.document(aggregate_id, state)
            return expected is document if expected is None or document is None else same_document(expected, document)
        except FAULTS:
            # There is no document of this beginning; of the whole stream there may be one.
            return False

    return not isinstance(walk(events, projection.fold, after, allowed), Malformed) and found
