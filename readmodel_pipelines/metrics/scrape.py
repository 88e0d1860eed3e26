"""One scrape: reads counts by index, single documents and estimates from MongoDB, and makes samples. Reads no event.

A scrape has one time limit, which the server knows too, so that nothing continues after Prometheus has given up. Cheap
parts come first, so that a slow part costs no other. Functions without a database turn the facts into samples; label
values come from closed sets, and zeros are included.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client.core import GaugeMetricFamily

from readmodel_pipelines.bookkeeping.held_leases import TakenLease, taken_leases
from readmodel_pipelines.bookkeeping.queue_stats import STATUSES, QueueStats
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import RangeProgress, Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS
from readmodel_pipelines.bookkeeping.verifications import Findings, Verifications
from readmodel_pipelines.errors import raised, words
from readmodel_pipelines.metrics.catalogue import METRICS
from readmodel_pipelines.mongo.driver import ODD_RECORD, Document, PyMongoError, server_time, timeout
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.rebuild_state import UNFINISHED
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.reconcile.outcome import ALARMS, WRITES, Outcome
from readmodel_pipelines.settings import Settings

Sample = tuple[str, tuple[str, ...], float]
"""(name of a metric in the catalogue, values of its labels, value)."""

_OTHER = "other"
_LONGEST_WHY = 200
_COVERAGES = {"any": False, "everything": True}
"""Of a verification: the last one of any coverage, or the last that compared all fields of all aggregates."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A verification or a full rebuild that ended; `counts` in the form of `Counts.as_dict`."""

    at: datetime
    seconds: float
    events: int
    counts: Mapping[str, int]


class Scrape:
    """The facts of a scrape, read within a number of seconds, as `samples`.

    `parts` has a name for each part, and the error if it could not be read, else an empty text; a failed part has no
    sample.

    Raises:
        PyMongoError: MongoDB does not answer, or refuses access.
    """

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._live = {item.read_model: store.live(item).name for item in store.projections}
        self._event_types = {item.read_model: sorted(item.fold.events) for item in store.projections}
        self._unfinished: dict[str, tuple[RebuildRecord, RangeProgress]] | None = None
        self._events: int | None = None
        self.samples: list[Sample] = []
        parts: dict[str, Callable[[], Iterator[Sample]]] = {
            "rebuilds": self._rebuilds,
            "verifications": self._verifications,
            "leases": lambda: of_leases(taken_leases(store.database), self._live),
            "sizes": self._sizes,
            "findings": self._findings,
            "queue": lambda: of_queue(RepairQueue(store.database, store.settings).stats()),
        }
        with timeout(seconds):
            server_time(store.database)
            self.parts = {name: self._why_not(read) for name, read in parts.items()}
        if self._unfinished is not None:
            for name in self._live:
                self.samples += of_unfinished(name, self._unfinished.get(name), self._events)

    def _why_not(self, read: Callable[[], Iterator[Sample]]) -> str:
        try:
            self.samples += list(read())
        except PyMongoError as error:
            return words(error)[:_LONGEST_WHY]
        except ODD_RECORD as error:
            return f"a record has another form ({raised(error)})"[:_LONGEST_WHY]
        return ""

    def _rebuilds(self) -> Iterator[Sample]:
        records = Rebuilds(self._store.database)
        for name, live in self._live.items():
            record = records.last_done(live)
            # The counts are written a moment after the end.
            if record is not None and record.ended_at is not None and name in record.counts:
                seconds = max(0.0, record.seconds - record.idle_seconds)
                yield from of_rebuild(name, Ended(record.ended_at, seconds, record.events, record.counts[name]))
        unfinished: dict[str, tuple[RebuildRecord, RangeProgress]] = {}
        # The newest first, because a resume drops an older one.
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
                    yield from of_verification(name, coverage, _verified(record))
                    # Records of earlier versions have none.
                    yield from of_causes(name, coverage, self._event_types[name], record.get("causes") or ())

    def _sizes(self) -> Iterator[Sample]:
        documents = self._store.sizes()
        self._events = self._store.events.estimated_document_count()
        yield "events", (), self._events
        for read_model, number in documents.items():
            yield "documents", (read_model,), number

    def _findings(self) -> Iterator[Sample]:
        remembered = Findings(self._store.database)
        for name in self._live:
            yield from of_findings(name, remembered.open_by_outcome(name), remembered.oldest_open(name))


def _verified(record: Document) -> Ended:
    started_at, seconds = record["started_at"], record["seconds"]
    # Records of earlier versions only have the time of reading.
    ended_at = record.get("ended_at") or started_at + timedelta(seconds=seconds)
    return Ended(ended_at, (ended_at - started_at).total_seconds(), record["events"], record["counts"])


def families(samples: Iterable[Sample]) -> Iterator[GaugeMetricFamily]:
    """The metrics with samples, in the catalogue's order."""
    found: dict[str, GaugeMetricFamily] = {}
    for name, labels, value in samples:
        found.setdefault(name, METRICS[name].family()).add_metric(labels, value)
    return (found[name] for name in METRICS if name in found)


def of_scrape(seconds: float, version: str, parts: Mapping[str, str] | None, settings: Settings) -> Iterator[Sample]:
    """The scrape itself; `parts` has the error of each part, and is None if MongoDB did not answer."""
    yield "up", (), float(parts is not None)
    yield "build_info", (version,), 1
    yield "scrape_duration_seconds", (), seconds
    if parts is None:
        return
    for part, why_not in parts.items():
        yield "scrape_collector_success", (part,), float(not why_not)
    yield "repair_queue_warning_tasks", (), settings.repair_queue_warning
    yield "repair_queue_limit_tasks", (), settings.repair_queue_limit


