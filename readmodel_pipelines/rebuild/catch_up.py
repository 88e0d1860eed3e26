"""Catch-up: aggregates touched during a rebuild are recorded, then compared again until nothing differs.

A rebuild follows the change streams from before its first read. They report aggregates with new events, and documents
with changed foreign fields. The touched keys are stored on the server, so neither memory nor the oplog limits the
duration. The token is written after the keys that it covers, so a crash repeats work but skips none. The catch-up ends
with a round that covers all changes up to a moment after the last write, and writes nothing.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, Touched
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.cutover.foreign import ForeignFollower
from readmodel_pipelines.cutover.shadow import copy_by_id, delete_from, sync_foreign
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.lanes import OpenedPass, contested, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import Follower, HistoryLost, time_of_server
from readmodel_pipelines.mongo.driver import PyMongoError
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.scan import found, string_keys, with_ids
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.deletions import KEYS_AT_ONCE
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.side_by_side import side_by_side

_SMALL_PASS_SECONDS = 0.5
_BETWEEN_PASSES_SECONDS = 0.2
_MOST_MALFORMED = 10_000
_SOON_SECONDS = 0.5
_LATER_SECONDS = 8.0
_NOTE_SECONDS = 1.0


class Following:
    """Follows events, and the foreign fields of the `live` collections, in the background and on demand.

    When the history is lost, `lost` has the reason, and everything must be compared again. Without change streams it is
    lost from the start, until a second pass was done. `touched` holds the recorded keys.
    """

    def __init__(self, store: Store, rebuild: RebuildRecord) -> None:
        self._rebuild = rebuild
        self._database = store.database
        self._rebuilds = Rebuilds(store.database)
        self.touched = Touched(store.database, rebuild.owner(), rebuild.runs)
        self._lock = threading.Lock()
        self.lost = rebuild.no_history if rebuild.first_pass else ""
        self._failed: Exception | None = None
        self._events: Follower | None = None
        self._noted_at = time.monotonic()
        self.foreign: dict[str, ForeignFollower] = {}
        stored_as = [spelling for item in store.projections for spelling in item.fold.stored_as]
        try:
            opened: dict[str, Callable[[], Any]] = {}
            if rebuild.token:
                opened[EVENTS] = partial(Follower, store.events, stored_as, rebuild.token)
            for item in store.projections:
                if token := rebuild.live_tokens.get(item.read_model):
                    opened[item.read_model] = partial(ForeignFollower, store.live(item), item, token)
            followers: dict[str, Any] = dict(zip(opened, side_by_side(*opened.values()), strict=True)) if opened else {}
            self._events = followers.pop(EVENTS, None)
            self.foreign = followers
        except HistoryLost as error:
            self.lost = str(error)

    @contextmanager
    def in_background(self) -> Iterator[threading.Thread]:
        """Follow changes during a long operation, so that the oplog does not discard them unread."""
        stop = threading.Event()
        thread = threading.Thread(target=self._follow, args=[stop], name="following events", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join()

    def close(self) -> None:
        """Close all streams."""
        for follower in (self._events, *self.foreign.values()):
            if follower is not None:
                follower.close()

    def drain(self, foreign: Collection[str]) -> bool:
        """Record everything touched until now: aggregates, and foreign fields of these read models.

        Changes of a read model that is already cut over stay in the stream, which is their only record. Returns whether
        there was any change. Raises errors of the background thread.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            try:
                return self._drain(foreign)
            except HistoryLost as error:
                self.lost = str(error)
                return False

    def _drain(self, foreign: Collection[str]) -> bool:
        if self.lost:
            return False
        came = False
        followed: dict[str, Follower | ForeignFollower] = {EVENTS: self._events} if self._events else {}
        followed |= {name: self.foreign[name] for name in foreign}
        tokens = {}
        # One moment for all, so that each stream is past it afterwards.
        now = time_of_server(self._database) if followed else None
        if followed:
            side_by_side(*(follower.ask for follower in followed.values()))
        for kind, follower in followed.items():
            for ids in follower.drain(now):
                came = came or bool(ids)
                self.touched.add(kind, ids)
                self._noted_at = 0.0 if ids else self._noted_at
            tokens["token" if kind == EVENTS else f"live_tokens.{kind}"] = follower.token
            reached(Moment.DRAINED)
        # Without a change the token is not saved; after a crash the same empty history is read again.
        if tokens and time.monotonic() - self._noted_at >= _NOTE_SECONDS:
            self._rebuilds.note(self._rebuild, **tokens)
            self._noted_at = time.monotonic()
        return came

    def _follow(self, stop: threading.Event) -> None:
        # Without changes the oplog does not discard any.
        wait = _SOON_SECONDS
        while not stop.wait(wait) and not self.lost:
            try:
                wait = _SOON_SECONDS if self.drain(self.foreign) else min(2 * wait, _LATER_SECONDS)
            except PyMongoError:
                # The next read, at the latest the last one, reports the error.
                continue
            except Exception as error:  # noqa: BLE001 - the next read raises it
                self._failed = error
                return


