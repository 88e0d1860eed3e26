"""Outcomes: what comparing one aggregate's document with its stream can say, a closed list; and how many of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import bson

from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.projections.projection import Document


class Outcome(StrEnum):
    """What was found for one aggregate in one read model."""

    SAME = "same"
    """The document is what the events say, or rightly absent."""
    MISSING = "missing"
    """There ought to be a document and is none."""
    DIFFERENT = "different"
    """Some owned fields are not what the events say."""
    UNEXPECTED = "unexpected"
    """There is a document and the projection wants none, or a second one for the same key."""
    ORPHAN = "orphan"
    """There is a document and no event at all."""
    LAGGING = "lagging"
    """The document is what the events said a moment ago, within the grace time: a writer is about to mend it."""
    MALFORMED = "malformed"
    """The stream cannot be trusted; its document is left as it is."""
    UNDECIDED = "undecided"
    """There is no document, and only the fold tells whether there ought to be one: the tier of versions alone."""


ALARMS = (Outcome.MISSING, Outcome.DIFFERENT, Outcome.UNEXPECTED, Outcome.ORPHAN, Outcome.MALFORMED)
"""Outcomes that are discrepancies; the others are no reason to look."""


_WHATEVER = 64 * 1024
"""Bytes that a document is taken for which cannot be measured."""

WRITES = ("inserted", "replaced", "deleted")
"""The counts of documents written."""


@dataclass(slots=True)
class Counts:
    """Aggregates of one read model in a run by outcome, and what was written; never capped.

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
        return asdict(self)


class Why(StrEnum):
    """Reasons besides those of a malformed stream: of a finding, or of an aggregate that a rebuild could not do."""

    ODD_KEY = "odd_key"
    """The document's key is not a string."""
    DUPLICATE_KEY = "duplicate_key"
    """A second document with the same key; the collection lacks its unique index."""
    BUSY = "busy"
    """Other writers changed the document each time between our read and our write, or the server put the write off."""
    DELETIONS_REFUSED = "deletions_refused"
    """The run would have deleted more than the settings allow, so it deleted nothing."""
    KEY_HELD = "key_held"
    """A unique key is held by a document that this run may not change."""
    NEEDS_REPLICA_SET = "needs_replica_set"
    """Only a transaction could write this, and a standalone server has none."""
    NO_EVENTS = "no_events"
    """There is not one event that the read models could be made from, and there are documents: nothing is deleted."""
    WRITE_REFUSED = "write_refused"
    """MongoDB refused the document, a validator for example."""
    EVENT_NOT_THERE = "event_not_there"
    """The event that was to be projected was not among those that a majority holds; the document lacks it."""


@dataclass(slots=True)
class Verdict:
    """What was found for one aggregate, where it is not `same`.

    `actual` holds `_id` and the owned fields; `version` is the stream's when it was folded, 0 without events; `size`
    (bytes) belongs to `expected`.
    """

    aggregate_id: Any
    outcome: Outcome
    expected: Document | None = None
    actual: Document | None = None
    reason: str | None = None
    malformed: Malformed | None = None
    version: int = 0
    size: int = 0

    @property
    def weight(self) -> int:
        """About how many bytes it holds, the stored document's included."""
        if self.actual is None:
            return self.size
        try:
            return self.size + len(bson.encode(self.actual))
        except Exception:  # noqa: BLE001 - what the driver gives and does not take back is not one kind
            return self.size + _WHATEVER
