"""The sink of a dry run: counts the writes of a rebuild, and writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.reconcile.conflicts import Holder, keeps, node_of, untangle, why_blocked
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.field_changes import FieldChanges
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.summary import Summary

_UNWANTED = (Outcome.UNEXPECTED, Outcome.ORPHAN)


@dataclass
class DryRun:
    """Counts the writes that `InPlace` would do. Without a limit any number of deletions is allowed."""

    again: Recheck
    summary: Summary
    limit: DeletionLimit | None
    changes: FieldChanges = field(default_factory=FieldChanges)
    _wanted: list[Verdict] = field(default_factory=list)
    _bytes: int = 0
    _deletions: int = 0
    _wait_for_deletions: Counts = field(default_factory=Counts)
    _waiting: list[tuple[Any, Holder]] = field(default_factory=list)
    _claimed: dict[bytes, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lane = self.again.lane

    def accept(self, verdict: Verdict) -> None:
        """Predict the write that corrects it."""
        if verdict.expected is not None and verdict.actual is not None:
            self.changes.stored.count(verdict.aggregate_id, verdict.actual, verdict.expected)
        if verdict.expected is not None:
            self._wanted.append(verdict)
            self._bytes += verdict.weight
            if len(self._wanted) >= BATCH or self._bytes >= BATCH_BYTES:
                self._predict()
        elif verdict.outcome is not Outcome.MALFORMED:
            self._deletions += 1

    def finish(self) -> None:
        """Predict the last batch and the deletions."""
        self._predict()
        documents = self._lane.model.count() if self.limit else 0
        if self.limit is None or self.limit.allows(self._deletions, documents):
            self._lane.counts.deleted += self._deletions
            return
        name, waiting = self._lane.projection.read_model, self._wait_for_deletions
        self.summary.warnings.append(self.limit.refusal(name, self._deletions, documents))
        self._lane.counts.inserted -= waiting.inserted
        self._lane.counts.replaced -= waiting.replaced
        refused = [item for item in self.summary.findings if item.read_model == name and item.outcome in _UNWANTED]
        for finding in refused:
            self.summary.fail(name, finding.aggregate_id, Why.DELETIONS_REFUSED)
        for aggregate_id, holder in self._waiting:
            self.summary.fail(name, aggregate_id, *why_blocked(self.again, aggregate_id, holder))
        # Those without a finding.
        told = len(refused) + len(self._waiting)
        self._lane.counts.failed += self._deletions + waiting.inserted + waiting.replaced - told

    def _predict(self) -> None:
        """Every wanted document is written, unless a document that stays holds its unique key."""
        wanted, self._wanted, self._bytes = self._wanted, [], 0
        held: dict[str, list[tuple[str, Sequence[str]]]] = {}
        for change, document, index in self._lane.model.holders(wanted):
            held.setdefault(node_of(change), []).append((repr(document["_id"]), index))
        claims = {
            node_of(change): [claim for _, claim in of_it]
            for change, of_it in zip(wanted, self._lane.model.claims(wanted), strict=True)
        }
        stuck: list[Verdict] = []
        moved: dict[str, Verdict] = {}
        # In the order of the writes: inserts before replacements. Of several that claim the same key of a foreign index
        # the first one gets it.
        for change in sorted(wanted, key=lambda item: item.actual is not None):
            node = node_of(change)
            stay = (by not in moved or keeps(moved[by], change, index) for by, index in held.get(node, ()))
            if any(stay) or any(claim in self._claimed for claim in claims[node]):
                stuck.append(change)
            else:
                moved[node] = change
                self._claimed |= dict.fromkeys(claims[node], change)
                _count(change, self._lane.counts)
        blocked = self._predict_stuck(stuck) if stuck else {}
        for change in stuck:
            if change.aggregate_id in blocked:
                why = why_blocked(self.again, change.aggregate_id, blocked[change.aggregate_id])
                self.summary.fail(self._lane.projection.read_model, change.aggregate_id, *why)
            else:
                self._claimed |= dict.fromkeys(claims[node_of(change)], change)
                _count(change, self._lane.counts)

    def _predict_stuck(self, stuck: Sequence[Verdict]) -> dict[Any, Holder]:
        tangle = untangle(self.again, stuck, taken=self._claimed)
        if self.limit is None:
            # Only the requested ones are predicted by their verdicts; a rebuild also writes the documents that block
            # them.
            asked_for = {node_of(change) for change in stuck}
            for change in tangle.movable:
                if node_of(change) not in asked_for:
                    _count(change, self._lane.counts)
        else:
            without = untangle(self.again, stuck, deleting=False, taken=self._claimed)
            for change in stuck:
                if change.aggregate_id in without.blocked and change.aggregate_id not in tangle.blocked:
                    _count(change, self._wait_for_deletions)
                    if len(self._waiting) < self.summary.max_findings:
                        self._waiting.append((change.aggregate_id, without.blocked[change.aggregate_id]))
        return tangle.blocked


def _count(change: Verdict, counts: Counts) -> None:
    if change.expected is None:
        counts.deleted += 1
    elif change.actual is None:
        counts.inserted += 1
    else:
        counts.replaced += 1
