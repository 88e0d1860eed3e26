"""Outcomes: what comparing one aggregate's document with its stream can say. A closed list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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


class Why(StrEnum):
    """Reasons besides those of a malformed stream: of a finding, or of an aggregate that a rebuild could not do."""

    ODD_KEY = "odd_key"
    """The document's key is not a string."""
    DUPLICATE_KEY = "duplicate_key"
    """A second document with the same key; the collection lacks its unique index."""
    BUSY = "busy"
    """Other writers changed the document each time between our read and our write."""
    DELETIONS_REFUSED = "deletions_refused"
    """The run would have deleted more than the settings allow, so it deleted nothing."""
    KEY_HELD = "key_held"
    """A unique key is held by a document that this run may not change."""
    NEEDS_REPLICA_SET = "needs_replica_set"
    """Only a transaction could write this, and a standalone server has none."""
    WRITE_REFUSED = "write_refused"
    """MongoDB refused the document, a validator for example."""


@dataclass(slots=True)
class Verdict:
    """What was found for one aggregate, where it is not `same`.

    `actual` holds `_id` and the owned fields; `version` and `size` (bytes) belong to `expected`.
    """

    aggregate_id: Any
    outcome: Outcome
    expected: Document | None = None
    actual: Document | None = None
    reason: str | None = None
    malformed: Malformed | None = None
    version: int = 0
    size: int = 0
