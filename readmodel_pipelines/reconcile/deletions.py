"""Deletions: when they are made, and how many a full run may make, so that lost events never empty a read model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

DELETE_FLOOR = 100


class Deletions(Enum):
    """When documents that ought not to be there go, if not at the end of the pass within a limit."""

    AT_ONCE = auto()
    """Each with its batch: for aggregates that somebody named."""
    PUT_OFF = auto()
    """Later, by whoever finishes what the ranges of a full pass leave behind."""


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """How many documents a full run may delete: a share of the read model, never below the floor."""

    share: float

    def allows(self, deletions: int, documents: int) -> bool:
        """Whether `deletions` of about `documents` may go."""
        return deletions <= self.of(documents)

    def of(self, documents: int) -> float:
        """How many of about `documents` may go."""
        return max(DELETE_FLOOR, self.share * documents)

    def refusal(self, read_model: str, deletions: int, documents: int) -> str:
        """The warning that a refused deletion leaves."""
        return (
            f"{read_model}: {deletions:,} of about {documents:,} documents would be deleted, more than "
            f"{int(self.of(documents)):,} allowed; none was. "
            "If the events are complete, allow them: --allow-deletions, or allow_deletions in a job's config."
        )
