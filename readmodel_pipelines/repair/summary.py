"""What a repair worker did, in numbers of tasks, and the first of what it took and gave up: a sentence and `--json`."""

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
    """A dead letter that a worker made: an aggregate, or tasks that name none by their number."""

    aggregate_type: Any
    aggregate_id: Any
    reason: str
    detail: str


@dataclass(slots=True)
class RepairSummary:
    """What a worker did. All but `aggregates` and `batches` are numbers of tasks.

    `claimed` were taken, `completed` are repaired, `retried` failed and will be tried again, `parked` are dead letters
    now, `lost` were not ended because our lease ran out. `read_models` has what was found and written, `first_taken`
    the aggregates that were taken first, as (stream, id).
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
        """Tasks that are out of our hands, one way or another."""
        return self.completed + self.retried + self.parked

    @property
    def ok(self) -> bool:
        """Whether everything that was taken is repaired."""
        return not (self.retried or self.parked or self.lost)

    def in_words(self) -> str:
        """What was taken and how it ended, as a sentence."""
        ends = {
            "completed": self.completed,
            "to be tried again": self.retried,
            "dead letters": self.parked,
            "lost with our lease": self.lost,
        }
        return f"{count(self.claimed, 'task')} taken in {self.seconds:,.2f} s: {numbers(ends) or 'nothing was due'}."

    def add(self, other: RepairSummary) -> None:
        """What another round of work did comes on top."""
        for name in (*_NUMBERS, "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.count(other.read_models.items())
        self.note_dead(other.dead_letters)
        self.note_taken(other.first_taken)

    def count(self, found: Iterable[tuple[str, Counts]]) -> None:
        """Add what was found and written, by read model."""
        for read_model, counts in found:
            self.read_models[read_model].add(counts)

    def note_dead(self, letters: Iterable[DeadLetter]) -> None:
        """These are dead letters now; the first are kept."""
        self.dead_letters += islice(letters, _DEAD_LETTERS_KEPT - len(self.dead_letters))

    def note_taken(self, aggregates: Iterable[tuple[str, str]]) -> None:
        """These were taken; the first are kept."""
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
