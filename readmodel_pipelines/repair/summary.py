"""The result of a repair worker: numbers of tasks, and the first aggregates; as a sentence and as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.wording import count, numbers

_DEAD_LETTERS_KEPT = 1_000
_TAKEN_KEPT = 50
_NUMBERS = ("batches", "aggregates", "claimed", "completed", "retried", "parked", "lost")


@dataclass(slots=True)
class DeadLetter:
    """A dead letter made by a worker: an aggregate, or a number of tasks that name none."""

    aggregate_type: Any
    aggregate_id: Any
    reason: str
    detail: str


@dataclass(slots=True)
class RepairSummary:
    """The result of a worker. All fields but `aggregates` and `batches` are numbers of tasks.

    `claimed` were taken, `completed` are repaired, `retried` failed and will be tried again, `parked` became dead
    letters, and `lost` were not ended because our lease expired. `read_models` has the outcomes and writes, and
    `first_taken` the first aggregates that were taken, as (stream, id).
    """

    batches: int = 0
    aggregates: int = 0
    claimed: int = 0
    completed: int = 0
    retried: int = 0
    parked: int = 0
    lost: int = 0
    seconds: float = 0.0
    read_models: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    first_taken: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Number of tasks that are ended, with any result."""
        return self.completed + self.retried + self.parked

    @property
    def ok(self) -> bool:
        """Whether all taken tasks are repaired."""
        return not (self.retried or self.parked or self.lost)

    def in_words(self) -> str:
        """The taken tasks and their results, as a sentence."""
        ends = {
            "completed": self.completed,
            "to be tried again": self.retried,
            "dead letter" if self.parked == 1 else "dead letters": self.parked,
            "lost with our lease": self.lost,
        }
        return f"{count(self.claimed, 'task')} taken in {self.seconds:,.2f} s: {numbers(ends) or 'nothing was due'}."

    def add(self, other: RepairSummary) -> None:
        """Add the result of another round."""
        for name in (*_NUMBERS, "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.count(other.read_models.items())
        self.note_dead(other.dead_letters)
        self.note_taken(other.first_taken)

    def count(self, found: Iterable[tuple[str, Counts]]) -> None:
        """Add outcomes and writes, by read model."""
        for read_model, counts in found:
            self.read_models[read_model].add(counts)

    def note_dead(self, letters: Iterable[DeadLetter]) -> None:
        """Record new dead letters; the first are kept."""
        self.dead_letters += islice(letters, _DEAD_LETTERS_KEPT - len(self.dead_letters))

    def note_taken(self, aggregates: Iterable[tuple[str, str]]) -> None:
        """Record taken aggregates; the first are kept."""
        self.first_taken += islice(aggregates, _TAKEN_KEPT - len(self.first_taken))

    def as_json(self) -> dict[str, Any]:
        """The `--json` document, of plain JSON types."""
        return {
            "verb": "repair",
            **{name: getattr(self, name) for name in _NUMBERS},
            "seconds": round(self.seconds, 3),
            "read_models": {name: counts.as_dict() for name, counts in self.read_models.items()},
            "dead_letters": [
                {"aggregate_type": json_value(letter.aggregate_type), "aggregate_id": json_value(letter.aggregate_id)}
                | {"reason": letter.reason, "detail": letter.detail}
                for letter in self.dead_letters
            ],
        }
