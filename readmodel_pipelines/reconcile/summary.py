"""What a run says when it is done: counts for each read model, the first findings, warnings.

Counts are never capped. Findings are: those of a read model, and among them malformed streams apart from the others,
each have room of their own, so that many of one kind hide none of another. `as_json` is the command line's `--json`
document.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from bson import json_util
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, JSONOptions

from readmodel_pipelines.reconcile.compare import ABSENT, differing_fields
from readmodel_pipelines.reconcile.outcome import ALARMS, Outcome, Verdict

Verb = Literal["rebuild", "dry_run", "verify"]

DEFAULT_MAX_FINDINGS = 1000
EVERYTHING = "every aggregate"
"""What a verification covers that leaves nothing out, in words."""


@dataclass(slots=True)
class Counts:
    """Aggregates of one read model by outcome, and what was written.

    `checked` is the sum of the outcomes. `inserted`, `replaced` and `deleted` are documents written, or in a dry
    run those that a rebuild would write. `superseded` counts writes that another writer was faster than; the aggregate
    was then compared again. `failed` are aggregates that need a write and did not get it.
    """

    checked: int = 0
    same: int = 0
    missing: int = 0
    different: int = 0
    unexpected: int = 0
    orphan: int = 0
    lagging: int = 0
    malformed: int = 0
    undecided: int = 0
    inserted: int = 0
    replaced: int = 0
    deleted: int = 0
    superseded: int = 0
    failed: int = 0

    @property
    def discrepancies(self) -> int:
        """Aggregates where read model and events do not agree, or cannot be compared; one that lags is none."""
        return self.missing + self.different + self.unexpected + self.orphan + self.malformed

    def add(self, other: Counts) -> None:
        """Count what another counted, too."""
        for name, number in other.as_dict().items():
            setattr(self, name, getattr(self, name) + number)

    def take(self) -> Counts:
        """What was counted so far; counting begins anew."""
        taken = replace(self)
        for name in taken.as_dict():
            setattr(self, name, 0)
        return taken

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(slots=True)
class Finding:
    """One aggregate that is not `same`: where, what, why; the differing fields with (expected, actual).

    For a malformed stream `version` and `event_id` are those of its first offending event. `failed`: a run that writes
    did not get it written; `reason` and `detail` say why. `first_seen` and `age_seconds` come from a verification that
    remembers.
    """

    read_model: str
    aggregate_id: Any
    outcome: Outcome
    reason: str | None = None
    detail: str = ""
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    version: Any = None
    event_id: Any = None
    failed: bool = False
    first_seen: datetime | None = None
    age_seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; BSON values in Extended JSON, a field that is not there as `{"$absent": true}`."""
        shown: dict[str, Any] = {
            "read_model": self.read_model,
            "aggregate_id": json_value(self.aggregate_id),
            "outcome": self.outcome.value,
            "reason": None if self.reason is None else str(self.reason),
            "fields": {name: _json_pair(*pair) for name, pair in self.fields.items()},
        }
        if self.detail:
            shown["detail"] = self.detail
        if self.event_id is not None:
            shown |= {"version": json_value(self.version), "event_id": json_value(self.event_id)}
        if self.first_seen is not None:
            shown |= {"first_seen": f"{self.first_seen.isoformat()}Z", "age_seconds": self.age_seconds}
        return shown


