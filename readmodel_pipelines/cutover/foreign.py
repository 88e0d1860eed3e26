"""Foreign fields while a shadow is built: what others change in the live documents meanwhile comes along.

Up to the swap the changed documents are read again. What was changed between the last such look and the swap is in the
change stream alone, which ends with the renaming: it is applied to the new collection after it. Values stay as the
server has them wherever that can be done, for the driver cannot give back every text, type and name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, WriteError

from readmodel_pipelines.events.exact import has_repeated, read, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.mongo.changes import AWAIT_MS, Token, drained, lost
from readmodel_pipelines.mongo.driver import CODEC, Collection, Document
from readmodel_pipelines.mongo.failures import codes_of, is_the_servers
from readmodel_pipelines.mongo.scan import found, string_keys, with_id
from readmodel_pipelines.projections.projection import Projection

_AT_ONCE = 1_000
_WRITES = ("insert", "replace", "update")
_RAW = CODEC.with_options(document_class=RawBSONDocument)
_CANNOT_BE_SAID = (BSONError, BulkWriteError, DocumentTooLarge, UnicodeEncodeError, WriteError)


def merged(document: Any, kept: Sequence[str], other: Any) -> Document:
    """The expression for `document` with these of its fields, and with the other fields of `other`."""
    is_kept = _is_one_of(kept)
    return {"$mergeObjects": [_fields(document, is_kept), _fields(other, {"$not": [is_kept]})]}


def _is_one_of(names: Sequence[str]) -> Document:
    """Whether a field has one of these names, to the byte: `$in` would go by the collation of a `$merge`."""
    name = "$$this.k"
    return {
        "$or": [
            {
                "$and": [
                    {"$eq": [{"$strLenBytes": name}, len(item.encode("utf-8", "surrogateescape"))]},
                    {"$eq": [{"$indexOfBytes": [name, {"$literal": item}]}, 0]},
                ]
            }
            for item in names
        ]
    }


def _fields(document: Any, condition: Document) -> Document:
    return {"$arrayToObject": {"$filter": {"input": {"$objectToArray": document}, "cond": condition}}}


class ForeignFollower:
    """Follows what others do to the foreign fields of a live collection, from a token on.

    Raises (here and in what reads on):
        HistoryLost: the token lies before what the server remembers.
    """

    def __init__(self, live: Collection, projection: Projection, token: Token) -> None:
        self._live = live
        self._owned = {*projection.owned, "_id"}
        self._key = projection.key
        self.token = token
        self.not_applied: list[Any] = []
        self._waiting: list[Document] = []
        self._renamed_at: Timestamp | None = None
        watched: Any = live.with_options(codec_options=_RAW)
        try:
            self._stream = watched.watch(resume_after=token, max_await_time_ms=AWAIT_MS)
        except OperationFailure as error:
            raise lost(error) from None

    def drain(self) -> Iterator[list[Any]]:
        """The `_id`s of documents whose foreign fields changed up to now, some hundred at a time."""
        ids: list[Any] = []
        for change in self._up_to_now():
            if self._concerns_foreign(change):
                ids.append(_id_of(change))
            if len(ids) >= _AT_ONCE:
                yield ids
                ids = []
                self.token = change["_id"]
        yield ids
        self.token = self._stream.resume_token or self.token

    def apply(self, renamed: Collection) -> int:
        """Do to the new collection what was done to the live one before it was renamed over; gives the number.

        A field that somebody wrote since then keeps what it got, so the sooner the better. What concerns a document
        that is not there yet is done by the next call. `not_applied` has the `_id`s of documents for which it cannot be
        done, because the driver cannot say what was written.
        """
        late = self._waiting + [change for change in self._up_to_now() if self._concerns_foreign(change)]
        self._waiting = []
        newer = self._written_since(renamed) if late else set()
        for change in late:
            kept = self._owned | {field for identity, field in newer if identity == _identity(change)}
            try:
                if not self._do(change, renamed.with_options(codec_options=CODEC), kept):
                    self._waiting.append(change)
            except _CANNOT_BE_SAID as error:
                if isinstance(error, OperationFailure) and any(map(is_the_servers, codes_of(error))):
                    raise
                self.not_applied.append(_id_of(change))
        return len(late)

    def _written_since(self, renamed: Collection) -> set[tuple[bytes, str]]:
        """(`_id`, field) of what was written into the new collection since the renaming."""
        if self._renamed_at is None:
            return set()
        since = Timestamp(self._renamed_at.time, self._renamed_at.inc + 1)
        watched: Any = renamed.with_options(codec_options=_RAW)
        since_then: set[tuple[bytes, str]] = set()
        with watched.watch(start_at_operation_time=since, max_await_time_ms=AWAIT_MS) as stream:
            for change in drained(stream, renamed.database):
                if change["operationType"] in _WRITES:
                    whole = change["operationType"] != "update"
                    fields = read(change["fullDocument"].raw) if whole else map(_top, _paths(change))
                    since_then |= {(_identity(change), field) for field in fields}
        return since_then

    def close(self) -> None:
        """Let go of the server's cursor."""
        self._stream.close()

    def _up_to_now(self) -> Iterator[Document]:
        for change in drained(self._stream, self._live.database):
            if change["operationType"] in ("rename", "drop", "invalidate"):
                self._renamed_at = change["clusterTime"]
                return
            yield change

    def _concerns_foreign(self, change: Mapping[str, Any]) -> bool:
        if change["operationType"] not in _WRITES:
            return False
        if change["operationType"] != "update":
            # The `_id` of a new document is foreign, too.
            return True
        return any(_top(path) not in self._owned for path in _paths(change))

    def _do(self, change: Mapping[str, Any], collection: Collection, kept: Set[str]) -> bool:
        """Whether the document is there."""
        whole = change["operationType"] != "update"
        key: Any = read(change["fullDocument"].raw).get(self._key) if whole else None
        if whole and not is_plain(key):
            return True
        this = string_keys(self._key, [key]) if whole else with_id(_id_of(change))
        if any(map(has_repeated, found(collection, this))):
            # A pipeline that changes a field that stands twice ends the server (8.0.4).
            self.not_applied.append(_id_of(change))
            return True
        if whole:
            pipeline = [{"$replaceWith": merged("$$ROOT", [*kept], {"$literal": change["fullDocument"]})}]
            return collection.update_one(this, pipeline, bypass_document_validation=True).matched_count > 0
        steps = _steps(change["updateDescription"], lambda path: _top(path) not in kept)
        if not steps:
            return True
        updates = [UpdateOne(this, step) for step in steps]
        return collection.bulk_write(updates, bypass_document_validation=True).matched_count > 0