@dataclass
class CatchUp:
    """Reconciles touched aggregates in the live collections, or in the `shadows` of read models that have one."""

    store: Store
    following: Following
    still_ours: Callable[[], None]
    written: int = 0

    def __post_init__(self) -> None:
        self._events = EventStore(self.store.events)
        self._malformed: dict[str, set[str]] = {item.read_model: set() for item in self.store.projections}
        self.summary = Summary("rebuild", "", read_models=counts_of(self.store.projections))

    def until_nothing_is_written(self) -> str:
        """Catch up in the live collections; returns a warning if writers stay ahead for too long, else an empty text.

        Raises:
            HistoryLost: the touched aggregates are unknown.
        """
        deadline = time.monotonic() + self.store.settings.catch_up_seconds
        while True:
            written = self.once(NO_SHADOWS)
            if self.following.lost:
                raise HistoryLost(self.following.lost)
            if not written:
                return ""
            if time.monotonic() > deadline:
                return (
                    f"Writers were still ahead of their read models after {self.store.settings.catch_up_seconds:g} s "
                    f"(READMODEL_CATCH_UP_SECONDS). The last round still wrote {written:,} documents. Verify later."
                )
            time.sleep(_BETWEEN_PASSES_SECONDS)

    def until_small(self, shadows: Shadows) -> None:
        """Catch up in shadows, which nobody else writes, until the rest is small or no longer shrinks."""
        before = math.inf
        while True:
            started = time.monotonic()
            written = self.once(shadows)
            took = time.monotonic() - started
            if not written or took < _SMALL_PASS_SECONDS or took > before / 2 or self.following.lost:
                return
            before = took

    def once(self, shadows: Shadows) -> int:
        """Reconcile everything touched until now; returns the number of documents written."""
        self.following.drain(shadows)
        before = self.written
        for ids in self.following.touched.batches(EVENTS):
            self._reconcile(ids, shadows)
        for item in [item for item in self.store.projections if item.read_model in shadows]:
            # The writer may have been late, so documents of malformed streams are copied once more.
            self.carry(item, shadows, sorted(self._malformed[item.read_model]))
            self._sync(item, shadows)
        return self.written - before

    def reconcile(self, ids: Sequence[str], shadows: Shadows) -> None:
        """Reconcile these aggregates, whether touched or not."""
        for some in batched(ids, KEYS_AT_ONCE):
            self._reconcile(some, shadows)

    def foreign_once(self, projection: Projection, shadows: Shadows) -> None:
        """Copy the foreign fields of one read model that changed until now."""
        self.following.drain([projection.read_model])
        self._sync(projection, shadows)

    def _sync(self, projection: Projection, shadows: Shadows) -> None:
        """Copy foreign fields; a new live document is created with them, because nothing would look for them again.

        Its events may be caught up with only after the cut-over.
        """
        for ids in self.following.touched.batches(projection.read_model):
            if new := self._new(projection, shadows, ids):
                self._reconcile(new, shadows)
            self._sync_foreign(projection, shadows, with_ids(ids))

    def _new(self, projection: Projection, shadows: Shadows, ids: Sequence[Any]) -> list[str]:
        """The keys of those live documents that the shadow lacks."""
        key, fields = projection.key, {projection.key: 1}
        there = found(self.store.live(projection), with_ids(ids), fields)
        keys = {item[key] for item in there if is_plain(item.get(key))}
        shadow = self.store.shadow(projection, shadows)
        return sorted(keys - {item[key] for item in found(shadow, string_keys(key, sorted(keys)), fields)})

    def _sync_foreign(self, projection: Projection, shadows: Shadows, where: Mapping[str, Any]) -> None:
        sync_foreign(self.store.live(projection), self.store.shadow(projection, shadows), projection, where)

    def _reconcile(self, ids: Sequence[str], shadows: Shadows) -> None:
        self.still_ours()
        projections = self.store.projections
        summary = Summary("rebuild", "", len(ids) * len(projections), read_models=counts_of(projections))
        claims = contested(self._events, projections, ids)
        opened = OpenedPass(
            self.store, summary.read_models, claims, shadows=shadows, events=self._events, claims_of_some=True
        )
        sinks = opened.into(lambda lane: InPlace(opened.again(lane), summary, self.still_ours), summary)
        opened.reconcile(sorted(set(ids)))
        for lane, sink in zip(opened.lanes, sinks, strict=True):
            sink.finish()
            self.written += lane.counts.written
            if lane.projection.read_model in shadows and lane.counts.inserted:
                self._sync_foreign(lane.projection, shadows, {lane.projection.key: {"$in": list(ids)}})
        for finding in summary.findings:
            if finding.outcome is Outcome.MALFORMED and len(self._malformed[finding.read_model]) < _MOST_MALFORMED:
                self._malformed[finding.read_model].add(finding.aggregate_id)
            if finding.failed:
                self.summary.read_models[finding.read_model].failed += 1
                self.summary.findings.append(finding)

    def carry(self, projection: Projection, shadows: Shadows, ids: Sequence[str]) -> None:
        """Copy the live documents of malformed streams into the shadow as they are now."""
        if not ids:
            return
        live, shadow = self.store.live(projection), self.store.shadow(projection, shadows)
        these = string_keys(projection.key, ids)
        there = [item["_id"] for item in found(live, these, {"_id": 1})]
        # A document with another `_id` would violate the unique key.
        delete_from(shadow, {**these, "_id": {"$nin": there}})
        copy_by_id(live, shadow, there)
