"""Outcomes: the possible results of comparing one aggregate's document with its stream, and their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import bson

from readmodel_pipelines.events.stream import Malformed
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.cause import Cause
from readmodel_pipelines.reconcile.compare import differing_fields


class Outcome(StrEnum):
    """The result for one aggregate in one read model."""

    SAME = "same"
    """The document matches its events, or is rightly absent."""
    MISSING = "missing"
    """The document should exist and does not."""
    DIFFERENT = "different"
    """Some owned fields do not match the events."""
    UNEXPECTED = "unexpected"
    """The document exists and the projection wants none, or it is a second one for the same key."""
    ORPHAN = "orphan"
    """The document exists and has no event at all."""
    LAGGING = "lagging"
    """The document matched the events a moment ago, within the grace time; its writer will probably update it."""
    MALFORMED = "malformed"
    """The stream is malformed; its document is left unchanged."""
    UNDECIDED = "undecided"
    """The document is missing, and only a fold decides whether it should exist: tier versions only."""


ALARMS = (Outcome.MISSING, Outcome.DIFFERENT, Outcome.UNEXPECTED, Outcome.ORPHAN, Outcome.MALFORMED)
"""Outcomes that are discrepancies."""


_NOT_MEASURED = -1
_WHATEVER = 64 * 1024
"""The assumed size in bytes of a document that cannot be measured."""

WRITES = ("inserted", "replaced", "deleted")
"""The counts of documents written."""

OF_WRITING = (*WRITES, "superseded", "failed")
"""The counts that only writing changes, perhaps in a thread of its own."""


@dataclass(slots=True)
class Counts:
    """Aggregates of one read model in a run by outcome, and documents written; never capped.

    `checked` is the sum of the outcomes. `inserted`, `replaced` and `deleted` are documents written, or in a dry run
    the writes of a rebuild. `superseded` counts writes that were skipped because the document changed meanwhile; the
    aggregate was then compared again. `failed` are aggregates whose write failed.
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
        """Aggregates whose document does not match its events, or cannot be compared; lagging ones do not count."""
        return self.missing + self.different + self.unexpected + self.orphan + self.malformed

    @property
    def written(self) -> int:
        """Documents written, or in a dry run those that a rebuild would write."""
        return self.inserted + self.replaced + self.deleted

    def add(self, other: Counts) -> None:
        """Add the counts of another one."""
        for name, number in other.as_dict().items():
            # Nothing is added to the others, which another thread may be changing.
            if number:
                setattr(self, name, getattr(self, name) + number)

    def reset(self) -> Counts:
        """Start again at 0; returns the counts so far."""
        taken = replace(self)
        for name in taken.as_dict():
            setattr(self, name, 0)
        return taken

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


class Why(StrEnum):
    """Reasons besides those of malformed streams: of a finding, or of an aggregate that a rebuild could not write."""

    ODD_KEY = "odd_key"
    """The document's key is not a string."""
    DUPLICATE_KEY = "duplicate_key"
    """A second document with the same key; the collection lacks its unique index."""
    BUSY = "busy"
    """The document changed between read and write at every attempt, or the server deferred the write."""
    DELETIONS_REFUSED = "deletions_refused"
    """The run would have deleted more than the settings allow, so it deleted nothing."""
    KEY_HELD = "key_held"
    """A document that this run may not change holds the unique key."""
    NEEDS_REPLICA_SET = "needs_replica_set"
    """Only a transaction could write this, and a standalone server has none."""
    NO_EVENTS = "no_events"
    """The read models have documents but no event at all, so nothing is deleted."""
    WRITE_REFUSED = "write_refused"
    """MongoDB refused the document, for example because of a validator."""
    EVENT_NOT_THERE = "event_not_there"
    """A majority of the servers did not have the event yet, so the document lacks it."""


@dataclass(slots=True)
class Verdict:
    """The result for one aggregate that is not `same`.

    `actual` holds `_id` and the owned fields; `raw` are its bytes, where a full pass read them. `version` is the
    stream's when it was folded, 0 without events. `size` is that of `expected`, in bytes. `last_version` is the
    stream's when the verdict was confirmed, if it was read. `cause` was found together with the verdict, by walking
    `walked` events.
    """

    aggregate_id: Any
    outcome: Outcome
    expected: Document | None = None
    actual: Document | None = None
    reason: str | None = None
    malformed: Malformed | None = None
    version: int = 0
    size: int = 0
    last_version: Any = None
    cause: Cause | None = None
    walked: int = 0
    raw: bytes = b""
    _pairs: Mapping[str, tuple[Any, Any]] | None = field(default=None, init=False, repr=False, compare=False)
    _stored_size: int | None = field(default=_NOT_MEASURED, init=False, repr=False, compare=False)

    @property
    def pairs(self) -> Mapping[str, tuple[Any, Any]]:
        """The different fields, each with (expected, actual); none without both documents."""
        if self._pairs is None:
            there = self.expected is not None and self.actual is not None
            self._pairs = differing_fields(self.expected or {}, self.actual or {}) if there else {}
        return self._pairs

    @property
    def stored_size(self) -> int | None:
        """The size of `actual` in bytes, 0 without one; None if the driver cannot write it."""
        if self._stored_size == _NOT_MEASURED:
            try:
                self._stored_size = len(bson.encode(self.actual)) if self.actual else 0
            except Exception:  # noqa: BLE001 - the driver raises different errors for values that it decodes but cannot encode
                self._stored_size = None
        return self._stored_size

    @property
    def weight(self) -> int:
        """Its approximate size in bytes, including the stored document."""
        if self.raw:
            return self.size + len(self.raw)
        stored = self.stored_size
        return self.size + (_WHATEVER if stored is None else stored)
