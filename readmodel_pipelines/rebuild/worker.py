"""The work on one range, in this process or in a worker's: rebuild it in place or in a shadow, or look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.bookkeeping.deferred import DeferredInMongo
from readmodel_pipelines.bookkeeping.leases import check_held
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.scratch import Owner
from readmodel_pipelines.cutover.shadow import ShadowSink
from readmodel_pipelines.lanes import Contested, Lanes, noting
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.pacing import BatchSize, RateLimit, Window
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.rebuild.batches import Batches, Pace, WindowClosed
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.counts import WRITES, Counts
from readmodel_pipelines.reconcile.deletions import Deletions
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.odd_ids import odd_orphans, reconcile_odd_ids
from readmodel_pipelines.reconcile.run import Lane, reconcile
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.workers.pool import Send


@dataclass(frozen=True, slots=True)
class Job:
    """What all ranges of a rebuild have in common.

    `read_models` are names of the registry, `shadows` the collections that are built, by read model; none in place.
    With `mend` shadows that are built already are reconciled in place. `nonces` are those of the leases. `share` of the
    rate limits is this worker's.
    """

    settings: Settings
    rebuild_id: str
    read_models: tuple[str, ...]
    nonces: Mapping[str, str]
    shadows: Mapping[str, str] = field(default_factory=dict)
    contested: Contested = field(default_factory=dict)
    mend: bool = False
    share: float = 1.0
    off_peak: bool = False
    max_findings: int = 0


@dataclass(frozen=True, slots=True)
class RangeDone:
    """What became of a range in this run; `stopped` when the window closed before its end."""

    summary: Summary
    stopped: bool = False


@contextmanager
def range_worker(
    job: Job, here: Database[Document] | None = None
) -> Iterator[Callable[[RebuildRange, Any], RangeDone]]:
    """Opens what a worker needs; a `readmodel_pipelines.workers.pool.Work`."""
    role = "shadow" if job.shadows else "rebuild"
    opened = open_database(job.settings, role) if here is None else nullcontext(here)
    with opened as database, calm_collector():
        still_ours = check_held(database, job.nonces, job.settings.lease_seconds)
        pace = pace_of(job, database)
        size = BatchSize()
        yield lambda at, send: _do(database, job, at, still_ours, pace, size, send)


def pace_of(job: Job, database: Database[Document]) -> Pace:
    """The pace that the settings ask for, as this worker's share of it."""
    settings = job.settings

    def limit(per_second: float | None) -> RateLimit:
        return RateLimit(None if per_second is None else per_second * job.share)

    load = Pressure(
        database, max_queued=settings.max_queued_operations, max_lag_seconds=settings.max_replication_lag_seconds
    )
    window = Window.parse(settings.off_peak_window, settings.timezone) if job.off_peak else None
    return Pace(limit(settings.max_events_per_second), limit(settings.max_documents_per_second), load, window)


def _do(
    database: Database[Document],
    job: Job,
    at: RebuildRange,
    still_ours: Callable[[], None],
    pace: Pace,
    size: BatchSize,
    send: Send,
) -> RangeDone:
    settings = job.settings
    summary = Summary("rebuild", "", job.max_findings)
    projections = [item for item in projections_for(settings) if item.name in job.read_models]
    summary.read_models = {item.read_model: Counts() for item in projections}
    opened = Lanes(
        database,
        settings,
        projections,
        counts=summary.read_models,
        contested=job.contested,
        collections=job.shadows if job.mend else {},
    )
    sinks = [_sink(database, job, opened, lane, summary, still_ours) for lane in opened.lanes]
    for lane, sink in zip(opened.lanes, sinks, strict=True):
        lane.emit = noting(lane, summary, sink.accept)
    rebuilds = Rebuilds(database)
    batches = Batches(
        opened.store,
        opened.lanes,
        sinks,
        lambda cursor, counts, events, seconds: _save(rebuilds, job, at, cursor, counts, events, seconds, send),
        pace,
        size,
        written=("same", "inserted", "replaced") if job.shadows and not job.mend else WRITES,
    )
    try:
        pace.check_window()
        if at.rest.lower is None:
            reconcile_odd_ids(opened.store, opened.lanes)
            for lane, sink in zip(opened.lanes, sinks, strict=True):
                if isinstance(sink, ShadowSink):
                    _carry_odd(opened, lane, sink)
        reconcile(opened.store, opened.lanes, settings.allow_malformed, within=at.rest, checkpoint=batches)
    except WindowClosed:
        return RangeDone(summary, stopped=True)
    batches.finish()
    if pace.load is not None and pace.load.warning:
        summary.warnings.append(pace.load.warning)
    return RangeDone(summary)


def _carry_odd(opened: Lanes, lane: Lane, sink: ShadowSink) -> None:
    """Documents whose key is no string, and which have events all the same, stay as they are."""
    orphans = {
        repr(item.actual["_id"]) for item in odd_orphans(opened.store, lane, lane.model.odd_documents()) if item.actual
    }
    for document in lane.model.odd_documents():
        if repr(document["_id"]) not in orphans:
            sink.carry(document)


def _save(
    rebuilds: Rebuilds,
    job: Job,
    at: RebuildRange,
    cursor: str | None,
    counts: Mapping[str, Mapping[str, int]],
    events: int,
    seconds: float,
    send: Send,
) -> None:
    # A second look at a shadow counts nothing: what it differs in from the live collection is counted already.
    rebuilds.save(at, cursor, {} if job.shadows and job.mend else counts, events, seconds)
    send(None)


def _sink(
    database: Database[Document],
    job: Job,
    opened: Lanes,
    lane: Lane,
    summary: Summary,
    still_ours: Callable[[], None],
) -> InPlace | ShadowSink:
    live = collection_of(job.settings, lane.projection)
    if job.shadows and not job.mend:
        shadow = database[job.shadows[lane.projection.read_model]]
        return ShadowSink(shadow, live, lane, summary, job.rebuild_id, still_ours)
    deferred = DeferredInMongo(database, Owner(live, job.rebuild_id))
    return InPlace(opened.again(lane), summary, still_ours, Deletions.PUT_OFF, deferred)
