"""The repair worker: takes due tasks from the repair queue, batch by batch, and repairs their read models.

A batch is claimed, reconciled in one pass over its streams, and its tasks are completed or failed. The number of round
trips does not grow with the batch. A task is completed only if it was claimed before its aggregate's events were read.
A process may die at any point, and any number may work side by side.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from readmodel_pipelines.bookkeeping.leases import lost_leases, this_process
from readmodel_pipelines.bookkeeping.repair_queue import Failure, RepairQueue
from readmodel_pipelines.bookkeeping.repair_task import (
    AGGREGATE_NOT_FOUND,
    CANNOT_BE_WRITTEN,
    CRASHES_WORKER,
    REPEATED_FIELD,
    key_of,
)
from readmodel_pipelines.bookkeeping.set_aside import shortened
from readmodel_pipelines.errors import LeaseLost, NoEvents
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import Collection, Database, Document, OperationFailure, ServerTime, ours
from readmodel_pipelines.mongo.kinds import check_kinds, indexes_of, kinds_remembered
from readmodel_pipelines.mongo.no_events import every_document_is_an_orphan
from readmodel_pipelines.mongo.patience import ensure_retrying
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import choose_projections, projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.outcome import Outcome, Why
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.claim import Claim, Holder, claim, lease_of
from readmodel_pipelines.repair.summary import DeadLetter, RepairSummary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.side_by_side import side_by_side

ALONE_AFTER = 3
PARKED_AFTER = 20

_BUSY_ROUNDS = 10
_BUSY_SECONDS = 1.0
_NO_FINDING_LOST = 2**31
_PERMANENT = {*map(str, Reason), AGGREGATE_NOT_FOUND, CRASHES_WORKER}
_DETAILS = {
    "bad_aggregate_id": "the task's aggregate_id is no UUID in lower case with hyphens",
    "unknown_aggregate_type": "the task's aggregate_type names no read model",
    "unknown_task_type": "the task's task_type is not readmodel_sync",
    REPEATED_FIELD: "a field of the task occurs twice",
    CANNOT_BE_WRITTEN: "the task is nearly 16 MiB large, so nothing can be added to it",
}

_Failures = dict[str, tuple[str, str]]
"""(reason, detail) by aggregate id."""


class RepairWorker:
    """Works off the queue. `holder` is stored in the taken tasks; the same `owner` takes over its own leases at once.

    `on_batch` is called with the summary so far after every batch.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        holder: str = "",
        owner: str = "",
        batch_size: int | None = None,
        lease_seconds: float | None = None,
        on_batch: Callable[[RepairSummary], object] | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._database = ours(database)
        self._settings = settings
        self._queue = RepairQueue(database, settings)
        self._holder = Holder(holder or this_process(), owner, lease_seconds or settings.repair_lease_seconds)
        self._batch_size = batch_size or settings.repair_batch_size
        self._on_batch = on_batch
        self._draw = draw

    def work(self, *, limit: int | None = None, task_ids: Sequence[str] | None = None) -> RepairSummary:
        """Repair until nothing is due, or until `limit` aggregates are done; with `task_ids` these tasks, due or not.

        Tasks held by others or waiting for a later attempt are left. Aggregates whose workers died repeatedly come
        last, each alone.
        """
        with ensure_retrying(self._settings.failover_seconds), kinds_remembered():
            return self._work(limit, task_ids)

    def _work(self, limit: int | None, task_ids: Sequence[str] | None) -> RepairSummary:
        reached(Moment.REPAIRS)
        summary = RepairSummary()
        started = time.perf_counter()
        left: set[str] = set()
        passed_over: set[bytes] = set()
        dangerous: list[tuple[int, str, str]] = []

        def repair(stream: str, ids: Sequence[str], losses: int = 0, now: ServerTime | None = None) -> None:
            tried = self._repair(summary, stream, ids, losses, task_ids or (), now)
            # Named tasks stay open when they fail, because one attempt was requested.
            left.update(ids if task_ids else set(ids).difference(tried))
            summary.seconds = time.perf_counter() - started
            if self._on_batch:
                self._on_batch(summary)

        meanwhile = [self._check_queue, *self._indexes()]
        while limit is None or summary.aggregates < limit:
            *_, look, lost = side_by_side(*meanwhile, self._queue.look, self._lost)
            meanwhile = []
            room = self._batch_size if limit is None else min(self._batch_size, limit - summary.aggregates)
            due = self._queue.due(room, left, task_ids, passed_over, look)
            for reason, tasks in due.poison.items():
                self._make_dead_letters(summary, reason, tasks)
                # No task is taken twice, whatever its result.
                passed_over.update(map(key_of, tasks))
            if not due:
                break
            for stream, ids in due.aggregates.items():
                alone = {item for item in ids if lease_of(stream, item) in lost}
                dangerous += [(lost[lease_of(stream, item)], stream, item) for item in alone]
                left |= alone
                repair(stream, [item for item in ids if item not in alone], now=look.now)
        for losses, stream, aggregate_id in sorted(dangerous):
            if limit is None or summary.aggregates < limit:
                repair(stream, [aggregate_id], losses)
        summary.seconds = time.perf_counter() - started
        return summary

    def _check_queue(self) -> None:
        """Refuse an unsuitable queue; what the repairs will check is asked for with it."""
        store = Store(self._database, self._settings, projections_for(self._settings))
        others = [store.events.name, *(store.live(item).name for item in store.projections)]
        check_kinds(self._database, written=[self._settings.repair_queue_collection], to_remember=others)

    def _indexes(self) -> list[Callable[[], object]]:
        """Queries for the indexes that the repairs will ask for, remembered until then."""
        store = Store(self._database, self._settings, projections_for(self._settings))

        def remember(collection: Collection) -> None:
            # Without a right there, nothing may be due that needs it.
            with suppress(OperationFailure):
                indexes_of(collection)

        return [partial(remember, item) for item in (store.events, *map(store.live, store.projections))]

    def _lost(self) -> dict[str, int]:
        return lost_leases(self._database, ALONE_AFTER)

    def _make_dead_letters(self, summary: RepairSummary, reason: str, tasks: Sequence[Document]) -> None:
        detail = _DETAILS[reason]
        self._queue.make_dead_letters(tasks, reason, detail, self._holder.name)
        summary.claimed += len(tasks)
        summary.parked += len(tasks)
        summary.note_dead(_letter(task, reason, detail) for task in tasks)

    def _note_refused(self, summary: RepairSummary) -> int:
        """Record the tasks that could not be written; returns their number."""
        refused, number = list(self._queue.refused), len(self._queue.refused)
        self._queue.refused.clear()
        summary.parked += number
        summary.note_dead(_letter(task, CANNOT_BE_WRITTEN, why) for task, why in refused)
        return number

    def _repair(
        self,
        summary: RepairSummary,
        stream: str,
        ids: Sequence[str],
        losses: int,
        task_ids: Sequence[str],
        now: ServerTime | None,
    ) -> Sequence[str]:
        """Repair the aggregates that nobody else holds; returns those that were tried. `losses` workers in a row died
        of them.
        """
        if not ids:
            return ids
        try:
            with claim(self._database, self._queue, stream, ids, self._holder, task_ids, now) as claimed:
                summary.claimed += self._note_refused(summary)
                if not claimed.tasks:
                    return ()
                summary.batches += 1
                summary.aggregates += len(claimed.ids)
                summary.note_taken((stream, aggregate_id) for aggregate_id in claimed.ids)
                summary.claimed += claimed.tasks
                ended = summary.ended
                try:
                    if losses >= PARKED_AFTER:
                        detail = f"{losses} workers in a row died during its repair"
                        self._fail(summary, stream, claimed, {ids[0]: (CRASHES_WORKER, detail)})
                    else:
                        self._reconcile(summary, stream, claimed)
                finally:
                    self._note_refused(summary)
                    claimed.ended = summary.ended - ended
                    summary.lost += max(0, claimed.tasks - claimed.ended)
                return claimed.ids
        except LeaseLost:
            # Another worker has these tasks now; there may be more to do elsewhere.
            return ()

    def _reconcile(self, summary: RepairSummary, stream: str, claimed: Claim) -> None:
        projector = ReadModelProjector(
            self._database, self._settings, *self._queue.streams.read_models[stream], max_findings=_NO_FINDING_LOST
        )
        reached(Moment.REPAIR, ids=claimed.ids)
        try:
            found, unknown = projector.rebuild_some(claimed.ids, claimed.still_ours, allow_no_events=False)
        except NoEvents:
            self._fail_without_events(summary, stream, claimed)
            return
        if unknown and not found.events and self._lacks_events(stream):
            self._fail_without_events(summary, stream, claimed)
            return
        summary.count(found.read_models.items())
        failures = _failures(found)
        failures |= dict.fromkeys(unknown, (AGGREGATE_NOT_FOUND, "it has neither an event nor a document"))
        failures = self._keep_up(summary, projector, claimed, failures)
        claimed.still_ours()
        if done := [item for item in claimed.ids if item not in failures]:
            tasks = None if failures else claimed.tasks
            summary.completed += self._queue.complete(done, claimed.token, tasks)
        if still_busy := _busy(failures):
            summary.retried += self._queue.give_back(still_busy, claimed.token, _BUSY_SECONDS)
        self._fail(summary, stream, claimed, _without(failures, still_busy))

    def _lacks_events(self, stream: str) -> bool:
        made_from_it = choose_projections(self._settings, self._queue.streams.read_models[stream])
        return every_document_is_an_orphan(Store(self._database, self._settings, made_from_it))

    def _fail_without_events(self, summary: RepairSummary, stream: str, claimed: Claim) -> None:
        """The repair of any such aggregate would delete its document."""
        detail = f"{self._settings.events_collection} holds no event of such streams; a setting may be wrong"
        self._fail(summary, stream, claimed, dict.fromkeys(claimed.ids, (str(Why.NO_EVENTS), detail)))

    def _keep_up(
        self, summary: RepairSummary, projector: ReadModelProjector, claimed: Claim, failures: _Failures
    ) -> _Failures:
        """Read aggregates again whose documents others changed during each attempt; returns failures.

        Such a document need not equal the fold of the whole stream. It must include the events that existed when its
        tasks were claimed.
        """
        for _ in range(_BUSY_ROUNDS):
            busy = _busy(failures)
            if not busy:
                return failures
            since = projector.last_versions(busy)
            found, _unknown = projector.rebuild_some(busy, claimed.still_ours)
            summary.count(found.read_models.items())
            now = _failures(found)
            caught_up = [item for item in _busy(now) if projector.is_up_to_date_since(item, since.get(item, 1))]
            failures = _without(failures, busy) | _without(now, caught_up)
        return failures | dict.fromkeys(
            _busy(failures), (str(Why.BUSY), "other writers changed it during every attempt")
        )

    def _fail(self, summary: RepairSummary, stream: str, claimed: Claim, failures: _Failures) -> None:
        if not failures:
            return
        attempts = [
            Failure(item, reason, detail, () if reason in _PERMANENT else delays(self._settings, self._draw))
            for item, (reason, detail) in failures.items()
        ]
        failed = self._queue.fail(attempts, claimed.token)
        summary.retried += failed.retried
        summary.parked += failed.dead_letters
        summary.note_dead(
            DeadLetter(stream, item, *failure) for item, failure in failures.items() if item in failed.dead_ids
        )


