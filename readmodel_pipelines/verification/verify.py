"""A verification: looks at what it covers, remembers what it finds, and tells whoever wants to hear of it."""

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
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
from readmodel_pipelines.mongo.driver import Database, server_time
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
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.enqueue import Enqueue
from readmodel_pipelines.verification.reporting import Reporting

_BATCH = 1_000
_MOST_RECENT = 10_000


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """What to verify and how.

    Tier `documents` compares every owned field; `versions` only looks whether documents are there at the version of
    their streams. Without `remember` nothing is written to the database at all: no finding is remembered, and the next
    incremental verification begins where this one did. With `allow_no_events` it looks although every document is an
    orphan. `reports` are files to write; those that were written are in the summary's `scope`, and a warning says why
    one was not.

    Raises:
        UsageError: that makes no sense.
    """

    coverage: Coverage = field(default_factory=Coverage)
    tier: Tier = "documents"
    remember: bool = True
    enqueue_repairs: bool = False
    allow_no_events: bool = False
    max_findings: int = DEFAULT_MAX_FINDINGS
    reports: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.tier == "versions" and not self.coverage.everything:
            raise UsageError(
                f"The tier of versions looks at everything, not at {self.coverage}.",
                hint="Leave sample, bucket and what changed since away, or take the tier of documents.",
            )
        if self.enqueue_repairs and not self.remember:
            raise UsageError(
                "A verification that only reads cannot queue repairs: a repair queue is written.",
                hint="Leave read-only away, or the queuing of repairs.",
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
    """Verify the read models with these names, all when none is named.

    Raises:
        UsageError: there is no such read model, or a report cannot be written there.
        NoEvents: there is none to compare with, whatever part is looked at.
    """
    with closing(Reporting(request.reports)) as reporting:
        return _Verification(database, settings, read_models, request, on_progress, reporting).run()


@verb
def verify_one(
    database: Database, settings: Settings, read_models: Sequence[str], aggregate_id: str, reports: Sequence[Path] = ()
) -> Summary:
    """Verify one aggregate. Writes nothing to the database, and remembers nothing.

    Raises:
        UsageError: the id is no UUID, there is no such read model, or a report cannot be written there.
        AggregateNotFound: there is neither an event nor a document.
    """
    with closing(Reporting(reports)) as reporting:
        ignored = Ignored(database).in_force()
        summary = ReadModelProjector(database, settings, *read_models, ignored=ignored).verify_consistency(aggregate_id)
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
    """Verify the aggregates that got events in the last minutes, as many as the settings say. Remembers nothing.

    Raises:
        NoEvents: there is none at all to compare with, and nobody said that this is meant.
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
            warnings.append(f"More than {_MOST_RECENT:,} aggregates have events so young; as many were looked at.")
        return _in_batches(ids[:_MOST_RECENT])

    ignored = Ignored(database).in_force()
    summary = ReadModelProjector(database, settings, *read_models, ignored=ignored).verify_some(recent)
    summary.warnings += warnings
    more = f" (more than {_MOST_RECENT:,}, the others were not looked at)" if warnings else ""
    young = f"events in the last {settings.fresh_minutes:g} minutes{more}"
    summary.scope = VerificationScope(coverage=f"what got {young}", everything=False, young=young, look="fresh")
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
        )
        self._changes = Changes()
        self._sampled: set[str] = set()

    def run(self) -> Summary:
        request, coverage = self._request, self._request.coverage
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
            # Before the first read: what changes while we look is for the next time.
            stored_as = [spelling for item in self._store.projections for spelling in item.fold.stored_as]
            watermark = self._watermark() if coverage.since_last else None
            self._changes = changes_since(self._store.events, stored_as, watermark)
        if coverage.since_last and self._changes.unknown:
            warnings.append(f"Everything was verified, not only what changed: {self._changes.unknown}.")
            coverage = Coverage()
        if request.tier == "versions":
            summary = self._projector.verify_versions(self._note, allow_no_events=True)
        elif coverage.everything:
            summary = self._projector.verify_all(self._note, allow_no_events=True)
        else:
            summary = self._projector.verify_some(
                lambda group: self._batches(group, coverage), self._note, odd_ids=_with_odd_ids(coverage)
            )
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
                    f"{elsewhere:,} findings of earlier verifications are open outside of what was looked at: a "
                    "verification of everything tells whether they are gone."
                )
        if request.reports:
            history = self._verifications.history([item.read_model for item in self._store.projections])
            self._reporting.finish(summary, self._store.projections, self._store.settings.database, history)
        return summary

    def _note(self, projection: Projection, findings: Sequence[Finding]) -> None:
        if self._request.remember:
            ids = list({item.aggregate_id for item in findings if is_plain(item.aggregate_id)})
            self._findings.remember(findings, EventStore(self._store.events).last_versions(ids) if ids else {})
        alarms = [item for item in findings if item.outcome in ALARMS]
        if self._enqueue:
            self._enqueue(projection, alarms)
        self._reporting(projection, alarms)

    def _look_at_siblings(self, enqueue: Enqueue) -> None:
        """Let it know of the deletions that repairs would do in read models that were not asked for."""
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
        """Which open findings were looked at again; None for all of them."""
        bucket = coverage.bucket
        if self._request.tier == "versions":
            # A finding is not gone because its presence and version are right.
            return Covered(lambda _: False, odd_ids=False)
        if coverage.everything:
            return None

        def holds(aggregate_id: str) -> bool:
            in_bucket = bucket is not None and bucket.holds(aggregate_id)
            return in_bucket or aggregate_id in self._sampled or coverage.since_last

        return Covered(holds, _with_odd_ids(coverage))

    def _batches(self, group: Sequence[Projection], coverage: Coverage) -> Iterable[list[str]]:
        """The covered aggregates of read models that are made from the same streams, in order."""
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
            # A new claim makes the older one wrong, too.
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
        # A list of one batch: the pass looks up the claims of these alone, not those of every aggregate.
        return first or [[]]

    def _watermark(self) -> Token | None:
        """Where to go on: the earliest of those of the read models, if each has one."""
        tokens = [
            self._verifications.watermark(item.read_model, self._made_from(item)) for item in self._store.projections
        ]
        there = [token for token in tokens if token]
        return min(there, key=lambda token: str(token["_data"])) if len(there) == len(tokens) else None

    def _made_from(self, projection: Projection) -> list[str]:
        """What a verification goes by: when it is another, documents may be wrong without a new event."""
        collections = self._store.events.name, self._store.live(projection).name
        made_by = projection.fold.aggregate_type, f"schema version {projection.schema_version}"
        return [*collections, *made_by, *sorted(self._store.settings.allow_malformed)]


def _with_odd_ids(coverage: Coverage) -> bool:
    """Whether ids that are no strings are looked for, at a small cost; a sample leaves them out."""
    return coverage.bucket is not None or coverage.since_last


def _in_batches(ids: Iterable[str]) -> Iterator[list[str]]:
    # What is no UTF-8 cannot be asked for; a verification of everything meets it.
    return batched((aggregate_id for aggregate_id, _ in groupby(ids) if is_utf8(aggregate_id)), _BATCH)
