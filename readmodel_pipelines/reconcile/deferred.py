"""Keys put off until a pass is over, by kind; in a list where only some aggregates are looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from readmodel_pipelines.batched import batched

KEYS_AT_ONCE = 500


class Deferred:
    """Holds them in memory, for a run that needs them no longer than it lasts."""

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
