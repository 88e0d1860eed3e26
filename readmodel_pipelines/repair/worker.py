"""The repair worker: takes what is due from the repair queue, batch by batch, and brings its read models in line.

A batch is claimed, reconciled in one pass over its streams, and its tasks are completed or failed, in a number of round
trips that does not grow with the batch. A task is completed only when it was claimed before its aggregate's events were
read. One process may die at any point, and any number may work beside one another.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.bookkeeping.leases import lost_leases, this_process
from readmodel_pipelines.bookkeeping.repair_queue import AGGREGATE_NOT_FOUND, CRASHES_WORKER, Failure, RepairQueue
from readmodel_pipelines.errors import LeaseLost
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines.reconcile.outcome import Outcome, Why
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.backoff import backoff_of
from readmodel_pipelines.repair.claim import Claim, Holder, claim, lease_of
from readmodel_pipelines.settings import Settings

ALONE_AFTER = 3
PARKED_AFTER = 20

_BUSY_ROUNDS = 10
_BUSY_SECONDS = 1.0
_NO_FINDING_LOST = 2**31
_DEAD_LETTERS_KEPT = 1_000
_TAKEN_KEPT = 50
_PERMANENT = {*map(str, Reason)}


@dataclass(slots=True)
class DeadLetter:
    """What a worker parked: an aggregate, or tasks that name none by their number."""

    aggregate_type: Any
    aggregate_id: Any
    reason: str
    detail: str

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {name: json_value(getattr(self, name)) for name in self.__slots__}


@dataclass(slots=True)
class RepairSummary:
    """What a worker did. All but `aggregates` and `batches` are numbers of tasks.

    `claimed` were taken, `completed` are repaired, `retried` failed and will be tried again, `parked` are dead letters
    now, `lost` were not ended because our lease ran out. `read_models` has what was found and written, `first_taken`
    the aggregates that were taken first, as (stream, id).
    """

    batches: int = 0
    aggregates: int = 0
    claimed: int = 0
    completed: int = 0
    retried: int = 0
    parked: int = 0
    lost: int = 0
    seconds: float = 0.0
    read_models: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    first_taken: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Tasks that are out of our hands, one way or another."""
        return self.completed + self.retried + self.parked

    @property
    def ok(self) -> bool:
        """Whether everything that was taken is repaired."""
        return not (self.retried or self.parked or self.lost)

    def in_words(self) -> str:
        """What was taken and how it ended, as a sentence."""
        ends = {
            "completed": self.completed,
            "to be tried again": self.retried,
            "parked": self.parked,
            "lost with our lease": self.lost,
        }
        told = ", ".join(f"{number:,} {end}" for end, number in ends.items() if number) or "nothing was due"
        tasks = f"{self.claimed:,} {'task' if self.claimed == 1 else 'tasks'}"
        return f"{tasks} taken in {self.seconds:,.2f} s: {told}."

    def add(self, other: RepairSummary) -> None:
        """What another round of work did comes on top."""
        for name in ("batches", "aggregates", "claimed", "completed", "retried", "parked", "lost", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for read_model, counts in other.read_models.items():
            self.count(read_model, counts)
        self.dead_letters += other.dead_letters[: _DEAD_LETTERS_KEPT - len(self.dead_letters)]
        self.take(other.first_taken)

    def take(self, aggregates: Iterable[tuple[str, str]]) -> None:
        """These were taken; the first are kept."""
        self.first_taken += islice(aggregates, _TAKEN_KEPT - len(self.first_taken))

    def count(self, read_model: str, counts: Counts) -> None:
        """Add what was found and written in a read model."""
        total = self.read_models[read_model]
        for name, number in counts.as_dict().items():
            setattr(total, name, getattr(total, name) + number)

    def as_json(self) -> dict[str, Any]:
        """The `--json` document, of plain JSON types."""
        names = ("batches", "aggregates", "claimed", "completed", "retried", "parked", "lost")
        return {
            "verb": "repair",
            **{name: getattr(self, name) for name in names},
            "seconds": round(self.seconds, 3),
            "read_models": {name: counts.as_dict() for name, counts in self.read_models.items()},
            "dead_letters": [letter.as_json() for letter in self.dead_letters],
        }


class RepairWorker:
    """Works off the queue. `holder` stands in the tasks it takes; the same `owner` takes its own leases over at once.

    `on_batch` is told the summary so far after every batch.
    """

    def __init__(
        self,
        database: Database[Document],
        settings: Settings,
        *,
        holder: str = "",
        owner: str = "",
        batch_size: int | None = None,
        lease_seconds: float | None = None,
        on_batch: Callable[[RepairSummary], object] | None = None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._database = database
        self._settings = settings
        self._queue = RepairQueue(database, settings)
        self._holder = Holder(holder or this_process(), owner, lease_seconds or settings.repair_lease_seconds)
        self._batch_size = batch_size or settings.repair_batch_size
        self._backoff = backoff_of(settings)
        self._on_batch = on_batch
        self._draw = draw

    def work(self, *, limit: int | None = None, task_ids: Sequence[Any] | None = None) -> RepairSummary:
        """Repair until nothing is due, or `limit` aggregates are done; or else these tasks, whether due or not.

        What others hold, or what only a later attempt may mend, is left. Aggregates whose workers died again and again
        come last, each alone.
        """
        summary = RepairSummary()
        started = time.perf_counter()
        left: set[str] = set()
        dangerous: list[tuple[int, str, str]] = []

        def repair(stream: str, ids: Sequence[str], losses: int = 0) -> None:
            tried = self._repair(summary, stream, ids, losses, task_ids or ())
            # Named tasks stay open when they fail, and one attempt was asked for.
            left.update(ids if task_ids else set(ids).difference(tried))
            summary.seconds = time.perf_counter() - started
            if self._on_batch:
                self._on_batch(summary)

        while limit is None or summary.aggregates < limit:
            room = self._batch_size if limit is None else min(self._batch_size, limit - summary.aggregates)
            due = self._queue.due(room, left, task_ids)
            for reason, tasks in due.poison.items():
                self._park(summary, reason, tasks)
            if not due:
                break
            for stream, ids in due.aggregates.items():
                lost = self._lost(stream, ids)
                dangerous += [(lost[item], stream, item) for item in ids if lost.get(item, 0) >= ALONE_AFTER]
                left.update(item for item in ids if lost.get(item, 0) >= ALONE_AFTER)
                repair(stream, [item for item in ids if lost.get(item, 0) < ALONE_AFTER])
        for losses, stream, aggregate_id in sorted(dangerous):
            if limit is None or summary.aggregates < limit:
                repair(stream, [aggregate_id], losses)
        summary.seconds = time.perf_counter() - started
        return summary

    def _lost(self, stream: str, ids: Sequence[str]) -> dict[str, int]:
        names = {lease_of(stream, item): item for item in ids}
        return {names[name]: lost for name, lost in lost_leases(self._database, list(names)).items()}

    def _park(self, summary: RepairSummary, reason: str, tasks: Sequence[Document]) -> None:
        parked = self._queue.park(tasks, reason, _DETAILS[reason], self._holder.name)
        summary.claimed += parked
        summary.parked += parked
        for task in tasks:
            self._remember(summary, task.get("aggregate_type"), task.get("aggregate_id"), reason, _DETAILS[reason])

    def _repair(
        self, summary: RepairSummary, stream: str, ids: Sequence[str], losses: int, task_ids: Sequence[Any]
    ) -> Sequence[str]:
        """Repair those that nobody else holds; `losses` workers in a row died of it. Gives those that were tried."""
        if not ids:
            return ids
        try:
            with claim(self._database, self._queue, stream, ids, self._holder, task_ids) as claimed:
                if not claimed.tasks:
                    return ()
                summary.batches += 1
                summary.aggregates += len(claimed.ids)
                summary.take((stream, aggregate_id) for aggregate_id in claimed.ids)
                summary.claimed += claimed.tasks
                ended = summary.ended
                try:
                    if losses >= PARKED_AFTER:
                        detail = f"{losses} workers in a row did not come back from it"
                        self._fail(summary, stream, claimed, [Failure(ids[0], CRASHES_WORKER, detail)])
                    else:
                        self._reconcile(summary, stream, claimed)
                finally:
                    summary.lost += max(0, claimed.tasks - (summary.ended - ended))
                return claimed.ids
        except LeaseLost:
            # The tasks are somebody else's now; there may be more to do elsewhere.
            return ()

    def _reconcile(self, summary: RepairSummary, stream: str, claimed: Claim) -> None:
        projector = ReadModelProjector(
            self._database, self._settings, *self._queue.read_models[stream], max_findings=_NO_FINDING_LOST
        )
        found, unknown = projector.rebuild_some(claimed.ids, claimed.still_ours)
        failures = _failures(found)
        busy = [aggregate_id for aggregate_id, (reason, _) in failures.items() if reason == Why.BUSY]
        self._count(summary, found)
        for aggregate_id in unknown:
            failures[aggregate_id] = (AGGREGATE_NOT_FOUND, "there is neither an event nor a document for it")
        if busy:
            for aggregate_id in busy:
                del failures[aggregate_id]
            failures |= self._keep_up(summary, projector, claimed, busy)
        claimed.still_ours()
        summary.completed += claimed.complete([item for item in claimed.ids if item not in failures])
        still_busy = [item for item, (reason, _) in failures.items() if reason == Why.BUSY]
        summary.retried += claimed.give_back(still_busy, _BUSY_SECONDS)
        self._fail(
            summary,
            stream,
            claimed,
            [
                Failure(item, reason, detail, () if _is_permanent(reason) else self._backoff.delays(self._draw))
                for item, (reason, detail) in failures.items()
                if reason != Why.BUSY
            ],
        )

    def _keep_up(
        self, summary: RepairSummary, projector: ReadModelProjector, claimed: Claim, busy: list[str]
    ) -> dict[str, tuple[str, str]]:
        """Aggregates whose documents others changed under our hands each time: read again, at once; gives failures.

        Such a document need not be what the whole stream folds to: it has only to have caught up with the events that
        were there when its tasks were claimed.
        """
        failures: dict[str, tuple[str, str]] = {}
        for _ in range(_BUSY_ROUNDS):
            since = projector.last_versions(busy)
            found, _unknown = projector.rebuild_some(busy, claimed.still_ours)
            self._count(summary, found)
            now = _failures(found)
            failures |= {item: why for item, why in now.items() if why[0] != Why.BUSY}
            busy = [
                item
                for item, (reason, _) in now.items()
                if reason == Why.BUSY and not projector.is_up_to_date_since(item, since.get(item, 1))
            ]
            if not busy:
                return failures
        return failures | dict.fromkeys(busy, (str(Why.BUSY), "other writers changed it again and again"))

    def _fail(self, summary: RepairSummary, stream: str, claimed: Claim, failures: Sequence[Failure]) -> None:
        if not failures:
            return
        failed = claimed.fail(failures)
        summary.retried += failed.retried
        summary.parked += failed.parked
        for failure in failures:
            if failure.aggregate_id in failed.parked_ids:
                self._remember(summary, stream, failure.aggregate_id, failure.reason, failure.detail)

    def _count(self, summary: RepairSummary, found: Summary) -> None:
        for name, counts in found.read_models.items():
            summary.count(name, counts)

    def _remember(self, summary: RepairSummary, kind: Any, aggregate_id: Any, reason: str, detail: str) -> None:
        if len(summary.dead_letters) < _DEAD_LETTERS_KEPT:
            summary.dead_letters.append(DeadLetter(kind, aggregate_id, reason, detail))


_DETAILS = {
    "bad_aggregate_id": "the task's aggregate_id is no UUID in lower case with hyphens",
    "unknown_aggregate_type": "the task's aggregate_type names no read model",
    "unknown_task_type": "the task's task_type is not readmodel_sync",
}


def _is_permanent(reason: str) -> bool:
    return reason in _PERMANENT or reason == AGGREGATE_NOT_FOUND


def _failures(found: Summary) -> dict[str, tuple[str, str]]:
    """What could not be repaired: (reason, detail) by aggregate id. One that no retry can mend counts before others."""
    failures: dict[str, tuple[str, str]] = {}
    for finding in found.findings:
        if finding.failed or finding.outcome is Outcome.MALFORMED:
            known = failures.get(finding.aggregate_id)
            if known is None or not _is_permanent(known[0]):
                failures[finding.aggregate_id] = (str(finding.reason), finding.detail)
    return failures
