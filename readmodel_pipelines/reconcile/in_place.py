"""The sink that corrects the live collection: writes only differences, and only if the document is unchanged since.

If the document changed meanwhile, the write is skipped and the aggregate is compared again from its events, a bounded
number of times.
"""

import random
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.reconcile.conflicts import untangle, why_blocked
from readmodel_pipelines.reconcile.deletions import Deferred, DeletionLimit, Deletions
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES, Written
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.summary import Summary

ATTEMPTS = 6

_GOES = (Outcome.ORPHAN, Outcome.UNEXPECTED)
_DELETE = "delete"
_DELETE_ODD = "delete_odd"
_CONFLICT = "conflict"


def _at_once(write: Callable[[], object]) -> None:
    write()


def _pause(attempt: int) -> None:
    if attempt:
        time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - it spreads writers, and keeps no secret


@dataclass
class InPlace:
    """Corrects the live collection.

    With a limit, deletions wait until the pass is over, and are all refused if they exceed it. `still_ours` raises if
    the run lost its lease. Batches are written `behind`, which may be in another thread.
    """

    again: Recheck
    summary: Summary
    still_ours: Callable[[], None]
    deletions: Deletions | DeletionLimit = Deletions.AT_ONCE
    deferred: Deferred = field(default_factory=Deferred)
    pause: Callable[[int], None] = _pause
    deletions_refused: bool = False
    behind: Callable[[Callable[[], object]], object] = _at_once
    _changes: list[Verdict] = field(default_factory=list)
    _put_off: list[tuple[str, Any]] = field(default_factory=list)
    _last: list[Verdict] = field(default_factory=list)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._lane = self.again.lane
        self._documents = self._lane.model.count() if isinstance(self.deletions, DeletionLimit) else 0
        self._may_delete = self.deletions is Deletions.AT_ONCE

    def accept(self, verdict: Verdict) -> None:
        """Add the write that corrects it to the batch."""
        if verdict.outcome is Outcome.MALFORMED:
            return
        if verdict.expected is not None:
            self._changes.append(verdict)
            self._bytes += verdict.weight
        elif self._may_delete:
            # Only after all documents were read in order.
            self._last.append(verdict)
        elif verdict.actual is not None and not is_plain(verdict.aggregate_id):
            self._put_off.append((_DELETE_ODD, verdict.actual["_id"]))
        else:
            self._put_off.append((_DELETE, verdict.aggregate_id))
        if len(self._changes) + len(self._put_off) >= BATCH or self._bytes >= BATCH_BYTES:
            self.behind(self.take())

    def finish(self) -> None:
        """Write the last batch, then the deletions, then the writes that waited for them; or leave these to the end of
        a rebuild.
        """
        self._changes += self._last
        self.take()()
        if self.deletions is Deletions.PUT_OFF:
            return
        if isinstance(self.deletions, DeletionLimit):
            self._delete(self.deletions)
        for keys in self.deferred.batches(_CONFLICT):
            self._write(self._compare_again(keys), on_conflict=self._settle)

    def take(self) -> Callable[[], None]:
        """Begin a new batch; returns what writes the old one."""
        write = partial(self._flush, self._changes, self._put_off)
        self._changes, self._put_off, self._bytes = [], [], 0
        return write

    def _flush(self, changes: Sequence[Verdict], put_off: Sequence[tuple[str, Any]]) -> None:
        """Write a batch; its deferred keys are stored."""
        for kind, key in put_off:
            self.deferred.add(kind, [key])
        if self.deletions is not Deletions.AT_ONCE:
            changes = self._not_newer_than_events(changes)
        self._write(
            changes, on_conflict=lambda stuck: self.deferred.add(_CONFLICT, [item.aggregate_id for item in stuck])
        )
        self.deferred.write()

    def _not_newer_than_events(self, changes: Sequence[Verdict]) -> list[Verdict]:
        """Compare again what would be replaced and whose stream has grown since it was folded.

        In a full pass both sides are read ahead, so that a document may have been read after its events; replacing it
        would put an older state over a newer one, and the condition of the write would hold. Where the stream ends now
        as it was folded, there are no newer events that the document could have been made from.
        """
        replaced = [change for change in changes if change.actual is not None]
        reached(Moment.SECOND_COMPARISON, keys=[change.aggregate_id for change in replaced])
        grown = {change.aggregate_id for change in self._grown(replaced)}
        again = self._compare_again(sorted(grown))
        self._lane.counts.superseded += len(grown - {change.aggregate_id for change in again})
        return [change for change in changes if change.actual is None or change.aggregate_id not in grown] + again

    def _grown(self, changes: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts whose stream has grown since it was folded."""
        last = self.again.last_versions([change.aggregate_id for change in changes]) if changes else {}
        # A skipped event ends a stream at a version that no fold has; a stream without events ends at 0.
        return [change for change in changes if last.get(change.aggregate_id, 0) != change.version]

    def _write(self, changes: Sequence[Verdict], on_conflict: Callable[[list[Verdict]], None]) -> None:
        before = self._lane.counts.superseded
        for attempt in range(ATTEMPTS):
            if not changes:
                return
            self.still_ours()
            written = self._lane.model.write(changes)
            self._count(written)
            if written.conflicts:
                conflicting = set(written.conflicts)
                on_conflict([change for change in changes if change.expected and change.aggregate_id in conflicting])
            lost = written.again + self._overtaken(changes, written)
            if not lost:
                return
            self.pause(attempt)
            changes = self._look_again(lost)
        self._give_up_busy(changes, before)

    def _overtaken(self, changes: Sequence[Verdict], written: Written) -> list[Verdict]:
        """Changes that were written although their stream has grown since it was folded, and are wrong by now.

        No condition of a write can tell: another writer may have seen that no document was there and left it so, as for
        a chat that was deleted; or the newer events have brought the document back to what was compared, or want one
        again that is deleted here.
        """
        kept_out = {change.aggregate_id for change in written.again if is_plain(change.aggregate_id)}
        kept_out |= {*written.conflicts, *(key for key, _, _ in written.refused if is_plain(key))}
        done = [item for item in changes if is_plain(item.aggregate_id) and item.aggregate_id not in kept_out]
        grown = self._grown(done)
        wrong = {item.aggregate_id: item for item in self.again.verdicts([item.aggregate_id for item in grown])}
        overtaken = [change for change in grown if change.aggregate_id in wrong]
        self._lane.counts.superseded += len(overtaken)
        inserted = [wrong[item.aggregate_id] for item in overtaken if item.actual is None and item.expected is not None]
        self._take_back([verdict for verdict in inserted if verdict.outcome in _GOES])
        return overtaken

    def _take_back(self, inserted: Sequence[Verdict]) -> None:
        """Delete at once inserted documents that are unwanted; nobody relies on them, whoever holds the lease now."""
        if inserted:
            self._lane.counts.inserted -= self._lane.model.write(inserted).counts.deleted

    def _compare_again(self, keys: Sequence[Any]) -> list[Verdict]:
        """The current changes for these keys; those of a stream that became malformed are given up."""
        changes = []
        for verdict in self.again.knowing_claims_of(keys).verdicts(keys):
            if verdict.outcome is Outcome.MALFORMED:
                detail = verdict.malformed.detail if verdict.malformed else ""
                self._give_up(verdict.aggregate_id, str(verdict.reason), detail)
            elif verdict.expected is not None or self._may_delete:
                changes.append(verdict)
            elif self.deletions_refused:
                self._give_up(verdict.aggregate_id, Why.DELETIONS_REFUSED)
            else:
                self.deferred.add(_DELETE, [verdict.aggregate_id])
        return changes

    def _look_again(self, changes: Sequence[Verdict]) -> list[Verdict]:
        keys = [change.aggregate_id for change in changes if is_plain(change.aggregate_id)]
        odd = [change.actual["_id"] for change in changes if change.actual and not is_plain(change.aggregate_id)]
        orphans = self.again.odd_orphans(self._lane.model.odd_documents_with(odd)) if odd else ()
        return self._compare_again(keys) + list(orphans)

    def _count(self, written: Written) -> None:
        self._lane.counts.add(written.counts)
        for key, reason, detail in written.refused:
            self._give_up(key, reason, detail)

    def _give_up(self, key: Any, reason: str, detail: str = "") -> None:
        self.summary.fail(self._lane.projection.read_model, key, reason, detail)

    def _give_up_held(self, conflicts: Mapping[Any, str], asked_for: Container[Any]) -> None:
        for key, index in conflicts.items():
            if is_plain(key) and key in asked_for:
                self._give_up(key, Why.KEY_HELD, f"its key of the unique index on {index} is held by another document")

    def _give_up_busy(self, changes: Sequence[Verdict], superseded: int) -> None:
        """Give up changes that failed at every attempt; each failed attempt lost against another writer."""
        others = self._lane.counts.superseded - superseded >= ATTEMPTS
        why = "the document changed meanwhile" if others else "the server deferred the write"
        for change in changes:
            self._give_up(change.aggregate_id, Why.BUSY, f"{why} {ATTEMPTS} times; run it again")

    def _delete(self, limit: DeletionLimit) -> None:
        """Delete the deferred documents, each verified again to be unwanted; none if they exceed the limit."""
        deletions = self.deferred.count(_DELETE) + self.deferred.count(_DELETE_ODD)
        if not deletions:
            self._may_delete = True
            return
        if not limit.allows(deletions, self._documents):
            self.deletions_refused = True
            self.summary.warnings.append(limit.refusal(self._lane.projection.read_model, deletions, self._documents))
            for keys in self.deferred.batches(_DELETE):
                for key in keys:
                    self._give_up(key, Why.DELETIONS_REFUSED)
            for ids in self.deferred.batches(_DELETE_ODD):
                for document in self._lane.model.odd_documents_with(ids):
                    self._give_up(document.get(self._lane.projection.key), Why.DELETIONS_REFUSED)
            return
        self._may_delete = True
        for keys in self.deferred.batches(_DELETE):
            changes = self._compare_again(keys)
            deleted = {change.aggregate_id for change in changes if change.expected is None}
            # A duplicate is deleted here; the document that it duplicates is handled by its own verdict.
            changes = [change for change in changes if change.expected is None or change.aggregate_id not in deleted]
            self._write(changes, on_conflict=self._settle)
        for ids in self.deferred.batches(_DELETE_ODD):
            orphans = self.again.odd_orphans(self._lane.model.odd_documents_with(ids))
            self._write(list(orphans), on_conflict=self._settle)

    def _settle(self, stuck: list[Verdict]) -> None:
        """Write documents that exchange unique keys; give up those whose key another document keeps.

        Documents that only block others have a verdict of their own, which writes them or gives them up.
        """
        asked_for = {change.aggregate_id for change in stuck}
        before = self._lane.counts.superseded
        for attempt in range(ATTEMPTS):
            tangle = untangle(self.again, stuck, deleting=self._may_delete)
            for key, holder in tangle.blocked.items():
                if key in asked_for:
                    self._give_up(key, *why_blocked(self.again, key, holder))
            if not tangle.movable:
                return
            self.still_ours()
            written = self._lane.model.swap(tangle.movable) if tangle.tied else Written()
            if written.conflicts or not tangle.tied:
                # Several claim a key that nobody holds yet: each is written alone, and the first one gets it.
                written = self._lane.model.write(tangle.movable)
            overtaken = self._overtaken(tangle.movable, written)
            written.refused = [item for item in written.refused if is_plain(item[0]) and item[0] in asked_for]
            self._count(written)
            if not (written.again or written.conflicts or overtaken):
                return
            if len(written.conflicts) == len(tangle.movable):
                self._give_up_held(written.conflicts, asked_for)
                return
            self.pause(attempt)
            stuck = [change for change in self._look_again(tangle.movable) if change.expected]
            if not stuck:
                return
        self._give_up_busy(
            [change for change in stuck if is_plain(change.aggregate_id) and change.aggregate_id in asked_for], before
        )
