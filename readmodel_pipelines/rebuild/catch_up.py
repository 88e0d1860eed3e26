"""Catch-up: what got events while a rebuild went on is reconciled again, until nothing is left to write.

The end is a pass that was drained to a moment after the last write, and wrote nothing itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from readmodel_pipelines.bookkeeping.touched import EVENTS, Touched
from readmodel_pipelines.cutover.shadow import copy_by_id, sync_foreign
from readmodel_pipelines.lanes import Lanes, contested, noting
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import Collection, Database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.scan import Document, string_keys
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.following import Following
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.run import reconcile
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings

_SMALL_PASS_SECONDS = 0.5
_BETWEEN_PASSES_SECONDS = 0.2
_MOST_MALFORMED = 10_000


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
        self._malformed: dict[str, set[str]] = {item.read_model: set() for item in projections}
        self.summary = Summary("rebuild", "")
        self.summary.read_models = {item.read_model: Counts() for item in projections}

    def until_nothing_is_written(self) -> str:
        """In the live collections; gives a warning when writers did not stand still in time, else nothing.

        Raises:
            HistoryLost: it is not known what was touched.
        """
        deadline = time.monotonic() + self._settings.catch_up_seconds
        while True:
            written = self.once({})
            if self._following.lost:
                raise HistoryLost(self._following.lost)
            if not written:
                return ""
            if time.monotonic() > deadline:
                return (
                    f"Writers were still ahead of their read models after {self._settings.catch_up_seconds:g} s "
                    f"(READMODEL_CATCH_UP_SECONDS); {written:,} documents were mended in the last look. Verify later."
                )
            time.sleep(_BETWEEN_PASSES_SECONDS)

    def until_small(self, shadows: Mapping[str, str]) -> None:
        """In shadows, that nobody else writes: until what is left takes a moment, or does not become less."""
        before = math.inf
        while True:
            started = time.monotonic()
            written = self.once(shadows)
            took = time.monotonic() - started
            if not written or took < _SMALL_PASS_SECONDS or took > before / 2 or self._following.lost:
                return
            before = took

    def once(self, shadows: Mapping[str, str]) -> int:
        """Everything that was touched up to now; gives the number of documents written."""
        self._following.drain(shadows)
        before = self.written
        for ids in self._touched.batches(EVENTS):
            self._reconcile(ids, shadows)
        for item in self._projections if shadows else ():
            # Its writer may have been late: documents of malformed streams are carried over once more.
            self.carry(item, shadows, sorted(self._malformed[item.read_model]))
        for item in self._projections if shadows else ():
            self._sync(item, shadows)
        return self.written - before

    def foreign_once(self, projection: Projection, shadows: Mapping[str, str]) -> None:
        """The foreign fields of one read model that were changed up to now."""
        self._following.drain([projection.read_model])
        self._sync(projection, shadows)

    def _sync(self, projection: Projection, shadows: Mapping[str, str]) -> None:
        live, shadow = self._of(projection, {}), self._of(projection, shadows)
        for ids in self._touched.batches(projection.read_model):
            sync_foreign(live, shadow, projection, {"_id": {"$in": ids}})

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
        sinks = [InPlace(opened.again(lane), summary, self._still_ours) for lane in opened.lanes]
        for lane, sink in zip(opened.lanes, sinks, strict=True):
            lane.emit = noting(lane, summary, sink.accept)
        reconcile(opened.store, opened.lanes, self._settings.allow_malformed, sorted(ids))
        for lane, sink in zip(opened.lanes, sinks, strict=True):
            sink.finish()
            self.written += lane.counts.written
            if shadows and lane.counts.inserted:
                live = self._of(lane.projection, {})
                shadow = self._of(lane.projection, shadows)
                sync_foreign(live, shadow, lane.projection, {lane.projection.key: {"$in": list(ids)}})
        for finding in summary.findings:
            if finding.outcome is Outcome.MALFORMED and len(self._malformed[finding.read_model]) < _MOST_MALFORMED:
                self._malformed[finding.read_model].add(finding.aggregate_id)
            if finding.failed:
                self.summary.read_models[finding.read_model].failed += 1
                self.summary.findings.append(finding)

    def carry(self, projection: Projection, shadows: Mapping[str, str], ids: Sequence[str]) -> None:
        """Documents of malformed streams are in a shadow what they are in the live collection now."""
        if not ids:
            return
        live, shadow = self._of(projection, {}), self._of(projection, shadows)
        these = string_keys(projection.key, ids)
        there = [item["_id"] for item in live.find(these, {"_id": 1})]
        # One of another `_id` would stand in the way of the unique key.
        shadow.delete_many({**these, "_id": {"$nin": there}})
        copy_by_id(live, shadow, there)

    def _of(self, projection: Projection, shadows: Mapping[str, str]) -> Collection[Document]:
        return self._database[shadows.get(projection.read_model) or collection_of(self._settings, projection)]
