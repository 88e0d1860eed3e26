"""The result of a run: counts for each read model, the first findings, warnings.

Findings are capped. Those of a read model, and its malformed streams, each have their own limit, so that many of one
kind hide none of another. `as_json` is the command line's `--json` document.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome, VerificationScope, of_all
from readmodel_pipelines.reconcile.field_changes import FieldChanges
from readmodel_pipelines.reconcile.finding import Finding, finding_of, kind_of
from readmodel_pipelines.reconcile.outages import Outages
from readmodel_pipelines.reconcile.outcome import ALARMS, Counts, Outcome, Verdict
from readmodel_pipelines.reconcile.shortened import ALWAYS_WHOLE
from readmodel_pipelines.shares import shared
from readmodel_pipelines.wording import cut

Verb = Literal["rebuild", "dry_run", "verify"]

DEFAULT_MAX_FINDINGS = 1000

_NOT_SHOWN = ("everything", "young", "look")


@dataclass(slots=True)
class Summary:
    """The result of one run over one or several read models.

    At most `max_findings` are kept of each read model, and as many of its malformed streams. Of a verification,
    `differing` counts findings by read model and field, `reasons` by reason. `oldest_seconds` has the age of a read
    model's oldest finding, without malformed streams, and `scope` the coverage. Of earlier findings by read model,
    `closed` counts the closed ones, and `elsewhere`, by outcome, the open ones outside of the coverage. `outages` are
    the causes of all findings except malformed streams, `without_cause` the number of findings beyond the limit of
    causes. `rebuilds` are full ones, one for all read models made from the same streams, with their states; `rebuild`
    combines them. `read_order` says how a full pass read the events, if it had a choice.
    """

    verb: Verb
    aggregate_type: str
    max_findings: int = DEFAULT_MAX_FINDINGS
    events: int = 0
    seconds: float = 0.0
    read_models: dict[str, Counts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rebuilds: list[RebuildOutcome] = field(default_factory=list)
    scope: VerificationScope = field(default_factory=VerificationScope)
    differing: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    oldest_seconds: dict[str, float] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, Counter[str]] = field(default_factory=dict)
    changes: dict[str, FieldChanges] = field(default_factory=dict)
    """Of a dry run, by read model: the changes of a rebuild, by field."""
    outages: Outages = field(default_factory=Outages)
    read_order: str = ""
    without_cause: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    """Of a verification, by read model: the number of ignored findings, which are no discrepancies."""
    _kept: Counter[tuple[str, bool]] = field(default_factory=Counter, repr=False)
    _by_aggregate: dict[tuple[str, str], Finding] = field(default_factory=dict, repr=False)

    @property
    def rebuild(self) -> RebuildOutcome:
        """Of several rebuilds the least finished one."""
        return of_all(self.rebuilds)

    def rebuild_of(self, read_model: str) -> RebuildOutcome:
        """The rebuild of a read model."""
        return next((item for item in self.rebuilds if read_model in item.read_models), RebuildOutcome())

    @property
    def ok(self) -> bool:
        """Verification: no discrepancy. Rebuild and dry run: every aggregate matches its events, or would.

        A run that stopped at the end of its window, or did only its slice, is ok so far.
        """
        if self.verb == "verify":
            return not any(counts.discrepancies for counts in self.read_models.values())
        refused = self.rebuild.state is RebuildState.REFUSED
        return not refused and not any(counts.malformed or counts.failed for counts in self.read_models.values())

    @property
    def looked_at_all(self) -> bool:
        """Whether every field of every document was compared, so that no finding means that all is well."""
        return self.scope.tier != "versions" and self.scope.everything

    @property
    def agreement(self) -> str:
        """The result of a verification without findings, limited to its coverage and tier."""
        if self.looked_at_all:
            return "every document matches its events"
        if self.scope.tier == "versions":
            return "presence and version of the documents match their events; no other field was compared"
        return "every compared document matches its events"

    def note(self, read_model: str, verdict: Verdict) -> None:
        """Count a verdict and keep it as a finding while there is room."""
        if self.has_room(read_model, verdict.outcome):
            self.add(finding_of(read_model, verdict))
        else:
            self._count(read_model, verdict.outcome)

    def add(self, finding: Finding) -> None:
        """Count a finding and keep it while there is room; lagging and undecided ones are only counted."""
        self._count(finding.read_model, finding.outcome)
        if finding.outcome not in ALARMS:
            return
        self.differing[finding.read_model].update(finding.fields.keys())
        if finding.reason:
            self.reasons[finding.read_model][str(finding.reason)] += 1
        if finding.age_seconds is not None and finding.outcome is not Outcome.MALFORMED:
            oldest = self.oldest_seconds.get(finding.read_model, 0.0)
            self.oldest_seconds[finding.read_model] = max(oldest, finding.age_seconds)
        if finding.outcome is not Outcome.MALFORMED:
            self.outages.add(finding.read_model, finding.aggregate_id, finding.cause)
        self.take_over([finding])

    def take_over(self, findings: Iterable[Finding]) -> None:
        """Keep findings that are already counted, while there is room."""
        for finding in findings:
            if self.has_room(finding.read_model, finding.outcome):
                self._kept[kind_of(finding)] += 1
                self.findings.append(finding)
                self._by_aggregate.setdefault((finding.read_model, repr(finding.aggregate_id)), finding)

    def first_findings(self, most: int) -> list[Finding]:
        """At most `most` findings, shared evenly among the kinds with their own limit."""
        return shared(self.findings, most, kind_of)

    def has_room(self, read_model: str, outcome: Outcome) -> bool:
        """Whether a finding of this outcome would be kept."""
        return self._kept[read_model, outcome is Outcome.MALFORMED] < self.max_findings

    def _count(self, read_model: str, outcome: Outcome) -> None:
        counts = self.read_models[read_model]
        setattr(counts, outcome.value, getattr(counts, outcome.value) + 1)

    def fail(self, read_model: str, aggregate_id: Any, reason: str, detail: str = "") -> None:
        """Count an aggregate that the run could not write, and set the reason of its finding."""
        self.read_models[read_model].failed += 1
        finding = self._by_aggregate.get((read_model, repr(aggregate_id)))
        if finding is not None:
            finding.reason, finding.detail, finding.failed = reason, cut(detail, ALWAYS_WHOLE), True

    def lack(self, read_model: str, aggregate_id: Any, reason: str, detail: str) -> None:
        """Count an aggregate whose documents lack an event, unless its stream is malformed anyway."""
        if not self.read_models[read_model].malformed:
            if (read_model, repr(aggregate_id)) not in self._by_aggregate:
                self.take_over([Finding(read_model, aggregate_id, Outcome.LAGGING)])
            self.fail(read_model, aggregate_id, reason, detail)

    @property
    def about(self) -> dict[str, Any]:
        """The rebuild or the coverage, for display, as plain JSON types, without empty values."""
        started_at = self.scope.started_at
        several = self.rebuilds if len(self.rebuilds) > 1 else ()
        said = {
            **self.rebuild.as_json(),
            "rebuilds": [item.as_json() | {"read_models": list(item.read_models)} for item in several] or None,
            **asdict(self.scope),
            "read_order": self.read_order or None,
            "started_at": started_at and f"{started_at.isoformat()}Z",
            "closed": sum(self.closed.values()) if self.closed else None,
            "open_elsewhere": sum(map(Counter.total, self.elsewhere.values())) if self.elsewhere else None,
        }
        return {name: value for name, value in said.items() if value is not None and name not in _NOT_SHOWN}

    def as_json(self) -> dict[str, Any]:
        """The `--json` document, of plain JSON types."""
        causes = {"causes": [item.as_json() for item in self.outages.largest_first()]}
        return {
            "verb": self.verb,
            "aggregate_type": self.aggregate_type,
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "read_models": {name: counts.as_dict() for name, counts in self.read_models.items()},
            "findings": [finding.as_json() for finding in self.findings],
            **({"changes": {name: item.as_json() for name, item in self.changes.items()}} if self.changes else {}),
            **(causes if self.verb == "verify" else {}),
            **({"ignored": dict(+self.ignored)} if +self.ignored else {}),
            "warnings": self.warnings,
            **self.about,
        }
