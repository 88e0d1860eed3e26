"""Counts of one read model in a run: aggregates by outcome, and documents written. They are never capped."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

WRITES = ("inserted", "replaced", "deleted")
"""The counts of documents written."""


@dataclass(slots=True)
class Counts:
    """Aggregates of one read model by outcome, and what was written.

    `checked` is the sum of the outcomes. `inserted`, `replaced` and `deleted` are documents written, or in a dry
    run those that a rebuild would write. `superseded` counts writes that another writer was faster than; the aggregate
    was then compared again. `failed` are aggregates that need a write and did not get it.
    """

    checked: int = 0
    same: int = 0
    missing: int = 0
    different: int = 0
    unexpected: int = 0
    orphan: int = 0
    lagging: int = 0
    malformed: int = 0
    undecided: int = 0
    inserted: int = 0
    replaced: int = 0
    deleted: int = 0
    superseded: int = 0
    failed: int = 0

    @property
    def discrepancies(self) -> int:
        """Aggregates where read model and events do not agree, or cannot be compared; one that lags is none."""
        return self.missing + self.different + self.unexpected + self.orphan + self.malformed

    @property
    def written(self) -> int:
        """Documents written, or in a dry run those that a rebuild would write."""
        return self.inserted + self.replaced + self.deleted

    def add(self, other: Counts) -> None:
        """Count what another counted, too."""
        for name, number in other.as_dict().items():
            setattr(self, name, getattr(self, name) + number)

    def reset(self) -> Counts:
        """Counting begins anew; gives what was counted so far."""
        taken = replace(self)
        for name in taken.as_dict():
            setattr(self, name, 0)
        return taken

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
