"""What reconcile asks of a database. `readmodel_pipelines.mongo` implements it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from readmodel_pipelines.events.stream import Fold, Malformed
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange

BATCH = 1_000
BATCH_BYTES = 16 * 1024 * 1024
"""So many changes are written at once, or as many as have so many bytes."""


class EventStore(Protocol):
    """Reads events, never writes any."""

    events_read: int

    def read(self, fold: Fold[Any], ids: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> Iterator[Event]:
        """Events with a string id in order of (aggregate_id, version): of `ids`, or of all aggregates in a range."""

    def odd_streams(self, fold: Fold[Any]) -> Iterator[Event]:
        """The first event of every stream whose id is not a string."""

    def contested(
        self, fold: Fold[Any], claim: tuple[str, str], ids: Sequence[str] | None = None
    ) -> Mapping[str, Malformed]:
        """Streams whose created event (type, field of its data) claims a key that another stream claims too.

        With `ids` only claims of these are looked at.
        """

    def version_ranges(self, fold: Fold[Any]) -> Iterator[tuple[str, Any, Any, int]]:
        """(id, first version, last version, number of events) of every stream with a string id, in their order."""

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The last version of each of these streams, at a small cost."""

    def young(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        """The first version written in the last seconds, of those of these streams that have one."""

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of whatever BSON type, whether any event carries it."""


@dataclass(slots=True)
class Change:
    """One document to write: insert without `actual`, delete without `expected`, else replace the owned fields.

    Conditional on the stored document still being `actual` (`_id` and owned fields as read). `version` is that of the
    stream which `expected` was folded from.
    """

    key: Any
    expected: Document | None
    actual: Document | None
    version: int = 0

    @classmethod
    def of(cls, verdict: Verdict) -> Change:
        """What mends it; nothing is expected where there ought to be no document."""
        return cls(verdict.aggregate_id, verdict.expected, verdict.actual, verdict.version)


@dataclass(slots=True)
class Written:
    """What became of a batch of changes.

    `again` are changes whose document another writer changed between our read and our write; `superseded` says how
    many writes that cost. `conflicts` are keys that a unique index kept out; `refused` has (key, reason, detail).
    """

    inserted: int = 0
    replaced: int = 0
    deleted: int = 0
    superseded: int = 0
    again: list[Change] = field(default_factory=list)
    conflicts: list[Any] = field(default_factory=list)
    refused: list[tuple[Any, str, str]] = field(default_factory=list)


class ReadModel(Protocol):
    """One read model's collection."""

    def read(self, keys: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> Iterator[Document]:
        """Documents with a string key in its order, `_id` and owned fields only: of `keys`, or all in a range."""

    def versions(self) -> Iterator[Document]:
        """As `read`, of all, with nothing of a document but its key and version; `_id` is None."""

    def odd_documents(self) -> Iterator[Document]:
        """Documents whose key is not a string; `_id` and owned fields only."""

    def odd_documents_with(self, document_ids: Sequence[Any]) -> Iterator[Document]:
        """Those of `odd_documents` that have these `_id`s; those whose key is no valid UTF-8 too."""

    def holders(self, changes: Sequence[Change]) -> list[tuple[Change, Document]]:
        """(a change, another document that holds a key which the change wants and an index keeps unique)."""

    def write(self, changes: Sequence[Change]) -> Written:
        """Write in one unordered batch, each change conditionally."""

    def swap(self, changes: Sequence[Change]) -> Written:
        """Write all or nothing in a transaction, so that documents can exchange unique keys."""

    def count(self) -> int:
        """About how many documents there are."""
