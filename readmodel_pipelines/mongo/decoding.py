"""Cursors that return every value unchanged: decoded by the driver, or by our own decoder if the driver changes a
value.

Events are many, so a reply is only searched for the bytes of values that the driver changes. Documents of read models
are encoded again and compared with the reply, which also reveals a repeated field.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any

import bson
from bson.errors import BSONError

from readmodel_pipelines.events.exact import pieces, read
from readmodel_pipelines.mongo.collection import BY_BYTES
from readmodel_pipelines.mongo.cursor import SteadyCursor
from readmodel_pipelines.mongo.driver import CODEC, Collection, Document
from readmodel_pipelines.reconcile.stored import Stored

_BATCH = re.compile(rb"\x04((?:first|next)Batch)\x00")
_CURSOR = b"\x03cursor\x00"
_EMPTY = b"\x05\x00\x00\x00\x00"

# A symbol, with the length of its text after its name; undefined, with the next type after it. A name has no control
# characters; with them every second number would match.
_SUSPICIOUS = (
    re.compile(rb"\x0e[^\x00-\x1f]+\x00[\s\S]{3}[\x00\x01]"),
    re.compile(rb"\x06[^\x00-\x1f]+\x00[\x00-\x13\x7f\xff]"),
)
_OBJECT_ID = b"\x07_id\x00"
_FIELDS_AT = 4 + len(_OBJECT_ID) + 12
_REFERENCE = b"$ref\x00"
_UNREADABLE = (BSONError, UnicodeEncodeError)


class ExactCursor(SteadyCursor):
    """The cursor of a `find`, with the hook that receives the replies of the driver's cursor of raw batches.

    If given, `made_of` makes something else of the bytes of each document than its values.
    """

    def __init__(
        self,
        collection: Collection,
        *query: Any,
        of_events: bool = False,
        made_of: Callable[[bytes], Any] | None = None,
        **options: Any,
    ) -> None:
        options["collation"] = BY_BYTES
        super().__init__(collection.with_options(codec_options=CODEC), *query, **options)
        self._of_events = of_events
        self._made_of = made_of

    def batches(self, most: int) -> Iterator[list[Any]]:
        """What is left, at most this many at a time, and never of two replies, each of which may have 16 MB."""
        while self._next_batch(batch := list[Any](), most):
            yield batch

    def _unpack_response(self, response: Any, *about: Any, **more: Any) -> Any:
        reply = bytes(response.payload_document)
        if self._made_of is not None and (found := _BATCH.search(reply)):
            response.payload_document = _without_batch(reply, found.end())
            unpacked: Any = super()._unpack_response(response, *about, **more)
            unpacked[0]["cursor"][found[1].decode()] = [
                self._made_of(reply[start:end]) for start, end in _places(reply)
            ]
            return unpacked
        try:
            unpacked = super()._unpack_response(response, *about, **more)
        except BSONError:
            unpacked = response.raw_response(user_fields={"cursor": {"firstBatch": 1, "nextBatch": 1}})
            cursor = unpacked[0]["cursor"]
            cursor["firstBatch" if "firstBatch" in cursor else "nextBatch"] = [
                _read(reply[start:end], last_counts=self._of_events) for start, end in _places(reply)
            ]
            return unpacked
        cursor = unpacked[0].get("cursor") or {}
        if batch := cursor.get("firstBatch") or cursor.get("nextBatch"):
            (correct_events if self._of_events else correct_documents)(reply, batch)
        return unpacked


class StoredAs:
    """Makes a `Stored` of a document's bytes; `key` is the name of its key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._name = key.encode() + b"\0"
        # As nearly every document begins: an ObjectId, then a key of 36 bytes with its end.
        self._before = b"\x02" + self._name + b"\x25\0\0\0"
        self._key_at = _FIELDS_AT + len(self._before)

    def __call__(self, raw: bytes) -> Stored:
        """The document of these bytes."""
        at = self._key_at
        if (
            raw.startswith(_OBJECT_ID, 4)
            and raw.startswith(self._before, _FIELDS_AT)
            # In another place it could be a second key.
            and raw.count(self._name) == 1
            and (key := raw[at : at + 36]).isascii()
        ):
            return Stored(key.decode(), raw, _FIELDS_AT, _read)
        document = _read(raw)
        return Stored(document[self._key], raw, 0, lambda _: document)


def correct_events(reply: bytes, events: list[Document]) -> None:
    """Correct values that the driver changed; of a repeated field the last counts, as in the driver."""
    if suspects := _suspects(reply):
        _mend(events, _places(reply), suspects, reply)


def _suspects(raw: bytes) -> list[int]:
    return sorted(match.start() for pattern in _SUSPICIOUS for match in pattern.finditer(raw))


def _mend(events: list[Document], places: Iterable[tuple[int, int]], suspects: list[int], raw: bytes) -> None:
    left = suspects
    for place, (start, end) in enumerate(places):
        if left[0] < end:
            if start <= left[0]:
                events[place] = _read(raw[start:end], last_counts=True)
            # One at the end is the length of the next document, whose first value it may hide.
            left = left[bisect_left(left, end) :]
            if not left:
                return


def events_of(batch: bytes) -> list[Document]:
    """The events of a raw batch; of a repeated field the last counts."""
    try:
        events = bson.decode_all(batch, CODEC)
    except _UNREADABLE:
        return [_read(piece, last_counts=True) for piece in pieces(batch)]
    if suspects := _suspects(batch):
        ends = list(accumulate(map(len, pieces(batch)), initial=0))
        _mend(events, pairwise(ends), suspects, batch)
    return events


def correct_documents(reply: bytes, documents: list[Document]) -> None:
    """Correct values that the driver changed; a repeated field holds both of its values."""
    found = _BATCH.search(reply)
    at = found.end() if found else 0
    try:
        again = bson.encode({"": documents})[6:-1]
        if reply[at : at + len(again)] == again and _REFERENCE not in reply:
            return
    except _UNREADABLE:
        pass
    for place, (start, end) in enumerate(_places(reply)):
        documents[place] = _read(reply[start:end])


def documents_of(batch: bytes) -> list[Document]:
    """The documents of a raw batch, which is how aggregations are read."""
    try:
        documents = bson.decode_all(batch, CODEC)
        if b"".join(map(bson.encode, documents)) == batch and _REFERENCE not in batch:
            return documents
    except _UNREADABLE:
        pass
    return list(map(_read, pieces(batch)))


def _without_batch(reply: bytes, at: int) -> bytes:
    """The reply with an empty batch instead of the one at this position."""
    size, cursor = _length(reply, at), reply.find(_CURSOR, 0, at) + len(_CURSOR)
    parts = bytearray(reply[:at] + _EMPTY + reply[at + size :])
    for document in (0, cursor):
        parts[document : document + 4] = (_length(reply, document) - size + len(_EMPTY)).to_bytes(4, "little")
    return bytes(parts)


def _length(raw: bytes, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def _places(reply: bytes) -> Iterator[tuple[int, int]]:
    """The start and end of each document in a reply."""
    found = _BATCH.search(reply)
    at = found.end() + 4 if found else len(reply) - 1
    while reply[at]:
        at = reply.index(0, at) + 1
        end = at + _length(reply, at)
        yield at, end
        at = end


def _read(raw: bytes, *, last_counts: bool = False) -> Document:
    try:
        document = bson.decode(raw, CODEC)
        if bson.encode(document) == raw and _REFERENCE not in raw:
            return document
    except _UNREADABLE:
        pass
    return read(raw, last_counts=last_counts)
