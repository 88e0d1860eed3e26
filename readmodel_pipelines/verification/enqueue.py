"""Queues repairs of the findings of a verification.

A repair deletes a document without a basis in the events. Lost events look the same, so no more deletions are queued
than a full rebuild would allow. A repair rebuilds all read models of a stream. So an aggregate whose deletion from one
read model is refused is not queued for another one.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.pacing import RateLimit
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Outcome

_BATCH = 500


class Enqueue:
    """Collects findings; `finish` queues repairs of their aggregates: at most `limit`, at most `per_second`.

    An aggregate with a pending task gets no second one, and one with a dead letter waits for a person. Malformed
    streams are only reported, because a repair cannot correct them.
    """

    def __init__(
        self,
        queue: RepairQueue,
        *,
        limit: int,
        per_second: float,
        deletions_allowed: Callable[[Projection], float],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._queue = queue
        self._limit = limit
        self._rate = RateLimit(per_second, clock=clock, sleep=sleep)
        self._deletions_allowed = deletions_allowed
        self._deletions_left: dict[str, float] = {}
        # By stream type and id; neither holds more than `limit`.
        self._wanted: dict[tuple[str, str], str] = {}
        self._refused: set[tuple[str, str]] = set()
        self.queued = self.pending_already = self.over_limit = self.deletions_refused = 0
        self.dead_letters = self.unnameable = 0

    def __call__(self, projection: Projection, findings: Sequence[Finding]) -> None:
        """Select the findings that a repair may correct."""
        stream = projection.fold.aggregate_type
        ids: dict[str, None] = {}
        for finding in findings:
            if finding.outcome is Outcome.MALFORMED:
                continue
            if not is_aggregate_id(finding.aggregate_id):
                self.unnameable += 1
            elif self._may_go(projection, finding):
                ids[finding.aggregate_id] = None
            else:
                self._refuse((stream, finding.aggregate_id))
        pending, dead = self._queue.known(list(ids), projection.name)
        self.pending_already += len(pending)
        self.dead_letters += len(dead)
        for aggregate_id in ids:
            if aggregate_id not in pending and aggregate_id not in dead:
                self._want((stream, aggregate_id), projection.name)

    def wanted(self, stream: str) -> list[str]:
        """The aggregates of this stream type that will be queued, in order."""
        return sorted(aggregate_id for of, aggregate_id in self._wanted if of == stream)

    def finish(self) -> None:
        """Queue the selected aggregates, after every read model was compared."""
        by_name: dict[str, list[str]] = defaultdict(list)
        for (_, aggregate_id), name in self._wanted.items():
            by_name[name].append(aggregate_id)
        for name, ids in by_name.items():
            for batch in batched(ids, _BATCH):
                self._rate.spend(len(batch))
                added, refused = self._queue.add_many(batch, name, "found by a verification")
                self.queued += added
                self.pending_already += len(batch) - added - refused
                self.over_limit += refused

    def warnings(self) -> list[str]:
        """Warnings about findings that were not queued, with the reasons."""
        said = []
        if self.over_limit:
            said.append(
                f"{self.over_limit:,} findings were not queued for repair: READMODEL_ENQUEUE_LIMIT or "
                "READMODEL_REPAIR_QUEUE_LIMIT is reached. Verify again after the queued repairs, or rebuild."
            )
        if self.deletions_refused:
            said.append(
                f"{self.deletions_refused:,} documents without a basis in the events were not queued for deletion: "
                "they exceed READMODEL_MAX_DELETE_SHARE. If the events are complete, rebuild with --allow-deletions."
            )
        if self.dead_letters:
            said.append(
                f"{self.dead_letters:,} findings were not queued: the last task of their aggregates is a dead letter. "
                "Fix the cause, then run `readmodel repair-queue requeue --all-failed`."
            )
        if self.unnameable:
            said.append(
                f"{self.unnameable:,} findings were not queued: their ids are no UUIDs, which a repair task requires. "
                "`readmodel rebuild-readmodel --type all --all` repairs them."
            )
        return said

    def _want(self, key: tuple[str, str], name: str) -> None:
        if key in self._wanted or key in self._refused:
            return
        # Above the limit the refused aggregates are unknown, so none is queued any more.
        if max(len(self._wanted), len(self._refused)) < self._limit:
            self._wanted[key] = name
        else:
            self.over_limit += 1

    def _refuse(self, key: tuple[str, str]) -> None:
        self._wanted.pop(key, None)
        if len(self._refused) < self._limit:
            self._refused.add(key)

    def _may_go(self, projection: Projection, finding: Finding) -> bool:
        if finding.outcome not in (Outcome.ORPHAN, Outcome.UNEXPECTED):
            return True
        name = projection.read_model
        if name not in self._deletions_left:
            self._deletions_left[name] = self._deletions_allowed(projection)
        self._deletions_left[name] -= 1
        self.deletions_refused += self._deletions_left[name] < 0
        return self._deletions_left[name] >= 0
