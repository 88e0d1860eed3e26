"""A second look at some aggregates of one read model: what they are now, from their events on. Counts nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.odd_ids import odd_orphans
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.ports import EventStore
from readmodel_pipelines.reconcile.prefix import is_of_a_prefix
from readmodel_pipelines.reconcile.run import Lane, reconcile


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Looks at a batch of aggregates at most; `store` is one of its own, for it counts the events that it reads."""

    store: EventStore
    lane: Lane
    allowed: Collection[str] = ()

    def verdicts(self, ids: Collection[str]) -> list[Verdict]:
        """What these aggregates are now; those that are `same` are left out."""
        verdicts: list[Verdict] = []
        if ids:
            reached(Moment.COMPARISON_AGAIN, ids=ids)
            lane = replace(self.lane, counts=Counts(), emit=verdicts.append, keep=None)
            reconcile(self.store, [lane], self.allowed, sorted(set(ids)))
        return verdicts

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
