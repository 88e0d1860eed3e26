"""From what is known to samples of metrics, without a database. Label values come from closed sets; zeros are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily

from readmodel_pipelines.bookkeeping.held_leases import LeasesHeld
from readmodel_pipelines.bookkeeping.queue_stats import STATUSES, QueueStats
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import RangeProgress
from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS
from readmodel_pipelines.metrics import catalogue as metric
from readmodel_pipelines.metrics.catalogue import METRICS, Metric
from readmodel_pipelines.rebuild_state import UNFINISHED
from readmodel_pipelines.reconcile.counts import WRITES
from readmodel_pipelines.reconcile.outcome import ALARMS, Outcome
from readmodel_pipelines.settings import Settings

OTHER = "other"

Sample = tuple[Metric, tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Ended:
    """A verification or a full rebuild that ended; `counts` as `Counts.as_dict` has them."""

    ended_at: datetime
    seconds: float
    events: int
    counts: Mapping[str, int]


def families(samples: Iterable[Sample]) -> Iterator[GaugeMetricFamily]:
    """The metrics that have samples, in the catalogue's order."""
    found: dict[Metric, GaugeMetricFamily] = {}
    for kind, labels, value in samples:
        found.setdefault(kind, kind.family()).add_metric(labels, value)
    return (found[kind] for kind in METRICS if kind in found)


def of_scrape(seconds: float, version: str, parts: Mapping[str, str] | None, settings: Settings) -> Iterator[Sample]:
    """The scrape itself; `parts` say why they could not be read, None when MongoDB did not answer at all."""
    yield metric.UP, (), float(parts is not None)
    yield metric.BUILD, (version,), 1
    yield metric.SCRAPE_DURATION, (), seconds
    if parts is None:
        return
    for part, why_not in parts.items():
        yield metric.COLLECTOR_SUCCESS, (part,), float(not why_not)
    yield metric.QUEUE_WARNING, (), settings.repair_queue_warning
    yield metric.QUEUE_LIMIT, (), settings.repair_queue_limit


def of_queue(queue: QueueStats) -> Iterator[Sample]:
    """The repair queue."""
    for status in STATUSES:
        yield metric.QUEUE_TASKS, (status,), getattr(queue, status)
    yield metric.QUEUE_TASKS, (OTHER,), queue.other
    yield metric.QUEUE_DUE, (), queue.due
    yield metric.QUEUE_OLDEST, (), queue.oldest_pending_seconds
    yield metric.QUEUE_RATE, (), queue.repairs_per_minute / 60
    # A hand-made dead letter may say anything.
    letters = Counter(dict.fromkeys((*DEAD_LETTER_REASONS, OTHER), 0))
    for reason, number in queue.dead_letters.items():
        letters[reason if reason in DEAD_LETTER_REASONS else OTHER] += number
    for reason, number in letters.items():
        yield metric.DEAD_LETTERS, (reason,), number


def of_findings(read_model: str, numbers: Mapping[str, int], oldest: Mapping[str, datetime]) -> Iterator[Sample]:
    """The open findings of a read model by outcome: how many, and when the oldest was first seen."""
    for outcome in ALARMS:
        yield metric.OPEN_FINDINGS, (read_model, outcome.value), numbers.get(outcome.value, 0)
    for name, since in oldest.items():
        yield metric.OLDEST_FINDING, (read_model, name), _seconds(since)


def of_verification(labels: tuple[str, str], ended: Ended) -> Iterator[Sample]:
    """The last verification of a read model, of some coverage."""
    yield from _of_ended(metric.VERIFICATION_ENDED, labels, ended)
    yield metric.VERIFICATION_SUCCESS, labels, float(not any(ended.counts.get(item.value) for item in ALARMS))


def of_rebuild(labels: tuple[str], ended: Ended) -> Iterator[Sample]:
    """The last full rebuild of a read model that is done."""
    yield from _of_ended(metric.REBUILD_ENDED, labels, ended)
    for operation in WRITES:
        yield metric.REBUILD_WRITES, (*labels, operation), ended.counts.get(operation, 0)
    failed = ended.counts.get("failed", 0)
    yield metric.REBUILD_FAILED, labels, failed
    yield metric.REBUILD_SUCCESS, labels, float(not failed and not ended.counts.get(Outcome.MALFORMED.value))


def of_unfinished(
    labels: tuple[str], unfinished: tuple[RebuildRecord, RangeProgress] | None, expected: int | None
) -> Iterator[Sample]:
    """The full rebuild of a read model that goes on or waits, if any; about so many events are expected."""
    for state in UNFINISHED:
        is_in = unfinished is not None and unfinished[0].state is state
        yield metric.REBUILD_STATE, (*labels, state.value), float(is_in)
    if unfinished is None:
        return
    record, progress = unfinished
    yield metric.REBUILD_START, labels, _seconds(record.started_at)
    yield metric.REBUILD_PROGRESS_AT, labels, _seconds(progress.at)
    yield metric.REBUILD_READ, labels, progress.events
    share = progress.ranges_done / record.ranges if record.ranges else 1.0
    if expected is not None:
        yield metric.REBUILD_EXPECTED, labels, expected
        # Ranges are few, and events of other aggregate types are expected in vain: the larger share is nearer.
        if expected and record.first_pass:
            share = max(share, min(1.0, progress.events / expected))
    yield metric.REBUILD_PROGRESS, labels, share


def of_leases(leases: LeasesHeld, live: Mapping[str, str]) -> Iterator[Sample]:
    """The leases; `live` has the collection of every read model, on which a rebuild's is held."""
    yield metric.LEASES, ("rebuild",), len(leases.of_rebuilds)
    yield metric.LEASES, ("repair",), leases.of_repairs
    for read_model, collection in live.items():
        yield metric.REBUILD_LEASE, (read_model,), float(collection in leases.of_rebuilds)


def _of_ended(kinds: Collection[Metric], labels: tuple[str, ...], ended: Ended) -> Iterator[Sample]:
    end, duration, events, rate, aggregates = kinds
    yield end, labels, _seconds(ended.ended_at)
    yield duration, labels, ended.seconds
    yield events, labels, ended.events
    if ended.seconds > 0:
        yield rate, labels, ended.events / ended.seconds
    for outcome in Outcome:
        yield aggregates, (*labels, outcome.value), ended.counts.get(outcome.value, 0)


def _seconds(moment: datetime) -> float:
    """Since 1970. The driver gives dates of UTC that do not say so."""
    return moment.replace(tzinfo=UTC).timestamp()
