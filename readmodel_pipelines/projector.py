"""The projector: rebuild, dry run and verify, of one aggregate, some or all, for one read model or several.

    with open_database(settings) as database:
        chats = ReadModelProjector(database, settings, "chat")
        chats.rebuild_one("6f1c…")        # one aggregate
        chats.rebuild_all()               # every aggregate; writes only what differs
        chats.verify_consistency("6f1c…")
        chats.process_event(event)        # an event handler's entry

Every method gives a `Summary`. One pass over a source's streams feeds every read model asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from readmodel_pipelines.errors import UsageError, WrongAggregateType
from readmodel_pipelines.events.stream import check_id
from readmodel_pipelines.lanes import OpenedPass, contested, counts_of, no_event
from readmodel_pipelines.mongo.aggregate_ids import checked_id, not_found
from readmodel_pipelines.mongo.arrival import WAIT_SECONDS, Arrival
from readmodel_pipelines.mongo.driver import Database, is_there, ours
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.kinds import kinds_remembered
from readmodel_pipelines.mongo.no_events import refuse_without_events
from readmodel_pipelines.mongo.read_order import Reading
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold, choose_projections
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.confirm import Confirm
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.dry_run import DryRun
from readmodel_pipelines.reconcile.field_changes import FieldChanges
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS, Summary, Verb
from readmodel_pipelines.reconcile.versions import reconcile_versions
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.speed_limits import waiting
from readmodel_pipelines.spread import compare_all

OnFindings = Callable[[Projection, Sequence[Finding]], None]
"""Called with findings of a verification in a read model, including lagging ones, in batches."""

BatchesFor = Callable[[Sequence[Projection]], Iterable[Sequence[str]]]
"""Yields the aggregates to work on, in sorted batches of ids, for read models made from the same streams."""


class ReadModelProjector:
    """Brings read models in line with their events, and reports differences.

    `read_models` are names of the registry (`chat`, `task`); without names all of them. `holder` is the name in leases.
    A second attempt with the same `owner` takes over the lease of a first one that died. At most `max_findings`
    findings are kept of each read model, and as many of its malformed streams; counts are always complete.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *read_models: str,
        max_findings: int = DEFAULT_MAX_FINDINGS,
        on_progress: Progress | None = None,
        holder: str = "",
        owner: str = "",
        ignored: Callable[[Finding], bool] | None = None,
        off_peak: bool = False,
    ) -> None:
        self._ignored = ignored
        self._off_peak = off_peak
        self._store = Store(ours(database), settings, choose_projections(settings, read_models))
        self._read_models = read_models
        self._max_findings = max_findings
        self._on_progress = on_progress
        self._holder = holder
        self._owner = owner

    def rebuild_all(
        self,
        *,
        dry_run: bool = False,
        allow_deletions: bool = False,
        allow_no_events: bool = False,
        strategy: Strategy = "in_place",
    ) -> Summary:
        """Bring every document in line; in place this writes only differences.

        A dry run counts the writes. Otherwise this is a new `readmodel_pipelines.rebuild.rebuild`.

        Raises:
            NoEvents: the store has no event for them, and `allow_no_events` is false; nothing was done.
            ReadModelBusy: another process rebuilds one of the read models.
            LeaseLost: the lease of this run expired and another process took over.
        """
        if dry_run:
            refuse_without_events(self._store, allowed=allow_no_events)
            limit = DeletionLimit(None if allow_deletions else self._store.settings.max_delete_share)
            return self._run("dry_run", None, _dry_run(limit))
        # Only a full rebuild needs this import.
        from readmodel_pipelines.rebuild import RebuildRequest, rebuild

        return rebuild(
            self._store.database,
            self._store.settings,
            self._read_models,
            RebuildRequest(
                strategy,
                allow_deletions=allow_deletions,
                allow_no_events=allow_no_events,
                max_findings=self._max_findings,
            ),
            on_progress=self._on_progress,
            holder=self._holder,
            owner=self._owner,
        )

    def rebuild_one(self, aggregate_id: str, *, dry_run: bool = False, allow_no_events: bool = False) -> Summary:
        """Bring one aggregate's documents in line, with deletions.

        Raises:
            UsageError: the id is no UUID.
            NoEvents: it has a document, the store has no event at all, and `allow_no_events` is false. Nothing changed.
            AggregateNotFound: there is neither an event nor a document.
        """
        aggregate_id = checked_id(self._store, aggregate_id)
        if dry_run:
            return self._run_one("dry_run", aggregate_id, _dry_run(None), allow_no_events=allow_no_events)
        return self._run_one("rebuild", aggregate_id, _in_place(_always_ours), allow_no_events=allow_no_events)

    def rebuild_some(
        self, ids: Iterable[str], still_ours: Callable[[], None] | None = None, *, allow_no_events: bool = True
    ) -> tuple[Summary, Collection[str]]:
        """Bring these aggregates' documents in line, with deletions, in one pass; ids must be UUIDs.

        Their documents are held in memory, so some hundred ids at a time are best. `still_ours` is called before every
        write. Also returns the ids that have neither an event nor a document.

        Raises:
            NoEvents: there are documents, none of these has an event, the store has none for the read models, and
                `allow_no_events` is false. Nothing changed.
        """
        wanted = sorted(set(ids))
        met: dict[str, Any] = {}
        sink_for = _in_place(still_ours or _always_ours)
        summary = self._run("rebuild", lambda _: [wanted], sink_for, met, allow_no_events=allow_no_events)
        known = met.keys() | {finding.aggregate_id for finding in summary.findings}
        return summary, [aggregate_id for aggregate_id in wanted if aggregate_id not in known]

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The last version of each of these streams; cheap."""
        return EventStore(self._store.events).last_versions(ids)

    def is_up_to_date_since(self, aggregate_id: str, version: int) -> bool:
        """Whether every document of the aggregate equals the fold of its stream at that version or a later one.

        This also works for an aggregate that changes all the time, unlike `verify_consistency`.
        """
        opened = OpenedPass(self._store, counts_of(self._store.projections))
        return all(opened.again(lane).behind({aggregate_id: version}) for lane in opened.lanes)

    def process_event(self, event: Mapping[str, Any], *, wait_seconds: float = WAIT_SECONDS) -> Summary:
        """For event handlers: update the documents of the event's aggregate with all of its events.

        A read model contains no event that may be rolled back. So this waits until a majority has the event's version,
        at most `wait_seconds`. If it does not, the documents include only the events before it, and the summary is not
        ok. The reason is `event_not_there`, or `bad_version` for an invalid version. An event without a version is not
        waited for.

        Raises:
            WrongAggregateType: none of these read models is made from the event's aggregate type.
            UsageError: its aggregate id is no UUID in lower case.
            AggregateNotFound: the event did not come in time, and the aggregate has no other event and no document.
            NoEvents: the event did not come in time, and the store has no event at all; nothing was done.
        """
        stored = event.get("aggregate_type")
        if not any(stored in projection.fold.stored_as for projection in self._store.projections):
            made_from = sorted({projection.fold.aggregate_type for projection in self._store.projections})
            raise WrongAggregateType(
                f"The event has aggregate type {stored!r}, and this projector is for {', '.join(made_from)} streams.",
                hint="Route events by aggregate type, or give the read model that is made from it.",
            )
        malformed = check_id(event)
        if malformed:
            raise UsageError(f"The event cannot be projected: {malformed.detail}.", hint="Correct its writer.")
        aggregate_id, arrival = event["aggregate_id"], Arrival(event)
        arrival.wait(EventStore(self._store.events), wait_seconds)
        met: dict[str, Any] = {}
        summary = self._run_one("rebuild", aggregate_id, _in_place(_always_ours), met)
        if missing := arrival.missing_from(met.get(aggregate_id)):
            for projection in self._store.projections:
                if stored in projection.fold.stored_as:
                    summary.lack(projection.read_model, aggregate_id, *missing)
        return summary

    def verify_all(self, on_findings: OnFindings | None = None, *, allow_no_events: bool = False) -> Summary:
        """Compare every document with its events; writes nothing.

        Possibly lagging documents are compared again after the grace time of the settings.

        Raises:
            NoEvents: the store has no event to compare with, and `allow_no_events` is false.
        """
        refuse_without_events(self._store, allowed=allow_no_events)
        return self._run("verify", None, _confirm(on_findings, self._ignored))

    def verify_some(
        self, batches_for: BatchesFor, on_findings: OnFindings | None = None, *, odd_ids: bool = False
    ) -> Summary:
        """Compare the documents of some aggregates with their events, in batches; writes nothing.

        With `odd_ids`, streams and documents whose id is no string are compared too, which no batch can contain.
        """
        return self._run("verify", batches_for, _confirm(on_findings, self._ignored), odd_ids=odd_ids)

    def verify_versions(self, on_findings: OnFindings | None = None, *, allow_no_events: bool = False) -> Summary:
        """Compare only whether documents exist, and the version that they have; writes nothing.

        Reads the first event of each aggregate, later ones that decide whether there is a document, and all of the
        aggregates where something is found.

        Raises:
            NoEvents: the store has no event to compare with, and `allow_no_events` is false.
        """
        refuse_without_events(self._store, allowed=allow_no_events)
        return self._run("verify", None, _confirm(on_findings, self._ignored), by_versions=True)

    def verify_consistency(self, aggregate_id: str, *, allow_no_events: bool = False) -> Summary:
        """Compare one aggregate's documents with its events; writes nothing.

        Raises:
            UsageError: the id is no UUID.
            NoEvents: it has a document, the store has no event at all, and `allow_no_events` is false.
            AggregateNotFound: there is neither an event nor a document.
        """
        aggregate_id, confirm = checked_id(self._store, aggregate_id), _confirm(None, self._ignored)
        return self._run_one("verify", aggregate_id, confirm, allow_no_events=allow_no_events)

    def _run_one(
        self,
        verb: Verb,
        aggregate_id: str,
        sink_for: _SinkFor,
        met: dict[str, Any] | None = None,
        *,
        allow_no_events: bool = False,
    ) -> Summary:
        summary = self._run(
            verb, lambda _: [[aggregate_id]], sink_for, met, at_once=True, allow_no_events=allow_no_events
        )
        if not any(counts.checked for counts in summary.read_models.values()):
            raise not_found(self._store, aggregate_id)
        return summary

    def _run(
        self,
        verb: Verb,
        batches_for: BatchesFor | None,
        sink_for: _SinkFor,
        met: dict[str, Any] | None = None,
        *,
        by_versions: bool = False,
        odd_ids: bool = False,
        at_once: bool = False,
        allow_no_events: bool = True,
    ) -> Summary:
        with kinds_remembered():
            return self._remembering(verb, batches_for, sink_for, met, by_versions, odd_ids, at_once, allow_no_events)

    def _remembering(
        self,
        verb: Verb,
        batches_for: BatchesFor | None,
        sink_for: _SinkFor,
        met: dict[str, Any] | None,
        by_versions: bool,
        odd_ids: bool,
        at_once: bool,
        allow_no_events: bool,
    ) -> Summary:
        name = self._read_models[0] if len(self._read_models) == 1 else "all"
        summary = Summary(verb, name, self._max_findings, read_models=counts_of(self._store.projections))
        started = time.perf_counter()
        summary.warnings += self._store.check(writes=verb != "verify")
        if verb == "rebuild":
            for projection in self._store.projections:
                summary.warnings += ensure_for_empty(self._store.live(projection), projection)
        limited = verb != "rebuild" and not at_once
        pay = waiting(self._store.settings, self._store.database, off_peak=self._off_peak) if limited else None
        events = EventStore(self._store.events, self._progress(summary), met, pay=pay)
        with calm_collector() if batches_for is None else nullcontext():
            for group in by_fold(self._store.projections):
                batches = batches_for and batches_for(group)
                self._pass(group, events, batches, summary, sink_for, by_versions, odd_ids, allow_no_events)
        summary.events = events.events_read
        if self._store.settings.causes_limit and (without := summary.without_cause.total()):
            summary.warnings.append(
                f"The causes of {without:,} findings were not determined: READMODEL_CAUSES_LIMIT is "
                f"{self._store.settings.causes_limit:,}, or their streams are too long."
            )
        if by_versions:
            summary.warnings += self._how_versions_are_read(events)
        if batches_for is None and not events.events_read:
            summary.warnings.append(no_event(self._store))
        if batches_for is None and verb != "rebuild":
            summary.warnings += self._empty_read_models(summary)
        summary.seconds = time.perf_counter() - started
        return summary

    def _empty_read_models(self, summary: Summary) -> list[str]:
        """Warnings: each document is missing, which can also mean that the collection has another name."""
        missing = [item for item in self._store.projections if summary.read_models[item.read_model].missing]
        return [
            f"{live.full_name} is empty. If the documents exist under another name, correct the setting of the "
            "collection before a rebuild; `readmodel doctor --verbose` shows the settings."
            for live in map(self._store.live, missing)
            if not is_there(live)
        ]

    def _how_versions_are_read(self, events: EventStore) -> list[str]:
        if events.index is None:
            return [
                f"{self._store.events.name} has no index on aggregate_id and version, so every event was read. "
                "`readmodel ensure-indexes` creates it."
            ]
        if not events.versions_are_indexed:
            return [
                f"{self._store.events.name} holds, or held, an event whose aggregate_id is an array. Its index cannot "
                "return versions then, so every event was read."
            ]
        return []

    def _pass(
        self,
        projections: Sequence[Projection],
        events: EventStore,
        batches: Iterable[Sequence[str]] | None,
        summary: Summary,
        sink_for: _SinkFor,
        by_versions: bool,
        odd_ids: bool,
        allow_no_events: bool,
    ) -> None:
        read_before = events.events_read
        # Claims are few on few aggregates; reading them for each of many batches would read all of them each time.
        only = batches[0] if isinstance(batches, list) and len(batches) == 1 else None
        claims = contested(events, projections, only)
        opened = OpenedPass(
            self._store.of(projections), summary.read_models, claims, events=events, claims_of_some=only is not None
        )
        # A verification reports only findings that a recheck confirms.
        noted_in = None if summary.verb == "verify" else summary
        sinks = opened.into(lambda lane: sink_for(opened, lane, summary), noted_in)
        if batches is None or odd_ids:
            of_events = batches is not None or (by_versions and not events.versions_are_indexed)
            opened.reconcile_odd_ids(symbols=batches is not None, symbols_of_events=of_events)
        if by_versions:
            reconcile_versions(events, opened.lanes, self._store.settings.allow_malformed)
        elif batches is None:
            there = self._store.events.estimated_document_count() if summary.verb == "verify" else None
            said = partial(_reads, summary)
            compare_all(opened, self._store.settings, there, self._progress(summary), said, off_peak=self._off_peak)
        for ids in batches or ():
            opened.reconcile(ids, held=summary.verb != "verify")
        if events.events_read == read_before and any(lane.counts.checked for lane in opened.lanes):
            # There are documents without any event that was read. Nothing is written yet.
            refuse_without_events(opened.store, allowed=allow_no_events)
        for sink in sinks:
            # One grace time for all of them, not one after the other.
            if isinstance(sink, Confirm):
                sink.look_again()
        for sink in sinks:
            sink.finish()

    def _progress(self, summary: Summary) -> Callable[[int], None] | None:
        if self._on_progress is None:
            return None
        total = len(by_fold(self._store.projections)) * self._store.events.estimated_document_count()
        return lambda done: self._on_progress(done, total, summary.read_models) if self._on_progress else None


def _reads(summary: Summary, reading: Reading) -> None:
    if reading.order == "scan" or reading.chosen:
        summary.read_order = reading.said


_SinkFor = Callable[[OpenedPass, Lane, Summary], InPlace | DryRun | Confirm]


def _in_place(still_ours: Callable[[], None]) -> _SinkFor:
    return lambda opened, lane, summary: InPlace(opened.again(lane), summary, still_ours)


def _dry_run(limit: DeletionLimit | None) -> _SinkFor:
    def sink_for(opened: OpenedPass, lane: Lane, summary: Summary) -> DryRun:
        projection = lane.projection
        changes = FieldChanges(projection.schema_version, opened.made_with(projection))
        summary.changes[projection.read_model] = changes
        # A recheck counts no document again.
        again = opened.again(replace(lane))
        lane.projection = changes.watching(projection)
        return DryRun(again, summary, limit, changes)

    return sink_for


def _confirm(on_findings: OnFindings | None, ignored: Callable[[Finding], bool] | None) -> _SinkFor:
    return lambda opened, lane, summary: opened.confirm(lane, summary, on_findings, ignored)


def _always_ours() -> None:
    """A run over one aggregate takes no lease, because its writes are conditional."""
