"""Key conflicts: documents that cannot be written because another document holds a unique key of theirs.

Every holder is looked at: one that will be deleted or gets another key itself gives the key up, one that stays keeps
it. What can be freed is written in one transaction; what cannot is blocked, and so is what waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.ports import Change, ReadModel

_LARGEST_TANGLE = 2_000


@dataclass(slots=True)
class Tangle:
    """Changes that wait for one another: those that can be written together, and by whom the others are blocked."""

    movable: list[Change] = field(default_factory=list)
    blocked: dict[Any, Any] = field(default_factory=dict)


def blocked_by(holders: Mapping[Any, Sequence[Any]], movable: Iterable[Any]) -> dict[Any, Any]:
    """Which of the `movable` keys cannot be written, each with the holder that is in its way.

    `holders` maps a key to the keys of the documents that hold what it wants. A holder that is not movable stays; one
    that is blocked stays too. A cycle of movable ones is free.
    """
    free = set(movable)
    blocked: dict[Any, Any] = {}
    while True:
        found = {
            key: in_the_way
            for key in free
            if (in_the_way := next((holder for holder in holders.get(key, ()) if holder not in free), None)) is not None
        }
        if not found:
            return blocked
        blocked |= found
        free -= found.keys()


def untangle(
    model: ReadModel, key_field: str, stuck: Sequence[Change], free_up: Callable[[Sequence[Document]], list[Change]]
) -> Tangle:
    """Follow who holds what the `stuck` changes want, until nobody new is met.

    `free_up` gives, for documents that hold such a key, the changes that would make them give it up; none for those
    that stay.
    """
    changes: dict[Any, Change] = {_name(change.key): change for change in stuck}
    holders: dict[Any, list[Any]] = {}
    labels: dict[Any, Any] = {}
    looked_at: set[Any] = set(changes)
    frontier = list(stuck)
    while frontier and len(changes) <= _LARGEST_TANGLE:
        unknown: list[Document] = []
        for key, document in model.holders(frontier):
            holder = _name(document.get(key_field))
            holders.setdefault(_name(key), []).append(holder)
            labels[holder] = document.get(key_field)
            if holder not in looked_at:
                looked_at.add(holder)
                unknown.append(document)
        frontier = free_up(unknown) if unknown else []
        changes |= {_name(change.key): change for change in frontier}
    blocked = blocked_by(holders, changes)
    return Tangle(
        movable=[change for name, change in changes.items() if name not in blocked],
        blocked={changes[name].key: labels[holder] for name, holder in blocked.items() if changes[name] in stuck},
    )


def _name(key: Any) -> Any:
    return key if isinstance(key, str) else repr(key)
