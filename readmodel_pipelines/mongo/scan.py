"""Reads large parts of a collection: in key order, in batches, without a round trip per document.

Keys are split by BSON type as the join needs it: `string_keys` is the filter for the merge join, `odd_documents` finds
all others once. An array is never a string key, because MongoDB matches it by its elements, twice or inside other
streams. Symbols lie among the strings and equal them in MongoDB; only a read of a range finds them and tells them
apart.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.min_key import MinKey
from bson.raw_bson import RawBSONDocument
from pymongo.cursor import CursorType
from pymongo.errors import PyMongoError

from readmodel_pipelines.batched import batched
from readmodel_pipelines.events.exact import sendable, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.mongo.beforehand import Beforehand
from readmodel_pipelines.mongo.decoding import ExactCursor, StoredAs, documents_of, events_of
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.kinds import indexes_of
from readmodel_pipelines.mongo.patience import Attempts
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.reconcile.stored import Stored

BATCH_DOCUMENTS = 2_000
_HANDED_ON = 100
_RAW = CodecOptions(RawBSONDocument)
NO_ARRAY = {"$not": {"$type": "array"}}
_BESIDE_TEXTS = [-1, 1, 3, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 18, 19, 127]
"""The types by number, without string, symbol, array and null."""
SPARE = tuple(f"readmodel_no_such_field_{number}" for number in range(16))
"""An additional field in the projection: the server stops after it has found as many fields as requested, and would
miss a repeated one.
"""


@dataclass(frozen=True, slots=True)
class Query:
    """The query of one `find`, defined once for the code that runs it and for `doctor`, which asks for its plan."""

    where: Mapping[str, Any]
    fields: Mapping[str, Any] | None = None
    sort: tuple[tuple[str, int], ...] = ()
    index: str | None = None
    """The index hint; without one the server chooses."""


def string_keys(field: str, keys: Sequence[str] | None = None) -> Document:
    """The filter for documents whose `field` is a string, one of `keys` if they are given."""
    one_of = {} if keys is None else {"$in": list(keys)}
    return {field: {**one_of, "$type": "string", **NO_ARRAY}}


def keys_within(field: str, within: IdRange) -> Document:
    """The filter for documents whose `field` is a string, or a symbol, in a range."""
    ends = {"$gte": within.lower or "", "$lt": within.upper}
    return {field: {**{name: end for name, end in ends.items() if end is not None}, **NO_ARRAY}}


def with_id(document_id: Any) -> Mapping[str, Any]:
    """The filter for the document with this `_id`, of any type."""
    # MongoDB 8.2 does not treat `$eq` with a value like a reference as a filter by `_id`, and refuses the write.
    is_usual = isinstance(document_id, ObjectId | str | int)
    return sendable({"_id": {"$eq": document_id} if is_usual else {"$in": [document_id]}})


def with_ids(document_ids: Sequence[Any]) -> Mapping[str, Any]:
    """The filter for the documents with these `_id`s, of any type."""
    return sendable({"_id": {"$in": list(document_ids)}})


def index_on(collection: Collection, *fields: str) -> str | None:
    """The name of an index with every document in ascending order of exactly these fields, if any."""
    for index in indexes_of(collection) or ():
        if holds_every_document(index) and list(index["key"].items()) == [(field, 1) for field in fields]:
            return str(index["name"])
    return None


def holds_every_document(index: Mapping[str, Any]) -> bool:
    """Whether an index, as the server describes it, contains every document and orders texts by bytes."""
    return not any(index.get(option) for option in ("partialFilterExpression", "sparse", "collation", "hidden"))


def drain(collection: Collection, query: Query, *, of_events: bool = False) -> Generator[list[Document], None, None]:
    """Batches of decoded documents in order, each once. Without an index MongoDB sorts, on disk if needed."""
    return _drain(collection, query, of_events=of_events)


def drain_stored(collection: Collection, query: Query, key: str) -> Iterator[list[Stored]]:
    """Like `drain`, of a read model's documents that are decoded only if needed."""
    return _drain(collection, query, made_of=StoredAs(key))


