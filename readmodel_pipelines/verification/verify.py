"""A verification: compares the covered aggregates, records the findings, and reports them."""

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, groupby, islice
from pathlib import Path

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.ignored import Ignored
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Covered, Findings, Verifications
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.ids import byte_order, is_plain, is_utf8
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import Changes, Token, changes_since
from readmodel_pipelines.mongo.driver import Database, PyMongoError, server_time
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.no_events import refuse_without_events
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.mongo.verb import verb
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import choose_projections, projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.about import Tier, VerificationScope
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import ALARMS
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS, Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.speed_limits import Pace, window_of
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.enqueue import Enqueue
from readmodel_pipelines.verification.reporting import Reporting

_BATCH = 1_000
_MOST_RECENT = 10_000
_AT_THE_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """The coverage and options of a verification.

    Tier `documents` compares every owned field; `versions` only checks that each document exists at the version of its
    stream. Without `remember` nothing is written to the database: no finding is recorded, and the next incremental
    verification starts where this one did. With `allow_no_events` it continues without any event, so that every
    document is an orphan. `reports` are files to write; the summary's `scope` lists the written ones, and a warning
    explains a failed one. With `off_peak` it works only in the window of the settings.

    Raises:
        UsageError: the options contradict each other.
    """

    coverage: Coverage = field(default_factory=Coverage)
    tier: Tier = "documents"
    remember: bool = True
    enqueue_repairs: bool = False
    allow_no_events: bool = False
    max_findings: int = DEFAULT_MAX_FINDINGS
    reports: Sequence[Path] = ()
    off_peak: bool = False

    def __post_init__(self) -> None:
        if self.tier == "versions" and not self.coverage.everything:
            raise UsageError(
                f"Tier versions compares every aggregate, and cannot be limited to {self.coverage}.",
                hint="Remove --sample, --bucket and --since, or use --tier documents.",
            )
        if self.enqueue_repairs and not self.remember:
            raise UsageError(
                "A read-only verification cannot queue repairs, because it does not write to the queue.",
                hint="Remove --read-only or --enqueue-repairs.",
            )


@verb
def verify(
    database: Database,
    settings: Settings,
    read_models: Sequence[str],
    request: VerificationRequest,
    *,
    on_progress: Progress | None = None,
) -> Summary:
    """Verify the read models with these names; without names, all of them.

    Raises:
        UsageError: there is no such read model, or a report cannot be written there.
        NoEvents: the store has no event to compare with, whatever the coverage.
        WindowClosed: the off-peak window that was asked for is over. Findings so far are recorded, and none is closed.
    """
    with closing(Reporting(request.reports)) as reporting:
        return _Verification(database, settings, read_models, request, on_progress, reporting).run()


@verb
def verify_one(
    database: Database,
    settings: Settings,
    read_models: Sequence[str],
    aggregate_id: str,
    reports: Sequence[Path] = (),
    *,
    allow_no_events: bool = False,
) -> Summary:
    """Verify one aggregate. Writes and records nothing.

    Raises:
        UsageError: the id is no UUID, there is no such read model, or a report cannot be written there.
        NoEvents: it has a document, the store has no event at all, and `allow_no_events` is false.
        AggregateNotFound: there is neither an event nor a document.
    """
    with closing(Reporting(reports)) as reporting:
        ignored = Ignored(database).in_force()
        projector = ReadModelProjector(database, settings, *read_models, ignored=ignored)
        summary = projector.verify_consistency(aggregate_id, allow_no_events=allow_no_events)
        projections = choose_projections(settings, read_models)
        for projection in projections:
            reporting(projection, [item for item in summary.findings if item.read_model == projection.read_model])
        if reports:
            reporting.finish(summary, projections, settings.database, [], aggregate_id.strip().lower())
    return summary


@verb
def verify_fresh(
    database: Database, settings: Settings, read_models: Sequence[str], *, allow_no_events: bool = False
) -> Summary:
    """Verify the aggregates with events in the last READMODEL_FRESH_MINUTES. Records nothing.

    Raises:
        NoEvents: the store has no event to compare with, and `allow_no_events` is false.
    """
    reached(Moment.LOOK_AT_FRESH)
    store = Store(database, settings, choose_projections(settings, read_models))
    refuse_without_events(store, allowed=allow_no_events)
    since = server_time(database) - timedelta(minutes=settings.fresh_minutes)
    events = EventStore(store.events)
    warnings = []

    def recent(group: Sequence[Projection]) -> Iterable[list[str]]:
        ids = sorted(events.recent_ids(group[0].fold, since, _MOST_RECENT + 1))
        if len(ids) > _MOST_RECENT:
            warnings.append(
                f"More than {_MOST_RECENT:,} aggregates have recent events. Only {_MOST_RECENT:,} of them were "
                "compared."
            )
        return _in_batches(ids[:_MOST_RECENT])

    ignored = Ignored(database).in_force()
    summary = ReadModelProjector(database, settings, *read_models, ignored=ignored).verify_some(recent)
    summary.warnings += warnings
    more = f" (more than {_MOST_RECENT:,}; the others were not compared)" if warnings else ""
    young = f"events in the last {settings.fresh_minutes:g} minutes{more}"
    summary.scope = VerificationScope(coverage=f"aggregates with {young}", everything=False, young=young, look="fresh")
    return summary