@dataclass(slots=True)
class Summary:
    """The result of one run over one or several read models.

    At most `max_findings` are kept of each read model, and as many of its malformed streams.
    Of a verification `differing` counts the findings by read model and field, `reasons` by reason, `oldest_seconds`
    has the age of the oldest finding of a read model but for malformed streams, and `about` says what it covered and
    did. By read model, of what earlier ones found, `closed` counts what is gone, and `elsewhere`, by outcome, what is
    open outside of what was looked at.
    """

    verb: Verb
    aggregate_type: str
    max_findings: int = DEFAULT_MAX_FINDINGS
    events: int = 0
    seconds: float = 0.0
    read_models: dict[str, Counts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    differing: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    oldest_seconds: dict[str, float] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, Counter[str]] = field(default_factory=dict)
    _kept: Counter[tuple[str, bool]] = field(default_factory=Counter, repr=False)
    _by_aggregate: dict[tuple[str, str], Finding] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Verify: nothing was found. Rebuild and dry run: every aggregate is, or would be, as its events say.

        One that stopped at the end of its window, or did its slice, is well so far.
        """
        if self.verb == "verify":
            return not any(counts.discrepancies for counts in self.read_models.values())
        refused = self.about.get("state") == "refused"
        return not refused and not any(counts.malformed or counts.failed for counts in self.read_models.values())

    @property
    def looked_at_all(self) -> bool:
        """Whether every field of every document was compared, so that nothing found means that all is well."""
        return self.about.get("tier") != "versions" and self.about.get("coverage", EVERYTHING) == EVERYTHING

    @property
    def agreement(self) -> str:
        """What a verification that found nothing can say: no more than it looked at."""
        if self.looked_at_all:
            return "every document is what its events say"
        if self.about.get("tier") == "versions":
            return "presence and version of the documents are what their events say; no other field was compared"
        return "every document that was looked at is what its events say"

    def note(self, read_model: str, verdict: Verdict) -> None:
        """Count a verdict and keep it as a finding while there is room."""
        if self._has_room(read_model, verdict.outcome):
            self.add(finding_of(read_model, verdict))
        else:
            self._count(read_model, verdict.outcome)

    def add(self, finding: Finding) -> None:
        """Count a finding and keep it while there is room; what lags or is undecided is counted alone."""
        self._count(finding.read_model, finding.outcome)
        if finding.outcome not in ALARMS:
            return
        self.differing[finding.read_model].update(finding.fields.keys())
        if finding.reason:
            self.reasons[finding.read_model][str(finding.reason)] += 1
        if finding.age_seconds is not None and finding.outcome is not Outcome.MALFORMED:
            oldest = self.oldest_seconds.get(finding.read_model, 0.0)
            self.oldest_seconds[finding.read_model] = max(oldest, finding.age_seconds)
        self.take_over([finding])

    def take_over(self, findings: Iterable[Finding]) -> None:
        """Keep findings that are counted already, while there is room."""
        for finding in findings:
            if self._has_room(finding.read_model, finding.outcome):
                self._kept[finding.read_model, finding.outcome is Outcome.MALFORMED] += 1
                self.findings.append(finding)
                self._by_aggregate.setdefault((finding.read_model, repr(finding.aggregate_id)), finding)

    def _has_room(self, read_model: str, outcome: Outcome) -> bool:
        return self._kept[read_model, outcome is Outcome.MALFORMED] < self.max_findings

    def _count(self, read_model: str, outcome: Outcome) -> None:
        counts = self.read_models[read_model]
        setattr(counts, outcome.value, getattr(counts, outcome.value) + 1)

    def fail(self, read_model: str, aggregate_id: Any, reason: str, detail: str = "") -> None:
        """Count an aggregate that the run could not do, and write the reason on its finding."""
        self.read_models[read_model].failed += 1
        finding = self._by_aggregate.get((read_model, repr(aggregate_id)))
        if finding is not None:
            finding.reason, finding.detail, finding.failed = reason, detail, True

    def as_json(self) -> dict[str, Any]:
        """The `--json` document, of plain JSON types."""
        return {
            "verb": self.verb,
            "aggregate_type": self.aggregate_type,
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "read_models": {name: counts.as_dict() for name, counts in self.read_models.items()},
            "findings": [finding.as_json() for finding in self.findings],
            "warnings": self.warnings,
            **self.about,
        }


def json_value(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A BSON value as plain JSON types, in Extended JSON."""
    if value is ABSENT:
        return {"$absent": True}
    return json.loads(json_util.dumps(value, json_options=options))


def _json_pair(expected: Any, actual: Any) -> dict[str, Any]:
    pair = {"expected": json_value(expected), "actual": json_value(actual)}
    if pair["expected"] == pair["actual"]:
        # They differ by BSON type alone, which only the canonical form shows.
        pair = {
            "expected": json_value(expected, CANONICAL_JSON_OPTIONS),
            "actual": json_value(actual, CANONICAL_JSON_OPTIONS),
        }
    return pair


def finding_of(read_model: str, verdict: Verdict) -> Finding:
    """The finding that a verdict is, with the fields that differ."""
    finding = Finding(read_model, verdict.aggregate_id, verdict.outcome, verdict.reason)
    if verdict.malformed is not None:
        finding.detail = verdict.malformed.detail
        finding.version, finding.event_id = verdict.malformed.version, verdict.malformed.event_id
    elif verdict.expected is not None and verdict.actual is not None:
        finding.fields = dict(differing_fields(verdict.expected, verdict.actual))
    return finding