def _drain(collection: Collection, query: Query, *, of_events: bool = False, **form: Any) -> Generator[Any, None, None]:
    field = query.sort[0][0]
    # A stream may have a million events; they come in the order of versions, and none is inserted between.
    place = _Place(query.where, field, field, by_id=not of_events)
    return place.go_on(
        lambda where: _batches(collection, query, where, of_events=of_events, **form), collection.database.client
    )


def _batches(collection: Collection, query: Query, where: Mapping[str, Any], **form: Any) -> Iterator[list[Any]]:
    mongos = collection.database.client.is_mongos
    cursor = ExactCursor(
        collection,
        where,
        query.fields,
        **form,
        sort=query.sort,
        hint=query.index,
        # An index with an array key gives no order.
        allow_disk_use=True,
        batch_size=BATCH_DOCUMENTS,
        # The server sends the next batch while we process this one; a mongos before 7.1 does not.
        cursor_type=CursorType.NON_TAILABLE if mongos else CursorType.EXHAUST,
    )
    try:
        # Few at a time, because decoded they take more memory.
        yield from cursor.batches(_HANDED_ON)
    finally:
        cursor.close()


class _Place:
    """The position of a read in order of a key: the last key from which a query can begin, and the documents since.

    `where` has a condition on the `field`, which documents contain as `shown`; `by_id` tells documents with the same
    key apart.
    """

    def __init__(self, where: Mapping[str, Any], field: str, shown: str, *, by_id: bool) -> None:
        self._where = where
        self._field = field
        self._shown = shown
        self._by_id = by_id
        self._last: str | None = None
        self._given: Counter[str | bytes] = Counter()
        self._known: Counter[str | bytes] = Counter()

    def go_on(
        self, batches_of: Callable[[Mapping[str, Any]], Iterator[list[Any]]], client: Any
    ) -> Generator[list[Any], None, None]:
        """The documents that match the condition; after a transient error from the position on."""
        attempts = Attempts(client)
        while True:
            try:
                for batch in batches_of(self._rest()):
                    if new := self._new(batch):
                        # Only after progress: a read that fails each time at the same position is not continued.
                        attempts.went_on()
                        yield new
                attempts.went_on()
                return
            except PyMongoError as error:
                attempts.failed(error)
                self._known = Counter(self._given)

    def _rest(self) -> Mapping[str, Any]:
        if self._last is None:
            return self._where
        return {**self._where, self._field: {**self._where[self._field], "$gte": self._last}}

    def _new(self, batch: list[Any]) -> list[Any]:
        """The documents that were not returned before; they are recorded now."""
        if self._known:
            batch = [document for document in batch if not self._is_known(document)]
        start, last = len(batch), None
        for document in reversed(batch):
            key = document[self._shown]
            if is_plain(key):
                last = key if last is None else last
                if key != last:
                    break
            # Others lie between or before, and may be equal in MongoDB.
            start -= 1
        if last is not None and last != self._last:
            self._last = last
            self._known.clear()
            if start:
                self._given.clear()
        self._given.update(map(self._identity, batch[start:]))
        return batch

    def _is_known(self, document: Document | Stored) -> bool:
        identity = self._identity(document)
        self._known[identity] -= 1
        return self._known[identity] >= 0

    def _identity(self, document: Document | Stored) -> str | bytes:
        key = document[self._shown]
        if self._by_id:
            return written({"key": key, "_id": document.get("_id")})
        # Fast, because nearly all events come here.
        return key if type(key) is str else written({"key": key})


def found(collection: Collection, where: Mapping[str, Any], fields: Any = None, **options: Any) -> Iterator[Document]:
    """Documents with every value unchanged."""
    yield from ExactCursor(collection, sendable(where), fields, **options)


def paged(
    collection: Collection, where: Mapping[str, Any], fields: Mapping[str, Any], by: str, size: int
) -> Iterator[list[Document]]:
    """Documents in order of a field with unique values, in pages, so that none is remembered longer."""
    left = where
    # The server would rather sort all of them for each page.
    hint = [("_id", 1)] if by == "_id" else None
    while page := list(collection.find(left, fields, sort=[(by, 1)], limit=size, hint=hint)):
        yield page
        left = {**where, by: {**where.get(by, {}), "$gt": page[-1][by]}}


