"""A finding: the report on one aggregate that is not `same`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson.json_util import CANONICAL_JSON_OPTIONS

from readmodel_pipelines.reconcile.cause import Cause
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.shortened import ALWAYS_WHOLE, in_json, shortened, shortened_pairs
from readmodel_pipelines.wording import cut


@dataclass(slots=True)
class Finding:
    """One aggregate that is not `same`: read model, outcome, reason, and the different fields with (expected, actual).

    Long values are `Shortened`, because thousands of findings are held and written into reports. For a malformed stream
    `version` and `event_id` are those of its first offending event. `failed` means that a run could not write it;
    `reason` and `detail` have the cause. `first_seen` and `age_seconds` come from a verification that records findings,
    `cause` from any. `last_version` is the stream's when the finding was confirmed, if it was read.
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
    cause: Cause | None = None
    last_version: Any = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; BSON values in Extended JSON, a missing field as `{"$absent": true}`."""
        shown: dict[str, Any] = {
            "read_model": self.read_model,
            "aggregate_id": in_json(shortened(self.aggregate_id)),
            "outcome": self.outcome.value,
            "reason": None if self.reason is None else str(self.reason),
            "fields": {name: _json_pair(*pair) for name, pair in self.fields.items()},
        }
        if self.cause is not None:
            shown["cause"] = self.cause.as_json()
        if self.detail:
            shown["detail"] = self.detail
        if self.event_id is not None:
            shown |= {"version": in_json(self.version), "event_id": in_json(self.event_id)}
        if self.first_seen is not None:
            shown |= {"first_seen": f"{self.first_seen.isoformat()}Z", "age_seconds": self.age_seconds}
        return shown


def kind_of(finding: Finding) -> tuple[str, bool]:
    """The kind that shares the limit of findings: a read model, with malformed streams apart from the others."""
    return finding.read_model, finding.outcome is Outcome.MALFORMED


def finding_of(read_model: str, verdict: Verdict) -> Finding:
    """The finding for a verdict, with the different fields."""
    finding = Finding(read_model, verdict.aggregate_id, verdict.outcome, verdict.reason)
    finding.last_version = verdict.last_version
    if verdict.malformed is not None:
        finding.detail = cut(verdict.malformed.detail, ALWAYS_WHOLE)
        finding.version, finding.event_id = map(shortened, (verdict.malformed.version, verdict.malformed.event_id))
    else:
        finding.fields = shortened_pairs(verdict.pairs)
    return finding


def _json_pair(expected: Any, actual: Any) -> dict[str, Any]:
    pair = {"expected": in_json(expected), "actual": in_json(actual)}
    if pair["expected"] == pair["actual"]:
        # They differ by BSON type alone, which only the canonical form shows.
        pair = {
            "expected": in_json(expected, CANONICAL_JSON_OPTIONS),
            "actual": in_json(actual, CANONICAL_JSON_OPTIONS),
        }
    return pair