class _Verification:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        read_models: Sequence[str],
        request: VerificationRequest,
        on_progress: Progress | None,
        reporting: Reporting,
    ) -> None:
        self._store = Store(database, settings, choose_projections(settings, read_models))
        self._request = request
        self._findings = Findings(database)
        self._verifications = Verifications(database)
        self._started_at = server_time(database).replace(tzinfo=None)
        self._enqueue: Enqueue | None = None
        self._reporting = reporting
        self._projector = ReadModelProjector(
            database,
            settings,
            *read_models,
            max_findings=request.max_findings,
            on_progress=on_progress,
            ignored=Ignored(database).in_force(),
            off_peak=request.off_peak,
        )
        self._changes = Changes()
        self._sampled: set[str] = set()

    def run(self) -> Summary:
        try:
            return self._run()
        except BaseException:
            # Also of an interrupted one, what was found so far is recorded, unless the server is gone.
            with suppress(PyMongoError, TimeoutError):
                self._findings.settle(_AT_THE_END_SECONDS)
            raise

    def _run(self) -> Summary:
        request, coverage = self._request, self._request.coverage
        Pace(window=window_of(self._store.settings, request.off_peak)).check_window()
        refuse_without_events(self._store, allowed=request.allow_no_events)
        warnings: list[str] = []
        if request.enqueue_repairs:
            self._enqueue = Enqueue(
                RepairQueue(self._store.database, self._store.settings),
                limit=self._store.settings.enqueue_limit,
                per_second=self._store.settings.enqueue_per_second,
                deletions_allowed=self._deletions_allowed,
            )
        whole = request.tier == "documents" and (coverage.everything or coverage.since_last)
        if whole:
            # Taken before the first read: the next verification covers changes during this one.
            stored_as = [spelling for item in self._store.projections for spelling in item.fold.stored_as]
            watermark = self._watermark() if coverage.since_last else None
            self._changes = changes_since(self._store.events, stored_as, watermark)
        if coverage.since_last and self._changes.unknown:
            warnings.append(f"Everything was verified, not only the changes: {self._changes.unknown}.")
            coverage = Coverage()
        if request.tier == "versions":
            summary = self._projector.verify_versions(self._note, allow_no_events=True)
        elif coverage.everything:
            summary = self._projector.verify_all(self._note, allow_no_events=True)
        else:
            summary = self._projector.verify_some(
                lambda group: self._batches(group, coverage), self._note, odd_ids=_with_odd_ids(coverage)
            )
        self._findings.settle()
        summary.warnings += warnings
        look = "versions" if request.tier == "versions" else coverage.kind
        summary.scope = VerificationScope(request.tier, str(coverage), coverage.everything, self._started_at, look=look)
        if self._enqueue:
            self._look_at_siblings(self._enqueue)
            self._enqueue.finish()
            summary.scope.queued = self._enqueue.queued
            summary.scope.pending_already = self._enqueue.pending_already
            summary.warnings += self._enqueue.warnings()
        covered = self._covered(coverage)
        if request.remember:
            self._remember(summary, covered, whole)
        if covered:
            summary.elsewhere = {
                item.read_model: self._findings.open_elsewhere(item.read_model, self._started_at, covered)
                for item in self._store.projections
            }
            elsewhere = sum(found.total() for found in summary.elsewhere.values())
            if elsewhere:
                summary.warnings.append(
                    f"{elsewhere:,} earlier findings lie outside of this verification and are still open. A "
                    "verification of everything compares them again."
                )
        if request.reports:
            history = self._verifications.history([item.read_model for item in self._store.projections])
            self._reporting.finish(summary, self._store.projections, self._store.settings.database, history)
        return summary

    def _note(self, projection: Projection, findings: Sequence[Finding]) -> None:
        if self._request.remember:
            last = {item.aggregate_id: item.last_version for item in findings if item.last_version is not None}
            ids = {item.aggregate_id for item in findings if item.last_version is None and is_plain(item.aggregate_id)}
            if ids:
                last |= EventStore(self._store.events).last_versions(list(ids))
            self._findings.remember(findings, last)
        alarms = [item for item in findings if item.outcome in ALARMS]
        if self._enqueue:
            self._enqueue(projection, alarms)
        self._reporting(projection, alarms)

    def _look_at_siblings(self, enqueue: Enqueue) -> None:
        """Report the deletions that repairs would do in read models outside of this verification."""
        streams = {item.fold.aggregate_type for item in self._store.projections}
        made_from_them = [item for item in projections_for(self._store.settings) if item.fold.aggregate_type in streams]
        siblings = [item.name for item in made_from_them if item not in self._store.projections]
        if siblings:
            at_once = self._store.settings.model_copy(update={"grace_seconds": 0.0, "causes_limit": 0})
            ReadModelProjector(self._store.database, at_once, *siblings).verify_some(
                lambda group: _in_batches(enqueue.wanted(group[0].fold.aggregate_type)), enqueue
            )

    def _deletions_allowed(self, projection: Projection) -> float:
        documents = self._store.live(projection).estimated_document_count()
        return DeletionLimit(self._store.settings.max_delete_share).of(documents)

    def _remember(self, summary: Summary, covered: Covered | None, whole: bool) -> None:
        names = [item.read_model for item in self._store.projections]
        for name in names:
            summary.closed[name] = self._findings.close(name, self._started_at, covered)
        self._verifications.record(names, self._started_at, summary)
        if whole and self._changes.token:
            for projection in self._store.projections:
                made_from = self._made_from(projection)
                self._verifications.set_watermark(projection.read_model, self._changes.token, made_from)

    def _covered(self, coverage: Coverage) -> Covered | None:
        """The open findings that were compared again; None for all of them."""
        bucket = coverage.bucket
        if self._request.tier == "versions":
            # Matching presence and version do not close a finding.
            return Covered(lambda _: False, odd_ids=False)
        if coverage.everything:
            return None

        def holds(aggregate_id: str) -> bool:
            in_bucket = bucket is not None and bucket.holds(aggregate_id)
            return in_bucket or aggregate_id in self._sampled or coverage.since_last

        return Covered(holds, _with_odd_ids(coverage))

    def _batches(self, group: Sequence[Projection], coverage: Coverage) -> Iterable[list[str]]:
        """The covered aggregates of read models with the same streams, in order and in batches."""
        events = EventStore(self._store.events)
        models = [ReadModelCollection(self._store.live(item), item) for item in group]
        sources: list[Iterable[str]] = []
        if coverage.bucket:
            everything = heapq.merge(events.ids(), *(model.ids() for model in models), key=byte_order)
            sources.append(filter(coverage.bucket.holds, everything))
        if coverage.since_last:
            changed = sorted(self._changes.ids)
            sources.append(changed)
            sources += [self._findings.open_ids(item.read_model) for item in group]
            # A new claim also makes the document of an older claim wrong.
            sources += [sorted(events.contested(item.fold, item.claims, changed)) for item in group if item.claims]
        if coverage.sample is not None:
            found = set(events.sample(group[0].fold, coverage.sample))
            found = found.union(*(model.sample(coverage.sample) for model in models))
            picked = random.sample(sorted(found), min(coverage.sample, len(found)))
            self._sampled.update(picked)
            sources.append(sorted(picked))
        batches = _in_batches(heapq.merge(*sources, key=byte_order))
        first = list(islice(batches, 2))
        if len(first) == 2:
            return chain(first, batches)
        # A list with one batch: the pass reads only the claims of its aggregates, not those of all.
        return first or [[]]

    def _watermark(self) -> Token | None:
        """The start of the next incremental verification: the earliest of its read models; None if one has none."""
        tokens = [
            self._verifications.watermark(item.read_model, self._made_from(item)) for item in self._store.projections
        ]
        there = [token for token in tokens if token]
        return min(there, key=lambda token: str(token["_data"])) if len(there) == len(tokens) else None

    def _made_from(self, projection: Projection) -> list[str]:
        """The version of the projection. If it changes, documents can be wrong without a new event."""
        collections = self._store.events.name, self._store.live(projection).name
        made_by = projection.fold.aggregate_type, f"schema version {projection.schema_version}"
        return [*collections, *made_by, *sorted(self._store.settings.allow_malformed)]


def _with_odd_ids(coverage: Coverage) -> bool:
    """Whether to search for ids that are no strings, which costs little; a sample does not."""
    return coverage.bucket is not None or coverage.since_last


def _in_batches(ids: Iterable[str]) -> Iterator[list[str]]:
    # Text that is not UTF-8 cannot be queried; a verification of everything finds it.
    return batched((aggregate_id for aggregate_id, _ in groupby(ids) if is_utf8(aggregate_id)), _BATCH)
