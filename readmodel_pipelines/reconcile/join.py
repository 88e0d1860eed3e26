"""The merge join: folded streams and stored documents, both in order of the aggregate id, meet one by one.

Keys and ids are strings on both sides, in the order of their bytes. Neither side is held: each moves on as the other
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import bson

from readmodel_pipelines.events.stream import Malformed, Reason, Stream
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import same_document
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.summary import Counts

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_ROOM_FOR_ID = 64


class MergeJoin:
    """Joins the streams of one pass with one read model; what is not `same` goes to `emit`.

    `contested` names streams that are malformed for this read model only, because they claim a key that another
    claims too. `keep` is given what is `same`, expected and actual, by whom every document is wanted.
    """

    def __init__(
        self,
        projection: Projection,
        documents: Iterable[Document],
        counts: Counts,
        emit: Callable[[Verdict], None],
        contested: Mapping[str, Malformed],
        keep: Callable[[Document, Document], None] | None = None,
    ) -> None:
        self._make = projection.document
        self._key_field = projection.key
        self._documents = iter(documents)
        self._counts = counts
        self._emit = emit
        self._contested = contested
        self._keep = keep
        self._met: str | None = None
        self._met_malformed = False
        self._move_on()

    def meet(self, stream: Stream[Any]) -> None:
        """Compare one stream, whose id lies behind every earlier one's, with its document."""
        aggregate_id = stream.aggregate_id
        self.move_to(aggregate_id)
        self._counts.checked += 1
        self._met = aggregate_id
        result = stream.result
        if self._contested and not isinstance(result, Malformed):
            result = self._contested.get(aggregate_id, result)
        actual = None
        if self._key == aggregate_id:
            actual = self._actual
            self._move_on()
        self._met_malformed = isinstance(result, Malformed)
        if isinstance(result, Malformed):
            self._emit(Verdict(aggregate_id, Outcome.MALFORMED, None, actual, result.reason, result))
            return
        expected = self._make(aggregate_id, result)
        if expected is None:
            if actual is None:
                self._counts.same += 1
            else:
                self._emit(Verdict(aggregate_id, Outcome.UNEXPECTED, None, actual))
        elif actual is not None and same_document(expected, actual):
            self._counts.same += 1
            if self._keep is not None:
                self._keep(expected, actual)
        else:
            self._differ(aggregate_id, expected, actual, result.version)

    def move_to(self, aggregate_id: str) -> None:
        """No stream before this id will come: every document before it is decided now."""
        place = _place(aggregate_id)
        while self._key_place is not None and self._key_place < place:
            self._leave_behind()

    def finish(self) -> None:
        """Everything that is left in the read model lies behind the last stream."""
        while self._key_place is not None:
            self._leave_behind()

    def _differ(self, aggregate_id: str, expected: Document, actual: Document | None, version: int) -> None:
        size = stored_size(expected)
        if isinstance(size, Malformed):
            self._met_malformed = True
            self._emit(Verdict(aggregate_id, Outcome.MALFORMED, None, actual, size.reason, size))
        else:
            outcome = Outcome.MISSING if actual is None else Outcome.DIFFERENT
            self._emit(Verdict(aggregate_id, outcome, expected, actual, version=version, size=size))

    def _leave_behind(self) -> None:
        key, actual = self._key, self._actual
        self._move_on()
        if key != self._met:
            self._counts.checked += 1
            self._emit(Verdict(key, Outcome.ORPHAN, None, actual))
        elif not self._met_malformed:
            self._counts.checked += 1
            self._emit(Verdict(key, Outcome.UNEXPECTED, None, actual, Why.DUPLICATE_KEY))

    def _move_on(self) -> None:
        self._actual: Document | None = next(self._documents, None)
        self._key: str | None = None if self._actual is None else self._actual[self._key_field]
        self._key_place = None if self._key is None else _place(self._key)


def _place(key: str) -> bytes:
    # Python orders texts as MongoDB does, but not the bytes that are no UTF-8, which are decoded to surrogates.
    return key.encode("utf-8", "surrogateescape")


def stored_size(document: Document) -> int | Malformed:
    """The document's size in bytes, or why MongoDB could not hold it."""
    try:
        size = len(bson.encode(document))
    except UnicodeEncodeError:
        return Malformed(Reason.BAD_FIELD, "a text of the document is not valid UTF-8")
    if size > MAX_DOCUMENT_BYTES - _ROOM_FOR_ID:
        return Malformed(Reason.DOCUMENT_TOO_LARGE, f"the document would have {size:,} bytes; MongoDB holds 16 MiB")
    return size
