"""The merge join: folded streams meet stored documents, both in order of the aggregate id.

Keys and ids are strings on both sides, in byte order; a key out of order ends the pass. Neither side is held in memory;
each advances with the other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from readmodel_pipelines.errors import FAULTS, raised, words
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.events.stream import Malformed, Reason, Stream
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, same_document, same_value
from readmodel_pipelines.reconcile.order import InOrder
from readmodel_pipelines.reconcile.outcome import Counts, Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import ReadModel
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.stored import Stored

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_ROOM_FOR_ID = 64
_BY_VALUES = 100
"""So many documents are compared by values: bytes do not show a type that MongoDB gives back as another one."""
_AS_READ: CodecOptions[Document] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)


def _nowhere(verdict: Verdict) -> None:
    """The default of a lane without a sink."""


@dataclass(slots=True)
class Lane:
    """One read model in a pass; verdicts that are not `same` go to `emit`.

    `contested` names streams that are malformed only for this read model, because another stream claims the same key.
    If every document is needed, `keep` gets the `same` ones (expected, actual), and `stays` gets documents with an odd
    key whose stream has events, which is malformed.
    """

    projection: Projection
    model: ReadModel
    counts: Counts
    emit: Callable[[Verdict], None] = _nowhere
    contested: Mapping[str, Malformed] = field(default_factory=dict)
    keep: Callable[[Document, Document], None] | None = None
    stays: Callable[[Document], None] | None = None


class MergeJoin:
    """Joins the streams of one pass with the documents of one read model: all in a range, or those of `ids`.

    Raises (here and in the methods):
        OutOfOrder: a stream or document is out of order.
    """

    def __init__(
        self,
        lane: Lane,
        documents: Iterable[Document | Stored],
        ids: Sequence[str] | None = None,
        within: IdRange = EVERYTHING,
    ) -> None:
        self._owned = set(lane.projection.owned)
        self._counts = lane.counts
        self._emit = lane.emit
        self._keep = lane.keep
        self._contested = lane.contested
        self._make = lane.projection.document
        self._key_field = lane.projection.key
        self._met: str | None = None
        self._met_malformed = False
        self._by_values = _BY_VALUES
        self._rest = iter(documents)
        self._streams = InOrder("the event store", within, ids)
        self._documents = InOrder(lane.projection.read_model, within, ids)
        self._move_on()

    def meet(self, stream: Stream[Any]) -> None:
        """Compare one stream, whose id follows all earlier ones, with its document."""
        aggregate_id = stream.aggregate_id
        self._streams.place(aggregate_id)
        if self._key is not None and self._key != aggregate_id:
            self.move_to(aggregate_id)
        self._counts.checked += 1
        self._met = aggregate_id
        result = stream.result
        if self._contested and not isinstance(result, Malformed):
            result = self._contested.get(aggregate_id, result)
        stored = None
        if self._key == aggregate_id:
            stored = self._stored
            self._move_on()
        self._met_malformed = False
        if isinstance(result, Malformed):
            self._refuse(aggregate_id, stored, result)
            return
        try:
            expected = self._make(aggregate_id, result)
            same = stored is not None and expected is not None and self._is_same(expected, stored)
            found = None if same or expected is None else self._differ(aggregate_id, expected, stored, result.version)
        except FAULTS as error:
            # An error of one projection on one stream affects no other.
            self._refuse(aggregate_id, stored, Malformed(Reason.PROJECTION_FAILED, raised(error)))
            return
        if isinstance(found, Malformed):
            self._refuse(aggregate_id, stored, found)
        elif found is not None:
            self._emit(found)
        elif expected is None and stored is not None:
            self._emit(Verdict(aggregate_id, Outcome.UNEXPECTED, None, decoded(stored), version=result.version))
        else:
            self._counts.same += 1
            if self._keep is not None and expected is not None and stored is not None:
                self._keep(expected, decoded(stored))

    def move_to(self, aggregate_id: str) -> None:
        """No further stream precedes this id, so every document before it is decided now."""
        place = byte_order(aggregate_id)
        while self._key_place is not None and self._key_place < place:
            self._leave_behind()

    def finish(self) -> None:
        """Decide all remaining documents; they follow the last stream."""
        while self._key_place is not None:
            self._leave_behind()

    def _is_same(self, expected: Document, stored: Document | Stored) -> bool:
        if not isinstance(stored, Stored):
            return same_document(expected, stored)
        if self._by_values:
            self._by_values -= 1
        elif stored.has_bytes_of(expected):
            return True
        return same_document(expected, stored.document)

    def _differ(
        self, aggregate_id: str, expected: Document, stored: Document | Stored | None, version: int
    ) -> Verdict | Malformed:
        if not isinstance(expected, dict):
            what = type(expected).__name__
            return Malformed(Reason.PROJECTION_FAILED, f"the projection returned a {what} instead of a document")
        size = stored_size(expected)
        if isinstance(size, Malformed):
            return size
        actual = None if stored is None else decoded(stored)
        outcome = Outcome.MISSING if actual is None else Outcome.DIFFERENT
        raw = stored.raw if isinstance(stored, Stored) else b""
        verdict = Verdict(aggregate_id, outcome, expected, actual, version=version, size=size, raw=raw)
        if misfit := self._misfit(expected, verdict):
            return Malformed(Reason.PROJECTION_FAILED, misfit)
        return verdict

    def _misfit(self, expected: Document, verdict: Verdict) -> str:
        """The reason why a document would never be found equal to its expected one; empty if there is none."""
        strangers = expected.keys() - self._owned
        if strangers:
            return f"the projection makes fields that its `owned` does not name: {', '.join(sorted(strangers))}"
        if expected.get(self._key_field) != verdict.aggregate_id:
            return f"the projection's key, {self._key_field}, is not the id of the aggregate"
        if verdict.actual is None or len(verdict.actual) != len(expected) + 1:
            return ""
        changed = []
        for name, (value, other) in verdict.pairs.items():
            # The usual case; a text comes back as it is.
            if type(value) is str or value is ABSENT:
                return ""
            stored = bson.decode(bson.encode({name: value}), _AS_READ)
            # Usually the first different field differs in its value, which needs no further check.
            if not same_value(stored[name], other):
                return ""
            changed.append(name)
        return f"MongoDB gives {', '.join(changed)} back in another type: dates are DatetimeMS, int64 Int64"

    def _refuse(self, aggregate_id: str, stored: Document | Stored | None, why: Malformed) -> None:
        self._met_malformed = True
        actual = None if stored is None else decoded(stored)
        self._emit(Verdict(aggregate_id, Outcome.MALFORMED, None, actual, why.reason, why))

    def _leave_behind(self) -> None:
        key, actual = self._key, None if self._stored is None else decoded(self._stored)
        self._move_on()
        if key != self._met:
            self._counts.checked += 1
            self._emit(Verdict(key, Outcome.ORPHAN, None, actual))
        elif not self._met_malformed:
            self._counts.checked += 1
            self._emit(Verdict(key, Outcome.UNEXPECTED, None, actual, Why.DUPLICATE_KEY))

    def _move_on(self) -> None:
        self._stored: Document | Stored | None = next(self._rest, None)
        self._key: str | None = None if self._stored is None else key_of(self._stored, self._key_field)
        self._key_place = None if self._key is None else self._documents.place(self._key)


def key_of(document: Document | Stored, key_field: str) -> Any:
    """The key of a document."""
    return document.key if type(document) is Stored else document[key_field]


def decoded(document: Document | Stored) -> Document:
    """The document with its values."""
    return document.document if isinstance(document, Stored) else document


def stored_size(document: Document) -> int | Malformed:
    """The document's size in bytes, or the reason why MongoDB cannot store it."""
    try:
        size = len(bson.encode(document))
    except UnicodeEncodeError:
        return Malformed(Reason.BAD_FIELD, "a text of the document is not valid UTF-8")
    except Exception as error:  # noqa: BLE001 - the driver raises different errors for types that it does not know
        return Malformed(Reason.PROJECTION_FAILED, f"the document cannot be stored: {words(error)}")
    if size > MAX_DOCUMENT_BYTES - _ROOM_FOR_ID:
        return Malformed(Reason.DOCUMENT_TOO_LARGE, f"the document would have {size:,} bytes; the maximum is 16 MiB")
    return size
