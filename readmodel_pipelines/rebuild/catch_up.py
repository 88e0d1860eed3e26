"""Catch-up: what got events while a rebuild went on is reconciled again, until nothing is left to write.

The end is a pass that was drained to a moment after the last write, and wrote nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from pymongo.collection import Collection
from pymongo.database import Database

from readmodel_pipelines.lanes import Lanes, contested, noting
from readmodel_pipelines.mongo.deferred import DeferredInMemory
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import collection_of
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.mongo.shadow import sync_foreign
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.touched import EVENTS, Following, Touched
from readmodel_pipelines.reconcile.run import reconcile
from readmodel_pipelines.reconcile.summary import Counts, Summary
from readmodel_pipelines.settings import Settings

_SMALL_PASS_SECONDS = 0.5
_BETWEEN_PASSES_SECONDS = 0.2
_WRITES = ("inserted", "replaced", "deleted")


class CatchUp:
    """Reconciles touched aggregates in the live collections, or in those of `shadows`."""

    def __init__(
        self,
        database: Database[Document],
        settings: Settings,
        projections: Sequence[Projection],
        following: Following,
        touched: Touched,
        still_ours: Callable[[], None],
    ) -> None:
        self._database = database
        self._settings = settings
        self._projections = projections
        self._following = following
        self._touched = touched
        self._still_ours = still_ours
        self._store = EventStore(database[settings.events_collection])
        self.written = 0
        self.summary = Summary("rebuild", "")
        self.summary.read_models = {item.read_model: Counts() for item in projections}

    def until_nothing_is_written(self) -> str:
        """In the live collections; gives a warning when writers did not stand still in time, else nothing."""
        deadline = time.monotonic() + self._settings.catch_up_seconds
        while True:
            written = self.once({})
            if not written or self._following.lost:
                return ""
            if time.monotonic() > deadline:
                return (
                    f"Writers were still ahead of their read models after {self._settings.catch_up_seconds:g} s "
                    f"(READMODEL_CATCH_UP_SECONDS); {written:,} documents were mended in the last look. Verify later."
                )
            time.sleep(_BETWEEN_PASSES_SECONDS)

    def until_small(self, shadows: Mapping[str, str]) -> None:
        """In shadows, that nobody else writes: until what is left takes a moment."""
        while True:
            started = time.monotonic()
            written = self.once(shadows)
            if not written or time.monotonic() - started < _SMALL_PASS_SECONDS or self._following.lost:
                return

    def once(self, shadows: Mapping[str, str]) -> int:
        """Everything that was touched up to now; gives the number of documents written."""
        self._following.drain(shadows)
        before = self.written
        for ids in self._touched.batches(EVENTS):
            self._reconcile(ids, shadows)
        for item in self._projections if shadows else ():
            live, shadow = self._of(item, {}), self._of(item, shadows)
            for ids in self._touched.batches(item.read_model):
                sync_foreign(live, shadow, item, {"_id": {"$in": ids}})
        return self.written - before

    def _reconcile(self, ids: Sequence[str], shadows: Mapping[str, str]) -> None:
        self._still_ours()
        summary = Summary("rebuild", "", len(ids) * len(self._projections))
        summary.read_models = {item.read_model: Counts() for item in self._projections}
        opened = Lanes(
            self._database,
            self._settings,
            self._projections,
            self._store,
            counts=summary.read_models,
            contested=contested(self._store, self._projections, ids),
            collections=shadows,
        )
        sinks = [opened.in_place(lane, summary, DeferredInMemory(), self._still_ours) for lane in opened.lanes]
        for lane, sink in zip(opened.lanes, sinks, strict=True):
            lane.emit = noting(lane, summary, sink.take)
        reconcile(opened.store, opened.lanes, self._settings.allow_malformed, sorted(ids))
        for lane, sink in zip(opened.lanes, sinks, strict=True):
            sink.finish()
            self.written += sum(getattr(lane.counts, name) for name in _WRITES)
            if shadows and lane.counts.inserted:
                live = self._of(lane.projection, {})
                shadow = self._of(lane.projection, shadows)
                sync_foreign(live, shadow, lane.projection, {lane.projection.key: {"$in": list(ids)}})
        for finding in summary.findings:
            if finding.failed:
                self.summary.read_models[finding.read_model].failed += 1
                self.summary.findings.append(finding)

    def _of(self, projection: Projection, shadows: Mapping[str, str]) -> Collection[Document]:
        return self._database[shadows.get(projection.read_model) or collection_of(self._settings, projection)]
