"""From facts to metrics, without a database. Label values come from closed sets, and zeros are told, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily

from readmodel_pipelines.bookkeeping.held_leases import LeasesHeld
from readmodel_pipelines.bookkeeping.queue_stats import STATUSES, QueueStats
from readmodel_pipelines.bookkeeping.repair_task import DEAD_LETTER_REASONS
from readmodel_pipelines.metrics import catalogue as metric
from readmodel_pipelines.metrics.catalogue import METRICS, Metric
from readmodel_pipelines.metrics.facts import Ended, Facts, Rebuilding, Unfinished
from readmodel_pipelines.rebuild_state import UNFINISHED
from readmodel_pipelines.reconcile.outcome import ALARMS, Outcome

OTHER = "other"
OPERATIONS = ("inserted", "replaced", "deleted")

Sample = tuple[Metric, tuple[str, ...], float]


def families(facts: Facts | None, seconds: float, version: str) -> Iterator[GaugeMetricFamily]:
    """All metrics of a scrape that took so long, in the catalogue's order; None when MongoDB did not answer."""
    found: dict[Metric, GaugeMetricFamily] = {}
    for kind, labels, value in _samples(facts, seconds, version):
        found.setdefault(kind, kind.family()).add_metric(labels, value)
    return (found[kind] for kind in METRICS if kind in found)


def _samples(facts: Facts | None, seconds: float, version: str) -> Iterator[Sample]:
    yield metric.UP, (), float(facts is not None)
    yield metric.BUILD, (version,), 1
    yield metric.SCRAPE_DURATION, (), seconds
    if facts is None:
        return
    for part, why_not in facts.parts.items():
        yield metric.COLLECTOR_SUCCESS, (part,), float(not why_not)
    yield metric.QUEUE_WARNING, (), facts.warning_tasks
    yield metric.QUEUE_LIMIT, (), facts.limit_tasks
    if facts.queue is not None:
        yield from _of_queue(facts.queue)
    yield from _of_findings(facts)
    for (read_model, coverage), ended in (facts.verifications or {}).items():
        yield from _of_verification((read_model, coverage), ended)
    if facts.rebuilds is not None:
        yield from _of_rebuilds(facts.rebuilds, facts)
    if facts.leases is not None:
        yield from _of_leases(facts.leases, facts)
    if facts.sizes is not None:
        yield metric.EVENTS, (), facts.sizes.events
        for read_model, number in facts.sizes.documents.items():
            yield metric.DOCUMENTS, (read_model,), number


def _of_queue(queue: QueueStats) -> Iterator[Sample]:
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


def _of_findings(facts: Facts) -> Iterator[Sample]:
    for read_model, found in (facts.findings or {}).items():
        for outcome in ALARMS:
            yield metric.OPEN_FINDINGS, (read_model, outcome.value), found.numbers.get(outcome.value, 0)
        for name, since in found.oldest.items():
            yield metric.OLDEST_FINDING, (read_model, name), _seconds(since)


def _of_verification(labels: tuple[str, str], ended: Ended) -> Iterator[Sample]:
    yield metric.VERIFICATION_END, labels, _seconds(ended.ended_at)
    yield metric.VERIFICATION_DURATION, labels, ended.seconds
    yield metric.VERIFICATION_EVENTS, labels, ended.events
    if ended.seconds > 0:
        yield metric.VERIFICATION_RATE, labels, ended.events / ended.seconds
    for outcome, number in _by_outcome(ended):
        yield metric.VERIFICATION_AGGREGATES, (*labels, outcome), number
    yield metric.VERIFICATION_SUCCESS, labels, float(not any(ended.counts.get(item.value) for item in ALARMS))


def _of_rebuilds(rebuilds: Rebuilding, facts: Facts) -> Iterator[Sample]:
    for read_model, ended in rebuilds.done.items():
        yield from _of_rebuild((read_model,), ended)
    for read_model in facts.collections:
        unfinished = rebuilds.unfinished.get(read_model)
        for state in UNFINISHED:
            is_in = unfinished is not None and unfinished.state is state
            yield metric.REBUILD_STATE, (read_model, state.value), float(is_in)
        if unfinished is not None:
            yield from _of_unfinished((read_model,), unfinished, facts.sizes.events if facts.sizes else None)


def _of_rebuild(labels: tuple[str], ended: Ended) -> Iterator[Sample]:
    yield metric.REBUILD_END, labels, _seconds(ended.ended_at)
    yield metric.REBUILD_DURATION, labels, ended.seconds
    yield metric.REBUILD_EVENTS, labels, ended.events
    if ended.seconds > 0:
        yield metric.REBUILD_RATE, labels, ended.events / ended.seconds
    for outcome, number in _by_outcome(ended):
        yield metric.REBUILD_AGGREGATES, (*labels, outcome), number
    for operation in OPERATIONS:
        yield metric.REBUILD_WRITES, (*labels, operation), ended.counts.get(operation, 0)
    failed = ended.counts.get("failed", 0)
    yield metric.REBUILD_FAILED, labels, failed
    yield metric.REBUILD_SUCCESS, labels, float(not failed and not ended.counts.get(Outcome.MALFORMED.value))


def _of_unfinished(labels: tuple[str], unfinished: Unfinished, expected: int | None) -> Iterator[Sample]:
    yield metric.REBUILD_START, labels, _seconds(unfinished.started_at)
    yield metric.REBUILD_PROGRESS_AT, labels, _seconds(unfinished.progress_at)
    yield metric.REBUILD_READ, labels, unfinished.events
    share = unfinished.share_of_ranges
    if expected is not None:
        yield metric.REBUILD_EXPECTED, labels, expected
        # Ranges are few, and events of other aggregate types are expected in vain: the larger share is nearer.
        if expected and unfinished.first_pass:
            share = max(share, min(1.0, unfinished.events / expected))
    yield metric.REBUILD_PROGRESS, labels, share


def _of_leases(leases: LeasesHeld, facts: Facts) -> Iterator[Sample]:
    yield metric.LEASES, ("rebuild",), len(leases.of_rebuilds)
    yield metric.LEASES, ("repair",), leases.of_repairs
    for read_model, collection in facts.collections.items():
        yield metric.REBUILD_LEASE, (read_model,), float(collection in leases.of_rebuilds)


def _by_outcome(ended: Ended) -> Iterator[tuple[str, int]]:
    return ((outcome.value, ended.counts.get(outcome.value, 0)) for outcome in Outcome)


def _seconds(moment: datetime) -> float:
    """Since 1970. The driver gives dates of UTC that do not say so."""
    return moment.replace(tzinfo=UTC).timestamp()