def grouped(collection: Collection, pipeline: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[Document]:
    """The result of an aggregation with every value unchanged; all of it comes at once."""

    # Not in raw batches: the driver's first one is empty, which costs another round trip.
    raw = collection.with_options(codec_options=_RAW).aggregate(pipeline, allowDiskUse=True, **options)
    return chain.from_iterable(documents_of(b"".join(item.raw for item in some)) for some in batched(raw, _HANDED_ON))


def grouped_in_order(
    collection: Collection, pipeline: Sequence[Mapping[str, Any]], field: str, shown: str, **options: Any
) -> Iterator[Document]:
    """As `grouped`, but some at a time: its first stage has a condition on the `field`, and `shown` comes in order.

    The server begins at once, and not when the first is wanted. Of a field that stands twice the last counts.
    """
    first, *steps = pipeline

    def batches_of(where: Mapping[str, Any]) -> Iterator[list[Document]]:
        asked = [{"$match": where}, *steps]
        batches: Any = collection.aggregate_raw_batches(asked, allowDiskUse=True, **options)
        return map(events_of, batches)

    place = _Place(first["$match"], field, shown, by_id=False)
    batches = place.go_on(batches_of, collection.database.client)
    return chain.from_iterable(Beforehand(batches, f"reads {collection.name}"))


def sampled(collection: Collection, field: str, where: Mapping[str, Any], size: int) -> list[str]:
    """That field of about `number` random documents, if it is a valid UTF-8 text."""
    # The sample comes first, so that the server reads random documents instead of sorting the collection.
    pipeline: list[Mapping[str, Any]] = [
        {"$sample": {"size": size}},
        {"$match": where},
        {"$project": {"_id": 0, field: 1}},
    ]
    return [text for document in grouped(collection, pipeline) if is_plain(text := document[field])]


def odd_documents(
    collection: Collection,
    where: Mapping[str, Any],
    fields: Mapping[str, Any],
    index_fields: Sequence[str],
    index: str | None,
    *,
    symbols: bool,
) -> Iterator[Document]:
    """Documents whose first index field is no string, equal keys together except arrays; with or without `symbols`.

    Reads only the parts of the `index` before and after the strings. Array keys are spread over all of it, and symbols
    lie among the strings: these need a full scan, arrays only if the index is multikey.
    """
    key = index_fields[0]
    if index is None:
        others = {"$expr": {"$not": [{"$in": [{"$type": f"${key}"}, ["string", *([] if symbols else ["symbol"])]]}]}}
        yield from found(collection, {**where, **others}, fields, sort=[(field, 1) for field in index_fields])
        return
    # A missing field is equal to null here; the server skips from one type to the next.
    either = [{key: {"$eq": None, **NO_ARRAY}}, {key: {"$type": _BESIDE_TEXTS, **NO_ARRAY}}]
    yield from found(collection, {**where, "$or": either}, fields, hint=index)
    if symbols:
        yield from found(collection, {**where, key: {"$type": "symbol", **NO_ARRAY}}, fields, hint=index)
    if holds_arrays(collection, key, index):
        yield from found(collection, {**where, key: {"$type": "array"}}, fields)


def holds_arrays(collection: Collection, key: str, index: str) -> bool:
    """Whether an index that begins with this field has, or had, an array in it."""
    # `Cursor.explain` would run the query to the end.
    plan = collection.plan({"find": collection.name, "filter": {key: {"$gte": MinKey()}}, "hint": index})
    return _mentions(plan["queryPlanner"], "isMultiKey")


def _mentions(plan: Any, flag: str) -> bool:
    if isinstance(plan, dict):
        return plan.get(flag) is True or any(_mentions(part, flag) for part in plan.values())
    return isinstance(plan, list) and any(_mentions(part, flag) for part in plan)
