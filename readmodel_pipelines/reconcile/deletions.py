"""Deletions: when they are made, and how many a full run may make, so that lost events never empty a read model.

They, and whatever else has to wait for the end of a pass, are put off as keys.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from readmodel_pipelines.batched import batched

A_FEW = 3
"""So many may go however small a read model is."""
KEYS_AT_ONCE = 500


class Deletions(Enum):
    """When documents that ought not to be there go, if not at the end of the pass within a limit."""

    AT_ONCE = auto()
    """Each with its batch: for aggregates that somebody named."""
    PUT_OFF = auto()
    """Later, by whoever finishes what the ranges of a full pass leave behind."""


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """How many documents a full run may delete: a share of the read model, or a few; None is no limit, 0 is none."""

    share: float | None

    def allows(self, deletions: int, documents: int) -> bool:
        """Whether `deletions` of about `documents` may go."""
        return deletions <= self.of(documents)

    def of(self, documents: int) -> float:
        """How many of about `documents` may go."""
        if self.share is None:
            return math.inf
        return max(A_FEW, self.share * documents) if self.share else 0

    def refusal(self, read_model: str, deletions: int, documents: int) -> str:
        """The warning that a refused deletion leaves."""
        return (
            f"{read_model}: {deletions:,} of about {documents:,} documents would be deleted, more than "
            f"{int(self.of(documents)):,} allowed; none was. "
            "If the events are complete, allow them: --allow-deletions, or allow_deletions in a job's config."
        )


class Deferred:
    """Keys that were put off, by kind; in memory, for a run that needs them no longer than it lasts."""

    def __init__(self) -> None:
        self._keys: dict[str, list[Any]] = defaultdict(list)

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._keys[kind] += keys

    def count(self, kind: str) -> int:
        """How many were put off."""
        return len(self._keys[kind])

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        return batched(self._keys[kind], KEYS_AT_ONCE)

    def write(self) -> None:
        """Make sure that nothing put off is lost with this process, where it is to outlive it."""
