"""The sink of a verification: each finding is compared again before it is reported, so that a live writer raises no
alarm.

A pass reads events and documents at different times, and an application updates a document a moment after it appends.
So every verdict is compared again, documents first. If its stream has events younger than the grace time, it is
compared once more after that time. A document that then equals the fold without such young events is `lagging`.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from readmodel_pipelines.events.ids import byte_order, is_plain
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.recheck import Recheck

PUT_OFF = 50_000
"""Maximum number of ids held until their grace time is over; with more, the pass waits for the oldest."""

SEEN_BYTES = 4 * 1024 * 1024
"""Maximum number of bytes of events held until the recheck; the others are read again."""

_MAY_LAG = (Outcome.MISSING, Outcome.DIFFERENT, Outcome.UNEXPECTED)


@dataclass
class Confirm:
    """Passes confirmed verdicts to `note` in batches; the others count as `same`.

    `beforehand` gets verdicts that may stand, while the pass is still at their stream.
    """

    counts: Counts
    again: Recheck
    note: Callable[[Sequence[Verdict]], None]
    grace_seconds: float
    beforehand: Callable[[Verdict], object] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    _doubtful: list[str] = field(default_factory=list)
    _seen: list[Verdict] = field(default_factory=list)
    _bytes: int = 0
    _put_off: deque[tuple[float, str, int]] = field(default_factory=deque)

    def accept(self, verdict: Verdict) -> None:
        """Recheck it with the next batch; a verdict whose id cannot be queried is confirmed as it is."""
        if not is_plain(verdict.aggregate_id):
            self.note([verdict])
            return
        # All verdicts on one id, also on duplicates of its document, go into one batch.
        full = len(self._doubtful) >= BATCH or self._bytes >= BATCH_BYTES
        if full and self._doubtful[-1] != verdict.aggregate_id:
            self.look_again()
        self._doubtful.append(verdict.aggregate_id)
        self._bytes += verdict.weight
        if verdict.expected is not None and self._bytes <= SEEN_BYTES:
            self.beforehand(verdict)
            self._seen.append(verdict)

    def finish(self) -> None:
        """Recheck the rest, wait for the grace time if needed, and report."""
        self.look_again()
        while self._put_off:
            self._settle()

    def look_again(self) -> None:
        """Recheck the verdicts collected so far; the grace time of possibly lagging ones starts now."""
        ids, seen = self._doubtful, self._seen
        self._doubtful, self._seen, self._bytes = [], [], 0
        if not ids:
            return
        verdicts, young = self.again.standing(seen, self.grace_seconds) if seen else ([], {})
        standing = {verdict.aggregate_id for verdict in verdicts}
        if rest := [aggregate_id for aggregate_id in ids if aggregate_id not in standing]:
            verdicts += self.again.verdicts(rest)
            verdicts.sort(key=lambda verdict: byte_order(verdict.aggregate_id))
            if self.grace_seconds:
                young = {**young, **self.again.young(rest, self.grace_seconds)}
        self._count(ids, verdicts)
        due = self.clock() + self.grace_seconds
        self._put_off += [
            (due, verdict.aggregate_id, verdict.weight) for verdict in verdicts if verdict.aggregate_id in young
        ]
        self.note([verdict for verdict in verdicts if verdict.aggregate_id not in young])
        while len(self._put_off) > PUT_OFF:
            self._settle()

    def _settle(self) -> None:
        """Compare a batch of the oldest deferred ones once more."""
        ids: list[str] = []
        due, size = 0.0, 0
        while self._put_off and ((len(ids) < BATCH and size < BATCH_BYTES) or self._put_off[0][1] == ids[-1]):
            due, aggregate_id, weight = self._put_off.popleft()
            ids.append(aggregate_id)
            size += weight
        self.sleep(max(0.0, due - self.clock()))
        verdicts = self.again.verdicts(ids)
        self._count(ids, verdicts)
        young = self.again.young(sorted({item.aggregate_id for item in verdicts if _may_lag(item)}), self.grace_seconds)
        # Without its young events the stream ends one version before the first of them.
        behind = self.again.behind({aggregate_id: first - 1 for aggregate_id, first in young.items()})
        for verdict in verdicts:
            if verdict.aggregate_id in behind and _may_lag(verdict):
                verdict.outcome = Outcome.LAGGING
        self.note(verdicts)

    def _count(self, ids: Sequence[str], verdicts: Sequence[Verdict]) -> None:
        """Each of `ids` is already counted as checked; one that is right now counts as `same`."""
        right = len(ids) - len(verdicts)
        self.counts.same += max(right, 0)
        self.counts.checked += max(-right, 0)


@dataclass
class FirstLook:
    """Confirms verdicts in a worker process as far as this needs no event; a `Confirm` of its caller has the others.

    `note` and `beforehand` are as in `Confirm`.
    """

    counts: Counts
    again: Recheck
    note: Callable[[Sequence[Verdict]], None]
    grace_seconds: float
    beforehand: Callable[[Verdict], object]
    _seen: list[Verdict] = field(default_factory=list)

    def see(self, verdict: Verdict) -> None:
        """Hold a verdict that has an expected document until the next look."""
        self.beforehand(verdict)
        self._seen.append(verdict)

    def rest_of(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Confirm what was seen; returns those of these verdicts, which are all on the same aggregates, that are left.

        One with young events has to be compared again after the grace time.
        """
        seen, self._seen = self._seen, []
        standing, young = self.again.standing(seen, self.grace_seconds) if seen else ([], {})
        standing = [verdict for verdict in standing if verdict.aggregate_id not in young]
        ids = {verdict.aggregate_id for verdict in standing}
        self.note(standing)
        rest = [verdict for verdict in verdicts if verdict.aggregate_id not in ids]
        # A second document with the same key is gone.
        self.counts.same += len(verdicts) - len(rest) - len(standing)
        return rest


def _may_lag(verdict: Verdict) -> bool:
    """Whether it can be lag; a second document for the same key, or one without events, cannot."""
    return verdict.outcome in _MAY_LAG and verdict.reason is None
