"""The sink that predicts: counts what a rebuild would write, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from readmodel_pipelines.reconcile.conflicts import Neighbours, node_of, untangle
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ports import BATCH, Change
from readmodel_pipelines.reconcile.second_look import SecondLook
from readmodel_pipelines.reconcile.summary import Summary


class DryRun:
    """Writes nothing; counts what `InPlace` would write."""

    def __init__(self, again: SecondLook, summary: Summary, limit: DeletionLimit | None) -> None:
        self._model = again.lane.model
        self._projection = again.lane.projection
        self._counts = again.lane.counts
        self._summary = summary
        self._neighbours = Neighbours(again)
        self._limit = limit
        self._wanted: list[Change] = []
        self._deletions = 0
        self._wait_for_deletions = Counts()

    def accept(self, verdict: Verdict) -> None:
        """Predict the write that mends it."""
        if verdict.expected is not None:
            self._wanted.append(Change.of(verdict))
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
                _count(change, self._counts)

    def _predict_stuck(self, stuck: Sequence[Change]) -> dict[Any, Any]:
        tangle = untangle(self._model, self._projection.key, stuck, self._neighbours.free_up)
        if self._limit is None:
            # Only those asked for are predicted by their verdicts; a rebuild writes who is in their way as well.
            asked_for = {node_of(change) for change in stuck}
            for change in tangle.movable:
                if node_of(change) not in asked_for:
                    _count(change, self._counts)
        else:
            without = untangle(self._model, self._projection.key, stuck, self._neighbours.free_up_without_deleting)
            for change in stuck:
                if change.key in without.blocked and change.key not in tangle.blocked:
                    _count(change, self._wait_for_deletions)
        return tangle.blocked


def _count(change: Change, counts: Counts) -> None:
    if change.expected is None:
        counts.deleted += 1
    elif change.actual is None:
        counts.inserted += 1
    else:
        counts.replaced += 1
