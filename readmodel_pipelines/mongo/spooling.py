"""Reads a whole collection in natural order, and sorts it by key in a spool.

The index gives the order by fetching each document from its place. In a collection larger than the server's cache
nearly each is a read of the disk. In natural order the server reads its files once, from beginning to end. Spooled
documents are as old as the read, so each difference is compared again, as in every full pass.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from bson import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.cursor import CursorType
from pymongo.errors import PyMongoError

from readmodel_pipelines.events.exact import Odd, Repeated, written
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.mongo.decoding import ExactCursor, documents_of, events_of
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.patience import Attempts
from readmodel_pipelines.mongo.scan import BATCH_DOCUMENTS, Query
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.spool.sorted_file import Key, SortedFile, SortedFileWriter

_NATURAL = [("$natural", 1)]
# An event as the application writes it: its id has 36 bytes, its version is an int32. All others are decoded.
_USUAL = re.compile(
    rb"[\s\S]{4}\x02aggregate_id\x00\x25\x00\x00\x00([^\x00]{36})\x00"
    rb"\x02aggregate_type\x00[\s\S]{4}[^\x00]*\x00\x02event_type\x00[\s\S]{4}[^\x00]*\x00\x10version\x00([\s\S]{4})"
)
_LEAST, _UNDEFINED, _MISSING, _NOT_A_NUMBER, _NUMBER, _TEXT, _OTHER, _GREATEST = range(8)
_KIND_OF_UNDEFINED, _KIND_OF_TIMESTAMPS, _BEHIND_DATES = 0x06, 0x11, 0x0A
_VERSIONS = [(_NUMBER, version) for version in range(4_096)]

Entries = tuple[list[tuple[Key, bytes]], int]
"""Documents with their keys, and their total bytes."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A spooled collection; it is read in the order of the index."""

    file: SortedFile
    field: str
    of_events: bool

    def read(self, within: IdRange) -> Iterator[list[Document]]:
        """The documents of a range, in batches."""
        if self.of_events:
            return self.file.read(within, events_of, event_key)
        return self.file.read(within, documents_of, partial(document_key, key_field=self.field))


@dataclass(frozen=True, slots=True)
class Spools:
    """The spools of a pass: the events, and each read model by its name. Pickled for worker processes."""

    events: Spooled | None = None
    read_models: Mapping[str, Spooled] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.events is not None


NO_SPOOLS = Spools()


def spool(
    collection: Collection,
    query: Query,
    writer: SortedFileWriter,
    *,
    of_events: bool,
    read: Callable[[int], object] = lambda _: None,
) -> Spooled:
    """Read the documents of a query, ordered by its first field, once and in natural order.

    `read` is called with the number read, per batch. A read that a transient error ended starts again, because natural
    order has no position to continue from.
    """
    key_field = query.sort[0][0]
    entries_of = _events if of_events else lambda batch: _documents(batch, key_field)
    attempts, farthest = Attempts(collection.database.client), 0
    while True:
        done = 0
        try:
            for batch in _batches(collection, query):
                entries, size = entries_of(batch)
                writer.add(entries, size)
                read(len(entries))
                done += len(entries)
                if done > farthest:
                    # A read that fails each time at the same position is not continued.
                    farthest = done
                    attempts.went_on()
            attempts.went_on()
            return Spooled(writer.finish(), key_field, of_events)
        except PyMongoError as error:
            attempts.failed(error)
            writer.restart()


def _batches(collection: Collection, query: Query) -> Iterator[list[bytes]]:
    mongos = collection.database.client.is_mongos
    # The driver's raw batches cost more: it makes an object of each of their documents.
    cursor = ExactCursor(
        collection,
        query.where,
        query.fields,
        made_of=bytes,
        hint=_NATURAL,
        batch_size=BATCH_DOCUMENTS,
        cursor_type=CursorType.NON_TAILABLE if mongos else CursorType.EXHAUST,
    )
    with cursor:
        yield from cursor.batches(BATCH_DOCUMENTS)


def _events(batch: list[bytes]) -> Entries:
    usual, entries = _USUAL.match, []
    for raw in batch:
        if found := usual(raw):
            version = int.from_bytes(found[2], "little", signed=True)
            order = _VERSIONS[version] if 0 <= version < len(_VERSIONS) else (_NUMBER, version)
            entries.append(((found[1], order), raw))
        else:
            entries.append((event_key(events_of(raw)[0]), raw))
    return entries, sum(map(len, batch))


def _documents(batch: list[bytes], key_field: str) -> Entries:
    keys = (document_key(document, key_field) for document in documents_of(b"".join(batch)))
    return list(zip(keys, batch, strict=True)), sum(map(len, batch))


def event_key(event: Document) -> Key:
    """The place of an event in the order: the bytes of its id, then its version in MongoDB's order of values."""
    aggregate_id, version = event["aggregate_id"], event.get("version")
    if type(version) is int and 0 <= version < len(_VERSIONS) and type(aggregate_id) is str:
        # Nearly all events.
        return byte_order(aggregate_id), _VERSIONS[version]
    return _bytes_of(aggregate_id), order_of(version)


def document_key(document: Document, key_field: str) -> Key:
    """The place of a document of a read model; those with one key in natural order."""
    return _bytes_of(document[key_field]), None


def _bytes_of(text: Any) -> bytes:
    if isinstance(text, Repeated):
        # Like queries and indexes.
        text = text.values[0]
    # A symbol lies among the strings.
    return byte_order(text.symbol or "" if isinstance(text, Odd) else text)


def order_of(value: Any) -> tuple[int, Any]:
    """MongoDB's index order of values: by kind, then by value; of an array its smallest element counts."""
    if value is None:
        return _MISSING, b""
    if isinstance(value, list):
        return min(map(order_of, value), default=(_UNDEFINED, b""))
    if isinstance(value, MinKey | MaxKey):
        return (_LEAST if isinstance(value, MinKey) else _GREATEST), b""
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        # A signaling NaN cannot even be compared.
        return (_NOT_A_NUMBER, b"") if Decimal(value).is_nan() else (_NUMBER, value)
    if type(value) is str or (isinstance(value, Odd) and value.symbol is not None):
        return _TEXT, _bytes_of(value)
    # After its length comes the number of its type.
    raw = written({"": value})[4:]
    if raw[0] == _KIND_OF_UNDEFINED:
        return _UNDEFINED, b""
    return _OTHER, (_BEHIND_DATES if raw[0] == _KIND_OF_TIMESTAMPS else raw[0], raw)
