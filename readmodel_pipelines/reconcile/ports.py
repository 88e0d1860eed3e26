"""What reconcile asks of a database. `readmodel_pipelines.mongo` implements it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange

BATCH = 1_000
BATCH_BYTES = 16 * 1024 * 1024
"""So many changes are written at once, or as many as have so many bytes."""


class Outline(NamedTuple):
    """How a stream begins and ends: its versions as they are there, the number of events that they mean.

    The first event is there where it was read.
    """

    aggregate_id: Any
    first: Any
    last: Any
    events: int
    event: Event | None = None


class EventStore(Protocol):
    """Reads events, never writes any."""

    events_read: int

    def read(self, fold: Fold[Any], ids: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> Iterator[Event]:
        """Events with a string id in order of (aggregate_id, version): of `ids`, or of all aggregates in a range.

        Of a range those whose id is a symbol too, which MongoDB has in one order with the strings; and without `_id`.
        """

    def first_event(self, fold: Fold[Any], aggregate_id: Any) -> Any:
        """The `_id` of the first event of a stream, whatever its id is; None if there is no event."""

    def odd_streams(self, fold: Fold[Any], *, symbols: bool) -> Iterator[Event]:
        """The first event of every stream whose id is not a string; nor a symbol, if these are not asked for."""

    def outlines(self, fold: Fold[Any], event_types: Sequence[str] = ()) -> Iterator[Outline]:
        """The outline of every stream, in order of the ids, symbols among them.

        Other ids that are no strings are left out. A first event has the fields that the fold reads of these types.
        """

    def deciding(self, fold: Fold[Any], event_types: Sequence[str]) -> Iterator[Event]:
        """Events of these types alone, of every stream with a string id, in order of (aggregate_id, version)."""

    def skipping(self, fold: Fold[Any]) -> Iterator[str]:
        """Every stream with a string id that has events of a type with another prefix, in their order."""

    def sample(self, fold: Fold[Any], size: int) -> list[str]:
        """The ids of about so many events picked at random: a stream with many events comes more often."""

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The last version of each of these streams, at a small cost."""

    def young(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        """The first version written in the last seconds, of those of these streams that have one."""

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of whatever BSON type, whether any event carries it."""


@dataclass(slots=True)
class Written:
    """What became of a batch of changes, in numbers and else.

    `again` are changes whose document another writer changed between our read and our write. `conflicts` are keys that
    a unique index kept out, with the fields of that index in words; `refused` has (key, reason, detail).
    """

    counts: Counts = field(default_factory=Counts)
    again: list[Verdict] = field(default_factory=list)
    conflicts: dict[Any, str] = field(default_factory=dict)
    refused: list[tuple[Any, str, str]] = field(default_factory=list)


class ReadModel(Protocol):
    """One read model's collection."""

    def read(self, keys: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> Iterator[Document]:
        """Documents with a string key in its order, `_id` and owned fields only: of `keys`, or all in a range.

        Of a range those too whose key is a symbol, or stands twice.
        """

    def versions(self) -> Iterator[Document]:
        """As `read`, of all, with nothing of a document but its key and version; `_id` is None."""

    def odd_documents(self, *, symbols: bool) -> Iterator[Document]:
        """Documents whose key is not a string, nor a symbol if these are not asked for; `_id` and owned fields only."""

    def odd_documents_with(self, document_ids: Sequence[Any]) -> Iterator[Document]:
        """Those of `odd_documents` that have these `_id`s; those whose key is no valid UTF-8 too."""

    def holders(self, changes: Sequence[Verdict]) -> list[tuple[Verdict, Document, Sequence[str]]]:
        """(a change, another document that holds a key which the change wants, the fields of that unique index)."""

    def claims(self, changes: Sequence[Verdict]) -> list[list[tuple[Sequence[str], bytes]]]:
        """For each change what it claims of unique indexes that are none of this project's: their fields, a digest."""

    def write(self, changes: Sequence[Verdict]) -> Written:
        """Write what mends these in one unordered batch.

        Each on condition that the stored document still is its `actual`: insert without one, delete without `expected`,
        else replace the owned fields.
        """

    def swap(self, changes: Sequence[Verdict]) -> Written:
        """Write all or nothing in a transaction, so that documents can exchange unique keys."""

    def count(self) -> int:
        """About how many documents there are."""
