"""Shares limited room among kinds: if there is not enough for all, no kind takes the share of another one.

Imports nothing of this project.
"""

from collections.abc import Callable, Hashable, Iterable
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRoom(Generic[T]):
    """Keeps the first items of each kind, limited by a total number and a total of bytes.

    If it is full, the last item of the largest kind is removed, so that a late kind finds room.
    """

    def __init__(self, most: int, most_bytes: float = float("inf")) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: dict[Hashable, list[tuple[int, T, int]]] = {}
        self._bytes: dict[Hashable, int] = {}
        self._number = self._seen = 0

    def add(self, kind: Hashable, item: T, size: int = 0) -> None:
        """Add an item; it may be dropped."""
        self._kept.setdefault(kind, []).append((self._seen, item, size))
        self._bytes[kind] = self._bytes.get(kind, 0) + size
        self._seen += 1
        self._number += 1
        while self._number > self._most:
            self._drop(max(self._kept, key=lambda of: len(self._kept[of])))
        while sum(self._bytes.values()) > self._most_bytes:
            self._drop(max(self._bytes, key=self._bytes.__getitem__))

    def _drop(self, kind: Hashable) -> None:
        _, _, size = self._kept[kind].pop()
        self._bytes[kind] -= size
        self._number -= 1

    def items(self) -> list[T]:
        """The kept items, in the order of their arrival."""
        kept = (entry for of_kind in self._kept.values() for entry in of_kind)
        return [item for _, item, _ in sorted(kept, key=itemgetter(0))]


def shared(items: Iterable[T], most: int, kind: Callable[[T], Hashable]) -> list[T]:
    """At most `most` of the items, shared evenly among the kinds, in their order."""
    room: SharedRoom[T] = SharedRoom(most)
    for item in items:
        room.add(kind(item), item)
    return room.items()