def delays(settings: Settings, draw: Callable[[float, float], float]) -> list[float]:
    """The waits in seconds after the first failed attempt, the second and so on: exponential, capped, with full jitter.

    The wait after attempt n is uniform from 0 to `repair_backoff_seconds * repair_backoff_factor ** (n - 1)`, at most
    `repair_backoff_cap_seconds`; after the last of `repair_attempts` there is none. The jitter spreads tasks that
    failed together, for example because a server was down.
    """
    cap, longest, waits = settings.repair_backoff_cap_seconds, settings.repair_backoff_seconds, []
    for _ in range(settings.repair_attempts - 1):
        waits.append(draw(0.0, min(longest, cap)))
        # Limited to the cap here, so that many attempts do not exceed the range of floats.
        longest = min(longest * settings.repair_backoff_factor, cap)
    return waits


def _letter(task: Document, reason: str, detail: str) -> DeadLetter:
    return DeadLetter(shortened(task.get("aggregate_type")), shortened(task.get("aggregate_id")), reason, detail)


def _failures(found: Summary) -> _Failures:
    """The aggregates that could not be repaired. A reason that no retry can repair counts before others."""
    failures: _Failures = {}
    for finding in found.findings:
        if finding.failed or finding.outcome is Outcome.MALFORMED:
            known = failures.get(finding.aggregate_id)
            if known is None or known[0] not in _PERMANENT:
                failures[finding.aggregate_id] = (str(finding.reason), finding.detail)
    return failures


def _busy(failures: _Failures) -> list[str]:
    return [item for item, (reason, _) in failures.items() if reason == Why.BUSY]


def _without(failures: _Failures, ids: Sequence[str]) -> _Failures:
    return {item: failure for item, failure in failures.items() if item not in ids}
