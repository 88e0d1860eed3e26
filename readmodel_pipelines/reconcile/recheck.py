"""Compares some aggregates of one read model again, from their events on. Counts nothing."""

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
from readmodel_pipelines.reconcile.stored import Stored

_BLAME_NO_EVENT = (Reason.DOCUMENT_TOO_LARGE, Reason.KEY_CONFLICT)


@dataclass(frozen=True, slots=True)
class Recheck:
    """Compares a batch of aggregates; `store` is its own, because it counts the events that it reads.

    If the lane knows only the contested claims of some aggregates, `claims_of` reads those of others. Events read by
    `verdicts` are left in `kept`.
    """

    store: EventStore
    lane: Lane
    allowed: Collection[str] = ()
    claims_of: Callable[[Sequence[str]], Mapping[str, Malformed]] | None = None
    kept: KeptEvents | None = None

    def knowing_claims_of(self, ids: Sequence[str]) -> Recheck:
        """The same, for other aggregates too: those that block the requested ones may be contested as well."""
        if self.claims_of is None or not ids:
            return self
        return replace(self, lane=replace(self.lane, contested={**self.lane.contested, **self.claims_of(ids)}))

    def verdicts(self, ids: Collection[str]) -> list[Verdict]:
        """The current verdicts of these aggregates, without the `same` ones."""
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

    def standing(self, seen: Sequence[Verdict], seconds: float) -> tuple[list[Verdict], Mapping[str, int]]:
        """The verdicts that still hold: neither the document nor the end of the stream has changed since. And `young`.

        Each has its expected document, at the version of its stream. Reads no event, because a stream only grows at its
        end. Documents are read first, so that none is newer than its stream.
        """
        ids = sorted({verdict.aggregate_id for verdict in seen})
        reached(Moment.COMPARISON_AGAIN, ids=ids)
        documents: dict[str, list[Stored]] = defaultdict(list)
        for document in self.lane.model.stored_of(ids):
            documents[document.key].append(document)
        last, young = self.store.ends(self.lane.projection.fold, ids, seconds)
        for verdict in seen:
            verdict.last_version = last.get(verdict.aggregate_id)
        standing = [
            verdict
            for verdict in seen
            if verdict.last_version == verdict.version and _is_as_seen(documents[verdict.aggregate_id], verdict)
        ]
        return standing, young

    def blame(self, verdict: Verdict) -> Malformed | None:
        """The reason why the stream is malformed, with the offending event, which a full pass does not read."""
        why = verdict.malformed
        if why is None or why.event_id is not None or why.reason in _BLAME_NO_EVENT:
            return why
        if not is_plain(verdict.aggregate_id):
            return why
        return next((item.malformed for item in self.verdicts([verdict.aggregate_id]) if item.malformed), why)

    def odd_orphans(self, documents: Iterable[Document]) -> Iterable[Verdict]:
        """Those of the documents with an odd key that have no event."""
        return odd_orphans(self.store, self.lane, documents)

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The current last versions of these streams."""
        return self.store.last_versions(ids)

    def young(self, ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        """For those of the streams with events of the last seconds, the first such version."""
        return self.store.young(self.lane.projection.fold, ids, seconds)

    def behind(self, since: Mapping[str, int]) -> set[str]:
        """The aggregates whose document equals the fold of its stream at some version.

        The version is the one in `since`, or a later one.
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


def _is_as_seen(there: Sequence[Stored], seen: Verdict) -> bool:
    if len(there) != 1 or seen.actual is None:
        return not there and seen.actual is None
    return there[0].raw == seen.raw or same_value(there[0].document, seen.actual)


def is_of_a_prefix(
    projection: Projection,
    aggregate_id: str,
    events: Iterable[Event],
    document: Document | None,
    since: int,
    allowed: Collection[str] = (),
) -> bool:
    """Whether `document` (None if there is none) equals the fold at some version from `since` on.

    `events` are the whole stream, read after the document. At version 0, before its first event, there is no document.
    A malformed stream has no such version.
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
            # This beginning has no document; the whole stream may have one.
            return False

    return not isinstance(walk(events, projection.fold, after, allowed), Malformed) and found