def _steps(what: Mapping[str, Any], stands: Callable[[str], bool]) -> list[Any]:
    """The updates that do what the server describes to the fields that stand."""
    updated, removed = what["updatedFields"], [path for path in what["removedFields"] if stands(path)]
    paths = [path for path in updated if stands(path)]
    cut = [item for item in what["truncatedArrays"] if stands(item["field"])]
    if not cut and not any("." in path for path in (*paths, *removed)):
        new = _fields({"$literal": updated}, {"$in": ["$$this.k", {"$literal": paths}]})
        rest = _fields("$$ROOT", {"$not": [{"$in": ["$$this.k", {"$literal": removed}]}]})
        return [[{"$replaceWith": {"$mergeObjects": [rest, new]}}]] if paths or removed else []
    steps: list[Any] = [{"$push": {item["field"]: {"$each": [], "$slice": item["newSize"]}}} for item in cut]
    if paths:
        steps.append({"$set": {path: updated[path] for path in paths}})
    if removed:
        steps.append({"$unset": dict.fromkeys(removed, "")})
    return steps


def _paths(change: Mapping[str, Any]) -> list[str]:
    what = change["updateDescription"]
    updated = read(what["updatedFields"].raw)
    return [*updated, *what["removedFields"], *(item["field"] for item in what["truncatedArrays"])]


def _top(path: str) -> str:
    return path.partition(".")[0]


def _id_of(change: Mapping[str, Any]) -> Any:
    return read(change["documentKey"].raw)["_id"]


def _identity(change: Mapping[str, Any]) -> bytes:
    return written({"_id": _id_of(change)})
