"""Rules that ignore known findings for a while: of a field, an aggregate, or a field of an aggregate.

Each rule has a reason and an end, after which it has no effect. An ignored finding is no discrepancy: it is counted
apart, neither recorded nor queued, and mentioned by every verification.
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.driver import Collection, Database, Document, server_time
from readmodel_pipelines.mongo.names import IGNORED
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.outcome import Outcome
from readmodel_pipelines.wording import storable

MOST_RULES = 1_000
_LONGEST = 1_000


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its end (naive, in UTC) and reason. At least one of `aggregate_id` and `field` is set."""

    id: str
    read_model: str
    aggregate_id: str | None
    field: str | None
    reason: str
    until: datetime
    since: datetime

    def covers(self, finding: Finding) -> bool:
        """Whether it matches the aggregate and, if it names a field, every different field."""
        if finding.read_model != self.read_model or finding.outcome is Outcome.MALFORMED:
            return False
        if self.aggregate_id is not None and finding.aggregate_id != self.aggregate_id:
            return False
        return self.field is None or (finding.outcome is Outcome.DIFFERENT and set(finding.fields) == {self.field})

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "id": self.id,
            "read_model": self.read_model,
            "aggregate_id": self.aggregate_id,
            "field": self.field,
            "reason": self.reason,
            "until": f"{self.until.isoformat()}Z",
            "since": f"{self.since.isoformat()}Z",
        }


class Rules:
    """The rules in force; called with each finding."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = list(rules)
        self._fields: dict[str, set[str]] = {}
        for rule in self._rules:
            if rule.field is not None and rule.aggregate_id is None:
                self._fields.setdefault(rule.read_model, set()).add(rule.field)

    def __call__(self, finding: Finding) -> bool:
        """Whether the finding is ignored, by one rule or by one rule for each of its fields."""
        if not self._rules:
            return False
        if any(rule.covers(finding) for rule in self._rules):
            return True
        fields = self._fields.get(finding.read_model, set())
        return finding.outcome is Outcome.DIFFERENT and bool(finding.fields) and set(finding.fields) <= fields


class Ignored:
    """The rules of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rules = Collection(database, IGNORED)

    def add(self, read_model: str, aggregate_id: str | None, field: str | None, reason: str, until: datetime) -> Rule:
        """Add a rule.

        Raises:
            UsageError: neither an aggregate nor a field is given, the reason is empty, or the end is in the past.
        """
        now = self._now()
        if aggregate_id is None and field is None:
            raise UsageError(
                "A rule cannot ignore a whole read model.",
                hint="Give an aggregate with --id, a field with --field, or both.",
            )
        if not reason.strip():
            raise UsageError("The reason is missing.", hint="Give one with --reason; people see it with the rule.")
        if until <= now:
            raise UsageError(f"{until:%Y-%m-%d %H:%M} UTC is in the past.", hint="Give an end in the future.")
        if self._rules.count_documents({}) >= MOST_RULES:
            raise UsageError(
                f"There are already {MOST_RULES:,} rules.", hint="`readmodel findings list` shows them; remove some."
            )
        rule = Rule(
            secrets.token_hex(4), read_model, aggregate_id, field, storable(reason.strip())[:_LONGEST], until, now
        )
        stored = {name: getattr(rule, name) for name in Rule.__slots__ if name != "id"}
        self._rules.insert_one({"_id": rule.id, **stored})
        return rule

    def remove(self, rule_id: str) -> None:
        """Remove a rule.

        Raises:
            UsageError: there is no such rule.
        """
        if not self._rules.delete_many({"_id": storable(rule_id)}).deleted_count:
            raise UsageError(f"There is no rule {rule_id!r}.", hint="`readmodel findings list` shows them.")

    def listed(self) -> list[tuple[Rule, bool]]:
        """Every rule, and whether it is in force."""
        now = self._now()
        return [(rule, rule.until > now) for rule in self._all()]

    def in_force(self) -> Rules:
        """The rules in force, by the server's clock."""
        return Rules(self._all({"$expr": {"$gt": ["$until", "$$NOW"]}}))

    def _all(self, where: Document | None = None) -> Iterator[Rule]:
        for stored in self._rules.find(where or {}, sort=[("until", 1)], limit=MOST_RULES):
            if (rule := _rule(stored)) is not None:
                yield rule

    def _now(self) -> datetime:
        return server_time(self._database).replace(tzinfo=None)


def _rule(stored: Document) -> Rule | None:
    """The rule in a document; None for a document in another form, which has no effect."""
    texts = [stored.get(name) for name in ("read_model", "reason")]
    parts = [stored.get(name) for name in ("aggregate_id", "field")]
    times = [stored.get(name) for name in ("until", "since")]
    right = (
        all(isinstance(text, str) for text in texts)
        and all(part is None or isinstance(part, str) for part in parts)
        and any(parts)
        and all(isinstance(time, datetime) for time in times)
    )
    if not right:
        return None
    return Rule(str(stored["_id"]), texts[0], parts[0], parts[1], texts[1], *times)  # type: ignore[arg-type]
