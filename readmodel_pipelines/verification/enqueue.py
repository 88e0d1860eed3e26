"""Closing the loop: what a verification finds goes into the repair queue, where a worker mends it.

A repair deletes a document that no event accounts for. Lost events look the same, so no more deletions are queued than
a full rebuild would dare to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from readmodel_pipelines.events.stream import UUID
from readmodel_pipelines.mongo.repair_queue import RepairQueue
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.reconcile.pacing import RateLimit
from readmodel_pipelines.reconcile.summary import Finding

_BATCH = 500


class Enqueue:
    """Takes findings and queues repairs of their aggregates: at most `limit`, at most `per_second`.

    An aggregate with a pending task gets no second one. Malformed streams are left to the report: no repair mends
    them.
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
        self.queued = self.pending_already = self.over_limit = self.deletions_refused = 0

    def __call__(self, projection: Projection, findings: Sequence[Finding]) -> None:
        """Queue what a repair can mend of these."""
        repairable = [item for item in findings if _is_repairable(item) and self._may_go(projection, item)]
        ids = list(dict.fromkeys(item.aggregate_id for item in repairable))
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            room = min(len(batch), self._limit - self.queued)
            self._rate.spend(room)
            added, refused = self._queue.add_many(batch[:room], projection.name, "found by a verification")
            self.queued += added
            self.pending_already += room - added - refused
            self.over_limit += refused + len(batch) - room

    def warnings(self) -> list[str]:
        """What was not queued and why."""
        said = []
        if self.over_limit:
            said.append(
                f"{self.over_limit:,} findings were not queued for repair: READMODEL_ENQUEUE_LIMIT or "
                "READMODEL_REPAIR_QUEUE_LIMIT is reached. Verify again once these are repaired, or rebuild."
            )
        if self.deletions_refused:
            said.append(
                f"{self.deletions_refused:,} documents without a reason to be there were not queued for deletion: more "
                "than READMODEL_MAX_DELETE_SHARE. If the events are complete, rebuild with --allow-deletions."
            )
        return said

    def _may_go(self, projection: Projection, finding: Finding) -> bool:
        if finding.outcome not in (Outcome.ORPHAN, Outcome.UNEXPECTED):
            return True
        name = projection.read_model
        if name not in self._deletions_left:
            self._deletions_left[name] = self._deletions_allowed(projection)
        self._deletions_left[name] -= 1
        self.deletions_refused += self._deletions_left[name] < 0
        return self._deletions_left[name] >= 0


def _is_repairable(finding: Finding) -> bool:
    aggregate_id = finding.aggregate_id
    return (
        finding.outcome is not Outcome.MALFORMED
        and isinstance(aggregate_id, str)
        and UUID.fullmatch(aggregate_id) is not None
    )
