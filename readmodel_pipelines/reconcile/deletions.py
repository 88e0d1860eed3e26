"""Deletions: their time, and the limit of a full run, so that lost events never empty a read model.

Deletions, and other writes that wait for the end of a pass, are deferred as keys.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from readmodel_pipelines.batched import batched

A_FEW = 3
"""Minimum number of allowed deletions, however small a read model is."""
KEYS_AT_ONCE = 500


class Deletions(Enum):
    """When unwanted documents are deleted."""

    AT_ONCE = auto()
    """With each batch: for named aggregates."""
    PUT_OFF = auto()
    """Later, when the ranges of a full pass are finished."""


@dataclass(frozen=True, slots=True)
class DeletionLimit:
    """Maximum number of deletions of a full run: a share of the read model, or a few; None is no limit, 0 is none."""

    share: float | None

    def allows(self, deletions: int, documents: int) -> bool:
        """Whether `deletions` of about `documents` are allowed."""
        return deletions <= self.of(documents)

    def of(self, documents: int) -> float:
        """The allowed deletions of about `documents`."""
        if self.share is None:
            return math.inf
        return max(A_FEW, self.share * documents) if self.share else 0

    def refusal(self, read_model: str, deletions: int, documents: int) -> str:
        """The warning for refused deletions."""
        return (
            f"{read_model}: {deletions:,} of about {documents:,} documents would be deleted, more than the allowed "
            f"{int(self.of(documents)):,}. None was deleted. If the events are complete, allow it with "
            "--allow-deletions, or allow_deletions in a job's config."
        )


class Deferred:
    """Deferred keys by kind, in memory, for a run that needs them only until its end."""

    def __init__(self) -> None:
        self._keys: dict[str, list[Any]] = defaultdict(list)

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Add deferred keys."""
        self._keys[kind] += keys

    def count(self, kind: str) -> int:
        """The number of deferred keys."""
        return len(self._keys[kind])

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, in batches of some hundred."""
        return batched(self._keys[kind], KEYS_AT_ONCE)

    def write(self) -> None:
        """Ensure that the deferred keys survive this process, if they have to."""
