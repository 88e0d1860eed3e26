"""What becomes of the confirmed findings of one read model: they are reported and counted.

A worker process confirms and explains what it can, and this process tells it; everything else comes as verdicts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.causes import Causes, Explained
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.summary import Summary


@dataclass(frozen=True, slots=True)
class Telling:
    """Tells findings to `on_findings` and counts them in `summary`; `ignored` ones are counted apart."""

    projection: Projection
    causes: Causes
    summary: Summary
    on_findings: Callable[[Projection, Sequence[Finding]], None] | None
    ignored: Callable[[Finding], bool] | None

    def confirmed(self, verdicts: Sequence[Verdict]) -> None:
        """Explain confirmed verdicts, and tell them."""
        self._tell(self.causes.explain(verdicts).findings)

    def explained(self, explained: Explained) -> None:
        """Tell what a worker confirmed and explained; the limit of causes is one for all workers."""
        self.causes.budget.charge(explained)
        self._tell(explained.findings)

    def _tell(self, found: Sequence[Finding]) -> None:
        name = self.projection.read_model
        self.summary.without_cause[name] = self.causes.budget.not_looked_for
        if self.ignored is not None:
            every, found = found, [finding for finding in found if not self.ignored(finding)]
            self.summary.ignored[name] += len(every) - len(found)
        if self.on_findings and found:
            self.on_findings(self.projection, found)
        for finding in found:
            self.summary.add(finding)