def of_queue(queue: QueueStats) -> Iterator[Sample]:
    """The repair queue."""
    for status in (*STATUSES, _OTHER):
        yield "repair_queue_tasks", (status,), getattr(queue, status)
    yield "repair_queue_due_tasks", (), queue.due
    yield "repair_queue_oldest_pending_age_seconds", (), queue.oldest_pending_seconds
    yield "repair_queue_repairs_per_second", (), queue.repairs_per_minute / 60
    # A dead letter written by hand may have any reason.
    letters = Counter(dict.fromkeys((*DEAD_LETTER_REASONS, _OTHER), 0))
    for reason, number in queue.dead_letters.items():
        letters[reason if reason in DEAD_LETTER_REASONS else _OTHER] += number
    for reason, number in letters.items():
        yield "repair_queue_dead_letters", (reason,), number


def of_findings(read_model: str, numbers: Mapping[str, int], oldest: Mapping[str, datetime]) -> Iterator[Sample]:
    """The open findings of a read model by outcome: their number, and the time of the oldest."""
    for outcome in ALARMS:
        yield "open_findings", (read_model, outcome.value), numbers.get(outcome.value, 0)
    for name, since in oldest.items():
        yield "open_findings_oldest_timestamp_seconds", (read_model, name), _seconds(since)


def of_verification(read_model: str, coverage: str, ended: Ended) -> Iterator[Sample]:
    """The last verification of a read model, of some coverage."""
    yield from _of_ended("last_verification", (read_model, coverage), ended)
    right = not any(ended.counts.get(item.value) for item in ALARMS)
    yield "last_verification_success", (read_model, coverage), float(right)


def of_causes(
    read_model: str, coverage: str, event_types: Sequence[str], causes: Sequence[Document]
) -> Iterator[Sample]:
    """The causes of a read model's findings in the last verification of some coverage."""
    kinds = Counter(dict.fromkeys(map(str, CauseKind), 0))
    types = Counter(dict.fromkeys((*event_types, _OTHER), 0))
    for cause in causes:
        if cause["kind"] in kinds:
            kinds[cause["kind"]] += cause["count"]
        if cause["event_type"] is not None:
            types[cause["event_type"] if cause["event_type"] in types else _OTHER] += cause["count"]
    for kind, number in kinds.items():
        yield "last_verification_causes", (read_model, coverage, kind), number
    for event_type, number in types.items():
        yield "last_verification_lost_updates", (read_model, coverage, event_type), number
    for end, choose in (("first", min), ("last", max)):
        if times := [cause[end] for cause in causes if cause[end] is not None]:
            yield (
                f"last_verification_lost_updates_{end}_timestamp_seconds",
                (read_model, coverage),
                _seconds(choose(times)),
            )


def of_rebuild(read_model: str, ended: Ended) -> Iterator[Sample]:
    """The last finished full rebuild of a read model."""
    yield from _of_ended("last_rebuild", (read_model,), ended)
    for operation in WRITES:
        yield "last_rebuild_writes", (read_model, operation), ended.counts.get(operation, 0)
    failed = ended.counts.get("failed", 0)
    yield "last_rebuild_failed_aggregates", (read_model,), failed
    yield "last_rebuild_success", (read_model,), float(not failed and not ended.counts.get(Outcome.MALFORMED.value))


def _of_ended(which: str, labels: tuple[str, ...], ended: Ended) -> Iterator[Sample]:
    yield f"{which}_end_timestamp_seconds", labels, _seconds(ended.at)
    yield f"{which}_duration_seconds", labels, ended.seconds
    yield f"{which}_events", labels, ended.events
    if ended.seconds > 0:
        yield f"{which}_events_per_second", labels, ended.events / ended.seconds
    for outcome in Outcome:
        yield f"{which}_aggregates", (*labels, outcome.value), ended.counts.get(outcome.value, 0)


def of_unfinished(
    read_model: str, unfinished: tuple[RebuildRecord, RangeProgress] | None, expected: int | None
) -> Iterator[Sample]:
    """The unfinished full rebuild of a read model, if any, with the approximate number of its events."""
    for state in UNFINISHED:
        is_in = unfinished is not None and unfinished[0].state is state
        yield "rebuild_state", (read_model, state.value), float(is_in)
    if unfinished is None:
        return
    record, progress = unfinished
    yield "rebuild_start_timestamp_seconds", (read_model,), _seconds(record.started_at)
    yield "rebuild_progress_timestamp_seconds", (read_model,), _seconds(progress.at)
    yield "rebuild_read_events", (read_model,), progress.events
    share = progress.ranges_done / record.ranges if record.ranges else 1.0
    if expected is not None:
        yield "rebuild_expected_events", (read_model,), expected
        # Ranges are few, and the events of other aggregate types will not come; the larger share is closer.
        if expected and record.first_pass:
            share = max(share, min(1.0, progress.events / expected))
    yield "rebuild_progress_ratio", (read_model,), share


def of_leases(taken: Sequence[TakenLease], live: Mapping[str, str]) -> Iterator[Sample]:
    """The leases; `live` has the collection of every read model, on which a rebuild holds its lease."""
    on_rebuilds = {lease.on for lease in taken if lease.on and not lease.over}
    yield "leases_held", ("rebuild",), len(on_rebuilds)
    yield "leases_held", ("repair",), sum(lease.number for lease in taken if not lease.on and not lease.over)
    for read_model, collection in live.items():
        yield "rebuild_lease_held", (read_model,), float(collection in on_rebuilds)


def _seconds(moment: datetime) -> float:
    """Seconds since 1970. The driver returns dates in UTC without a time zone."""
    return moment.replace(tzinfo=UTC).timestamp()
