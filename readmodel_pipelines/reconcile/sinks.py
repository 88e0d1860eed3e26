"""Sinks: what is done about the verdicts on one read model. Dry run predicts, in place writes.

In place writes only what differs, and only while the stored document is still what was compared. A write that another
writer was faster than is compared again from the events on, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.events.values import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.conflicts import node_of, untangle
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import Change, Deferred, Written
from readmodel_pipelines.reconcile.run import Lane
from readmodel_pipelines.reconcile.summary import Counts, Summary

BATCH = 1_000
BATCH_BYTES = 16 * 1024 * 1024
ATTEMPTS = 6
DELETE_FLOOR = 100

_DELETE = "delete"
_DELETE_ODD = "delete_odd"
_CONFLICT = "conflict"

_WANTS_WRITE = (Outcome.MISSING, Outcome.DIFFERENT)


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """How many documents a full run may delete: a share of the read model, never below the floor."""

    share: float

    def allows(self, deletions: int, documents: int) -> bool:
        """Whether `deletions` of about `documents` may go."""
        return deletions <= self.of(documents)

    def of(self, documents: int) -> float:
        """How many of about `documents` may go."""
        return max(DELETE_FLOOR, self.share * documents)

    def refusal(self, read_model: str, deletions: int, documents: int) -> str:
        """The warning that a refused deletion leaves."""
        return (
            f"{read_model}: {deletions:,} of about {documents:,} documents would be deleted, more than "
            f"{int(self.of(documents)):,} allowed; none was. "
            "If the events are complete, allow them: --allow-deletions, or allow_deletions in a job's config."
        )


class InPlace:
    """Mends the live collection.

    With a `limit` (a full run) deletions wait until the pass is over and are refused together when they are too many;
    without one each goes with its batch. `again` compares keys anew and gives the verdicts that are not `same`;
    `last_versions` tells how far streams are now;
    `still_ours` raises when the run lost its lease.
    """

    def __init__(
        self,
        lane: Lane,
        summary: Summary,
        deferred: Deferred,
        *,
        again: Callable[[Sequence[str]], list[Verdict]],
        odd_orphans: Callable[[Iterable[Document]], Iterable[Verdict]],
        last_versions: Callable[[Sequence[str]], Mapping[str, Any]],
        pause: Callable[[int], None],
        still_ours: Callable[[], None],
        limit: DeletionLimit | None,
    ) -> None:
        self._model = lane.model
        self._projection = lane.projection
        self._counts = lane.counts
        self._summary = summary
        self._deferred = deferred
        self._again = again
        self._odd_orphans = odd_orphans
        self._neighbours = Neighbours(lane.projection.key, again, odd_orphans)
        self._last_versions = last_versions
        self._pause = pause
        self._still_ours = still_ours
        self._limit = limit
        self._documents = lane.model.count() if limit else 0
        self._may_delete = limit is None
        self.deletions_refused = False
        self._changes: list[Change] = []
        self._bytes = 0

    def take(self, verdict: Verdict) -> None:
        """Put the write that mends it into the batch."""
        if verdict.outcome is Outcome.MALFORMED:
            return
        if verdict.outcome in _WANTS_WRITE or self._may_delete:
            self._changes.append(_change(verdict))
            self._bytes += verdict.size
        elif verdict.actual is not None and not is_plain(verdict.aggregate_id):
            self._deferred.add(_DELETE_ODD, [verdict.actual["_id"]])
        else:
            self._deferred.add(_DELETE, [verdict.aggregate_id])
        if len(self._changes) >= BATCH or self._bytes >= BATCH_BYTES:
            self.flush()

    def finish(self) -> None:
        """Write the last batch, then the deletions, then what had to wait for them."""
        self.flush()
        if self._limit:
            self._delete(self._limit)
        for keys in self._deferred.batches(_CONFLICT):
            self._write(self._compare_again(keys), on_conflict=self._settle)

    def close(self) -> None:
        """Forget what was put off."""
        self._deferred.close()

    def flush(self) -> None:
        """Write the batch as it is."""
        changes, self._changes, self._bytes = self._changes, [], 0
        if self._limit:
            changes = self._not_newer_than_events(changes)
        self._write(changes, on_conflict=lambda stuck: self._deferred.add(_CONFLICT, [item.key for item in stuck]))

    def _not_newer_than_events(self, changes: Sequence[Change]) -> list[Change]:
        """Compare again what would be replaced.

        In a full pass both sides are read ahead, so that a document may have been read after its events; replacing it
        would put an older state over a newer one, and the condition of the write would hold.
        """
        inserts = [change for change in changes if change.actual is None]
        replaced = [change.key for change in changes if change.actual is not None]
        reached(Moment.SECOND_COMPARISON, keys=replaced)
        again = self._compare_again(replaced)
        self._counts.superseded += len(set(replaced) - {change.key for change in again})
        return inserts + again

    def _write(self, changes: Sequence[Change], on_conflict: Callable[[list[Change]], None]) -> None:
        for attempt in range(ATTEMPTS):
            if not changes:
                return
            self._still_ours()
            written = self._model.write(changes)
            self._count(written)
            if written.conflicts:
                conflicting = set(written.conflicts)
                on_conflict([change for change in changes if change.expected and change.key in conflicting])
            lost = written.again + self._overtaken(changes, written)
            if not lost:
                return
            self._pause(attempt)
            changes = self._look_again(lost)
        self._fail(changes)

    def _overtaken(self, changes: Sequence[Change], written: Written) -> list[Change]:
        """Documents inserted although their stream has grown since it was folded.

        Another writer may have seen that no document was there and left it so, as for a chat that was deleted: no
        condition of an insert can tell.
        """
        kept_out = {change.key for change in written.again if is_plain(change.key)}
        kept_out |= {*written.conflicts, *(key for key, _, _ in written.refused if is_plain(key))}
        inserts = [change for change in changes if change.actual is None and change.key not in kept_out]
        last = self._last_versions([change.key for change in inserts]) if inserts else {}
        overtaken = [change for change in inserts if last.get(change.key) != change.version]
        self._counts.superseded += len(overtaken)
        return overtaken

    def _compare_again(self, keys: Sequence[Any]) -> list[Change]:
        """The changes that these keys want now; those of a stream that became malformed are given up."""
        changes = []
        for verdict in self._again(keys):
            if verdict.outcome is Outcome.MALFORMED:
                detail = verdict.malformed.detail if verdict.malformed else ""
                self._summary.fail(self._projection.read_model, verdict.aggregate_id, str(verdict.reason), detail)
            elif verdict.outcome in _WANTS_WRITE or self._may_delete:
                changes.append(_change(verdict))
            elif self.deletions_refused:
                self._summary.fail(self._projection.read_model, verdict.aggregate_id, Why.DELETIONS_REFUSED)
            else:
                self._deferred.add(_DELETE, [verdict.aggregate_id])
        return changes

    def _look_again(self, changes: Sequence[Change]) -> list[Change]:
        keys = [change.key for change in changes if is_plain(change.key)]
        odd = [change.actual["_id"] for change in changes if change.actual and not is_plain(change.key)]
        orphans = self._odd_orphans(self._model.odd_documents_with(odd)) if odd else ()
        return self._compare_again(keys) + [_change(verdict) for verdict in orphans]

    def _count(self, written: Written) -> None:
        self._counts.inserted += written.inserted
        self._counts.replaced += written.replaced
        self._counts.deleted += written.deleted
        self._counts.superseded += written.superseded
        for key, reason, detail in written.refused:
            self._summary.fail(self._projection.read_model, key, reason, detail)

    def _fail(self, changes: Sequence[Change]) -> None:
        for change in changes:
            detail = f"another writer was faster {ATTEMPTS} times; run it again"
            self._summary.fail(self._projection.read_model, change.key, Why.BUSY, detail)

    def _delete(self, limit: DeletionLimit) -> None:
        """Delete what was put off, each proven again to be unwanted, or nothing when it is too much."""
        deletions = self._deferred.count(_DELETE) + self._deferred.count(_DELETE_ODD)
        if not deletions:
            self._may_delete = True
            return
        if not limit.allows(deletions, self._documents):
            self.deletions_refused = True
            self._summary.warnings.append(limit.refusal(self._projection.read_model, deletions, self._documents))
            for keys in self._deferred.batches(_DELETE):
                for key in keys:
                    self._summary.fail(self._projection.read_model, key, Why.DELETIONS_REFUSED)
            for ids in self._deferred.batches(_DELETE_ODD):
                for document in self._model.odd_documents_with(ids):
                    key = document.get(self._projection.key)
                    self._summary.fail(self._projection.read_model, key, Why.DELETIONS_REFUSED)
            return
        self._may_delete = True
        for keys in self._deferred.batches(_DELETE):
            changes = self._compare_again(keys)
            deleted = {change.key for change in changes if change.expected is None}
            # A duplicate goes here; the document that it duplicates went, or waits, as what it is.
            changes = [change for change in changes if change.expected is None or change.key not in deleted]
            self._write(changes, on_conflict=self._settle)
        for ids in self._deferred.batches(_DELETE_ODD):
            orphans = self._odd_orphans(self._model.odd_documents_with(ids))
            self._write([_change(verdict) for verdict in orphans], on_conflict=self._settle)

    def _free_up(self) -> Callable[[Sequence[Document]], list[Change]]:
        return self._neighbours.free_up if self._may_delete else self._neighbours.free_up_without_deleting

    def _settle(self, stuck: list[Change]) -> None:
        """Write documents that exchange unique keys; give up those whose key somebody keeps.

        Those that are only in the way have a verdict of their own, and are written or given up by it.
        """
        asked_for = {change.key for change in stuck}
        for attempt in range(ATTEMPTS):
            tangle = untangle(self._model, self._projection.key, stuck, self._free_up())
            for key, holder in tangle.blocked.items():
                if key in asked_for:
                    self._summary.fail(self._projection.read_model, key, *self._neighbours.why_blocked(key, holder))
            if not tangle.movable:
                return
            self._still_ours()
            written = self._model.swap(tangle.movable)
            written.refused = [item for item in written.refused if is_plain(item[0]) and item[0] in asked_for]
            self._count(written)
            if not (written.again or written.conflicts):
                return
            self._pause(attempt)
            stuck = [change for change in self._look_again(tangle.movable) if change.expected]
            if not stuck:
                return
        self._fail([change for change in stuck if is_plain(change.key) and change.key in asked_for])


class DryRun:
    """Writes nothing; counts what `InPlace` would write."""

    def __init__(
        self,
        lane: Lane,
        summary: Summary,
        *,
        again: Callable[[Sequence[str]], list[Verdict]],
        odd_orphans: Callable[[Iterable[Document]], Iterable[Verdict]],
        limit: DeletionLimit | None,
    ) -> None:
        self._model = lane.model
        self._projection = lane.projection
        self._counts = lane.counts
        self._summary = summary
        self._neighbours = Neighbours(lane.projection.key, again, odd_orphans)
        self._limit = limit
        self._wanted: list[Change] = []
        self._deletions = 0
        self._wait_for_deletions = Counts()

    def take(self, verdict: Verdict) -> None:
        """Predict the write that mends it."""
        if verdict.outcome in _WANTS_WRITE:
            self._wanted.append(_change(verdict))
            if len(self._wanted) >= BATCH:
                self._predict()
        elif verdict.outcome is not Outcome.MALFORMED:
            self._deletions += 1

    def finish(self) -> None:
        """Predict the last batch and the deletions."""
        self._predict()
        documents = self._model.count() if self._limit else 0
        if self._limit is None or self._limit.allows(self._deletions, documents):
            self._counts.deleted += self._deletions
            return
        self._summary.warnings.append(self._limit.refusal(self._projection.read_model, self._deletions, documents))
        waiting = self._wait_for_deletions
        self._counts.inserted -= waiting.inserted
        self._counts.replaced -= waiting.replaced
        self._counts.failed += self._deletions + waiting.inserted + waiting.replaced

    def close(self) -> None:
        """Nothing was held but memory."""

    def _predict(self) -> None:
        """Everything wanted is written, unless a document that will stay holds its unique key."""
        wanted, self._wanted = self._wanted, []
        held = {change.key for change, _ in self._model.holders(wanted)}
        stuck = [change for change in wanted if change.key in held]
        blocked: dict[Any, Any] = {}
        if stuck:
            blocked = self._predict_stuck(stuck)
        for change in wanted:
            if change.key in blocked:
                why = self._neighbours.why_blocked(change.key, blocked[change.key])
                self._summary.fail(self._projection.read_model, change.key, *why)
            else:
                _count_change(change, self._counts)

    def _predict_stuck(self, stuck: Sequence[Change]) -> dict[Any, Any]:
        tangle = untangle(self._model, self._projection.key, stuck, self._neighbours.free_up)
        if self._limit is None:
            # Only those asked for are predicted by their verdicts; a rebuild writes who is in their way as well.
            asked_for = {node_of(change) for change in stuck}
            for change in tangle.movable:
                if node_of(change) not in asked_for:
                    _count_change(change, self._counts)
        else:
            without = untangle(self._model, self._projection.key, stuck, self._neighbours.free_up_without_deleting)
            for change in stuck:
                if change.key in without.blocked and change.key not in tangle.blocked:
                    _count_change(change, self._wait_for_deletions)
        return tangle.blocked


class Neighbours:
    """The documents that hold a unique key which another one wants: what becomes of them, and why one stays."""

    def __init__(
        self,
        key: str,
        again: Callable[[Sequence[str]], list[Verdict]],
        odd_orphans: Callable[[Iterable[Document]], Iterable[Verdict]],
    ) -> None:
        self._key = key
        self._again = again
        self._odd_orphans = odd_orphans

    def free_up(self, documents: Sequence[Document]) -> list[Change]:
        """The changes that make these documents right, deletions among them; none for those that stay."""
        keys = [document[self._key] for document in documents if is_plain(document.get(self._key))]
        odd = [document for document in documents if not is_plain(document.get(self._key))]
        verdicts = [*self._again(keys), *self._odd_orphans(odd)]
        return [_change(verdict) for verdict in verdicts if verdict.outcome is not Outcome.MALFORMED]

    def free_up_without_deleting(self, documents: Sequence[Document]) -> list[Change]:
        """As `free_up`, but those that ought to be deleted stay."""
        return [change for change in self.free_up(documents) if change.expected is not None]

    def why_blocked(self, key: Any, holder: Any) -> tuple[str, str]:
        """Reason and detail. A holder that is right as it is claims the key by its own events: neither is trusted."""
        if is_plain(holder) and not self._again([holder]):
            return Reason.KEY_CONFLICT, f"{key} and {holder} claim the same unique key"
        return Why.KEY_HELD, f"its unique key is held by the document of {holder}, which this run may not change"


def _change(verdict: Verdict) -> Change:
    expected = verdict.expected if verdict.outcome in _WANTS_WRITE else None
    return Change(verdict.aggregate_id, expected, verdict.actual, verdict.version)


def _count_change(change: Change, counts: Counts) -> None:
    if change.expected is None:
        counts.deleted += 1
    elif change.actual is None:
        counts.inserted += 1
    else:
        counts.replaced += 1
