"""One scrape: asks MongoDB for counts by index, single documents, estimates. No event is ever read.

All of a scrape together has a limit of time that the server knows, too: a scrape never hangs, and nothing works on
after Prometheus has given up. What is cheap comes first, so that a part that takes too long costs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from readmodel_pipelines.bookkeeping.findings import Findings
from readmodel_pipelines.bookkeeping.held_leases import leases_held
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import RangeProgress, Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.errors import raised
from readmodel_pipelines.metrics import catalogue as metric
from readmodel_pipelines.metrics.samples import (
    Ended,
    Sample,
    of_findings,
    of_leases,
    of_queue,
    of_rebuild,
    of_unfinished,
    of_verification,
)
from readmodel_pipelines.mongo.driver import PyMongoError, timeout
from readmodel_pipelines.mongo.scan import ODD_RECORD, Document
from readmodel_pipelines.mongo.server import server_time
from readmodel_pipelines.mongo.store import Store

_LONGEST_WHY = 200
_COVERAGES = {"any": False, "everything": True}
"""Of a verification: the last one, whatever it covered, or the last that compared all fields of all aggregates."""


class Scrape:
    """What there is to know, asked for within so many seconds, as `samples`.

    `parts` has a name for each part of it, and why that could not be read, empty when it could: it has no sample then.

    Raises:
        PyMongoError: MongoDB does not answer, or does not let us in.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._live = {item.read_model: store.live(item).name for item in store.projections}
        self._unfinished: dict[str, tuple[RebuildRecord, RangeProgress]] | None = None
        self._events: int | None = None
        self.samples: list[Sample] = []
        self.parts: dict[str, str] = {}
        parts = (self._rebuilds, self._verifications, self._leases, self._sizes, self._findings, self._queue)
        with timeout(seconds):
            server_time(store.database)
            for read in parts:
                self.parts[read.__name__.removeprefix("_")] = self._why_not(read)
        if self._unfinished is not None:
            for name in self._live:
                self.samples += of_unfinished((name,), self._unfinished.get(name), self._events)

    def _why_not(self, read: Callable[[], Iterator[Sample]]) -> str:
        try:
            self.samples += list(read())
        except PyMongoError as error:
            return str(error)[:_LONGEST_WHY]
        except ODD_RECORD as error:
            return f"a record has another form ({raised(error)})"[:_LONGEST_WHY]
        return ""

    def _rebuilds(self) -> Iterator[Sample]:
        records = Rebuilds(self._store.database)
        for name, live in self._live.items():
            record = records.last_done(live)
            # The counts come a moment after the end.
            if record is not None and record.ended_at is not None and name in record.counts:
                seconds = max(0.0, record.seconds - record.idle_seconds)
                yield from of_rebuild((name,), Ended(record.ended_at, seconds, record.events, record.counts[name]))
        unfinished: dict[str, tuple[RebuildRecord, RangeProgress]] = {}
        # The newest first: an older one would be dropped by whoever goes on with it.
        for record in records.unfinished(list(self._live.values())):
            found = record, records.progress_of(record)
            for name, live in self._live.items():
                if live in record.read_models:
                    unfinished.setdefault(name, found)
        self._unfinished = unfinished

    def _verifications(self) -> Iterator[Sample]:
        verifications = Verifications(self._store.database)
        for name in self._live:
            for coverage, of_everything in _COVERAGES.items():
                record = verifications.last_verification(name, of_everything=of_everything)
                if record is not None:
                    yield from of_verification((name, coverage), _verified(record))

    def _leases(self) -> Iterator[Sample]:
        yield from of_leases(leases_held(self._store.database), self._live)

    def _sizes(self) -> Iterator[Sample]:
        documents = self._store.sizes()
        self._events = self._store.events.estimated_document_count()
        yield metric.EVENTS, (), self._events
        for read_model, number in documents.items():
            yield metric.DOCUMENTS, (read_model,), number

    def _findings(self) -> Iterator[Sample]:
        remembered = Findings(self._store.database)
        for name in self._live:
            yield from of_findings(name, remembered.open_by_outcome(name), remembered.oldest_open(name))

    def _queue(self) -> Iterator[Sample]:
        yield from of_queue(RepairQueue(self._store.database, self._store.settings).stats())


def _verified(record: Document) -> Ended:
    started_at, seconds = record["started_at"], record["seconds"]
    # Records of earlier versions only tell how long it read.
    ended_at = record.get("ended_at") or started_at + timedelta(seconds=seconds)
    return Ended(ended_at, (ended_at - started_at).total_seconds(), record["events"], record["counts"])
