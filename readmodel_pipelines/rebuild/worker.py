"""Rebuilds one range, in this process or in a worker process, in place or in a shadow, batch by batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from readmodel_pipelines.bookkeeping.kept_keys import DeferredInMongo
from readmodel_pipelines.bookkeeping.leases import check_held
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange, RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.cutover.shadow import ShadowSink
from readmodel_pipelines.in_turn import InTurn
from readmodel_pipelines.lanes import Contested, OpenedPass, counts_of
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database, OperationFailure, round_trip_seconds
from readmodel_pipelines.mongo.failures import REPLACED
from readmodel_pipelines.mongo.patience import of_the_same_collections, report_waits_to_parent
from readmodel_pipelines.mongo.spooling import NO_SPOOLS, Spools
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.pacing import BatchSize, RateLimit
from readmodel_pipelines.projections.registry import choose_projections
from readmodel_pipelines.rebuild.batches import Batches
from readmodel_pipelines.rebuild.request import RebuildRequest
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.deletions import Deletions
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import WRITES
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.side_by_side import side_by_side
from readmodel_pipelines.speed_limits import Pace, WindowClosed, pace_of
from readmodel_pipelines.workers.pool import Send

_ROUND_TRIPS = 12
"""Approximate number of round trips of a batch, for rechecks, writes, lease and progress."""

_Done = tuple[Summary, bool]
"""The result of a range in this run, and whether the window closed before its end."""


@dataclass(frozen=True, slots=True)
class Job:
    """The common values of all ranges of a rebuild; `nonces` are those of its leases, `shadows` its new collections.

    `share` is this worker's part of the rate limits. Spooled events are read from `spools`; their reads are already
    counted.
    """

    settings: Settings
    record: RebuildRecord
    request: RebuildRequest
    nonces: Mapping[str, str]
    shadows: Shadows
    contested: Contested
    share: float
    spools: Spools = NO_SPOOLS

    @property
    def builds(self) -> bool:
        """Whether the rebuild makes new collections, and does not write in place."""
        return self.record.in_shadow and self.record.first_pass


@contextmanager
def range_worker(job: Job, here: Database | None = None) -> Iterator[Callable[[RebuildRange, Send], _Done]]:
    """Open everything that a worker needs; a `readmodel_pipelines.workers.pool.Work`."""
    role = "shadow" if job.record.in_shadow else "rebuild"
    opened = open_database(job.settings, role, met=True) if here is None else nullcontext(here)
    with opened as database, calm_collector():
        projections = choose_projections(job.settings, job.record.names)
        if job.record.in_shadow:
            # A read model may be left out.
            projections = tuple(item for item in projections if item.read_model in job.shadows)
        store = Store(database, job.settings, projections)
        still_ours = check_held(database, job.nonces, job.settings.lease_seconds)
        pace = pace_of(job.settings, database, job.share, job.request.off_peak)
        if job.spools:
            pace.events = RateLimit(None)
        size = BatchSize(first=pace.first_batch, on_its_way=lambda: _ROUND_TRIPS * round_trip_seconds(database))
        do = _Worker(store, job, still_ours, pace, size).do
        yield do if here is not None else report_waits_to_parent(do)


def _one_by_one(*writes: Callable[[], object]) -> None:
    for write in writes:
        write()


@dataclass(frozen=True, slots=True)
class _Worker:
    store: Store
    job: Job
    still_ours: Callable[[], None]
    pace: Pace
    size: BatchSize

    def do(self, at: RebuildRange, send: Send) -> _Done:
        job = self.job
        summary = Summary("rebuild", "", job.request.max_findings, read_models=counts_of(self.store.projections))
        shadows = NO_SHADOWS if job.builds else job.shadows
        opened = OpenedPass(self.store, summary.read_models, job.contested, shadows=shadows, spools=job.spools)
        rebuilds = Rebuilds(self.store.database)

        def save(cursor: str | None, counts: Mapping[str, Mapping[str, int]], events: int, seconds: float) -> None:
            # A recheck of a shadow counts nothing, because the comparison with the live document is counted already.
            rebuilds.save(at, cursor, {} if shadows else counts, events, seconds)

        written = ("same", "inserted", "replaced") if job.builds else WRITES
        # Each shadow is another collection; in place an order is kept.
        write = side_by_side if job.builds else _one_by_one
        # A full batch of each lane, and the end of all.
        with InTurn(len(opened.lanes) + 1) as behind:
            sinks = opened.into(lambda lane: self._sink(opened, lane, summary, behind), summary)
            batches = Batches(
                opened.events, opened.lanes, sinks, save, self.pace, self.size, behind, send, write, written=written
            )
            try:
                self.pace.check_window()
                # A cut-over checks whether the live collection is the same; in place nothing else would detect it.
                with nullcontext() if job.builds else of_the_same_collections():
                    if at.rest.lower is None:
                        opened.reconcile_odd_ids()
                    opened.reconcile(within=at.rest, checkpoint=batches)
                    behind.wait()
            except WindowClosed:
                return summary, True
            except OperationFailure as error:
                # A slice cannot make the others begin again.
                if error.code != REPLACED or job.request.slice is not None:
                    raise
                raise HistoryLost("a collection that was read was dropped or replaced") from None
            batches.finish()
        if self.pace.load is not None and self.pace.load.warning:
            summary.warnings.append(self.pace.load.warning)
        return summary, False

    def _sink(self, opened: OpenedPass, lane: Lane, summary: Summary, behind: InTurn) -> InPlace | ShadowSink:
        live, record = self.store.live(lane.projection), self.job.record
        if self.job.builds:
            shadow = self.store.shadow(lane.projection, self.job.shadows)
            shared = self.job.request.slice is not None
            return ShadowSink(shadow, live, lane, summary, record.id, self.still_ours, behind, shared)
        # Deletions wait for the end of all ranges, where their limit is checked.
        deferred = DeferredInMongo(self.store.database, record.owner(live.name))
        return InPlace(opened.again(lane), summary, self.still_ours, Deletions.PUT_OFF, deferred, behind=behind)
