"""The interfaces of a database that reconcile needs. `readmodel_pipelines.mongo` implements them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.stored import Stored

BATCH = 1_000
BATCH_BYTES = 16 * 1024 * 1024
"""Maximum number of changes written at once, and of their bytes."""


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

        A range also yields those whose id is a symbol, which MongoDB orders among strings; and all without `_id`.
        """

    def first_event(self, fold: Fold[Any], aggregate_id: Any) -> Any:
        """The `_id` of the first event of a stream, whatever the type of its id; None if there is no event."""

    def odd_streams(self, fold: Fold[Any], *, symbols: bool) -> Iterator[Event]:
        """The first event of every stream whose id is not a string; symbols only if `symbols` is set."""

    def outlines(self, fold: Fold[Any], fields: Iterable[str] | None = None) -> Iterator[Outline]:
        """The outline of every stream, in order of the ids, symbols among them.

        Other ids that are no strings are left out. A first event has these `fields` of its data.
        """

    def deciding(self, fold: Fold[Any], event_types: Sequence[str], fields: Iterable[str]) -> Iterator[Event]:
        """Only events of these types, with these fields of their data, of every stream with a string id, in order of
        (aggregate_id, version).
        """

    def skipping(self, fold: Fold[Any]) -> Iterator[str]:
        """Every stream with a string id that has events of a type with another prefix, in order."""

    def sample(self, fold: Fold[Any], size: int) -> list[str]:
        """The ids of about `number` random events; a stream with many events occurs more often."""

    def last_versions(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """The last version of each of these streams; cheap."""

    def young(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> Mapping[str, int]:
        """For those of these streams with events of the last seconds, the first such version."""

    def ends(self, fold: Fold[Any], ids: Sequence[str], seconds: float) -> tuple[Mapping[str, Any], Mapping[str, int]]:
        """`last_versions` and `young` of these streams together."""

    def have_events(self, fold: Fold[Any], ids: Sequence[Any]) -> list[bool]:
        """For each id, of any BSON type, whether any event has it."""


@dataclass(slots=True)
class Written:
    """The result of a batch of changes.

    `again` are changes whose document changed between read and write. `conflicts` are keys that violated a unique
    index, with the fields of that index as text. `refused` has (key, reason, detail).
    """

    counts: Counts = field(default_factory=Counts)
    again: list[Verdict] = field(default_factory=list)
    conflicts: dict[Any, str] = field(default_factory=dict)
    refused: list[tuple[Any, str, str]] = field(default_factory=list)


class ReadModel(Protocol):
    """One read model's collection."""

    def read(self, keys: Sequence[str]) -> Iterator[Document]:
        """Documents with one of these keys in their order, only `_id` and owned fields."""

    def stored_of(self, keys: Sequence[str]) -> Iterator[Stored]:
        """The same documents as `read`, not decoded yet."""

    def stored(self, within: IdRange = EVERYTHING) -> Iterator[Document | Stored]:
        """Like `read`, for a range; also those whose key is a symbol or occurs twice."""

    def versions(self) -> Iterator[Document]:
        """Like `stored`, for all, with only key and version of a document; `_id` is None."""

    def odd_documents(self, *, symbols: bool) -> Iterator[Document]:
        """Documents whose key is not a string; symbols only if `symbols` is set; only `_id` and owned fields."""

    def odd_documents_with(self, document_ids: Sequence[Any]) -> Iterator[Document]:
        """Those of `odd_documents` with these `_id`s, and those whose key is no valid UTF-8."""

    def holders(self, changes: Sequence[Verdict]) -> list[tuple[Verdict, Document, Sequence[str]]]:
        """(a change, another document that holds a unique key of the change, the fields of that index)."""

    def claims(self, changes: Sequence[Verdict]) -> list[list[tuple[Sequence[str], bytes]]]:
        """For each change its claims on foreign unique indexes: the fields, and a digest of the values."""

    def write(self, changes: Sequence[Verdict]) -> Written:
        """Write these changes in one unordered batch.

        Each requires that the stored document still equals its `actual`: insert without one, delete without `expected`,
        else replace the owned fields.
        """

    def swap(self, changes: Sequence[Verdict]) -> Written:
        """Write all changes or none in a transaction, so that documents can exchange unique keys."""

    def count(self) -> int:
        """The approximate number of documents."""
