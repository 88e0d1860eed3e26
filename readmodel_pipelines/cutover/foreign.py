"""Foreign fields while a shadow is built: changes by others in the live documents are copied into the shadow.

Until the cut-over, changed documents are read again. Changes between the last such read and the cut-over are only in
the change stream, which ends with the rename. They are applied to the new collection afterwards, except to fields
written since; one transaction on the server ensures that. Values are copied on the server wherever possible, because
the driver cannot represent every text, type and name. The stream also reports changes of the live collection's
definition, and whether it was replaced.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from typing import Any

from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.change_stream import ChangeStream
from pymongo.errors import DocumentTooLarge, OperationFailure, WriteError

from readmodel_pipelines.cutover.definition import REDEFINED
from readmodel_pipelines.cutover.transaction import in_transaction
from readmodel_pipelines.events.exact import has_repeated, read, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import AWAIT_MS, Followed, Token, right_after
from readmodel_pipelines.mongo.driver import CODEC, ClientSession, Collection, Document
from readmodel_pipelines.mongo.failures import codes_of, is_the_servers
from readmodel_pipelines.mongo.scan import found, string_keys, with_id
from readmodel_pipelines.projections.projection import Projection

_AT_ONCE = 1_000
_WRITES = ("insert", "replace", "update")
_RAW = CODEC.with_options(document_class=RawBSONDocument)
_Newer = Callable[[], Mapping[bytes, Set[str]]]
"""The fields written between the rename and now, by document."""


def merged(document: Any, kept: Sequence[str], other: Any) -> Document:
    """The expression for `document` with these of its fields, and with the other fields of `other`."""
    is_kept = _is_one_of(kept)
    return {"$mergeObjects": [_fields(document, is_kept), _fields(other, {"$not": [is_kept]})]}


def _is_one_of(names: Sequence[str]) -> Document:
    """Whether a field has one of these names, byte by byte; `$in` would use the collation of a `$merge`."""
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


class _StandsTwice(Exception):
    """A field occurs twice; a pipeline that changes such a field crashes the server (6.0.5)."""


_CANNOT_BE_SAID = (BSONError, DocumentTooLarge, UnicodeEncodeError, WriteError, _StandsTwice)


class LiveReplaced(Exception):
    """The live collection was dropped, renamed or replaced while its shadow was built; `str()` is its name."""


class ForeignFollower:
    """Follows changes of the foreign fields of a live collection, from a token on.

    `redefined` are the changes of its definition since the list was last emptied. `renamed_at` is the time from which
    it is another collection.

    Raises (here and in the methods that read):
        HistoryLost: the token is older than the oplog.
    """

    def __init__(self, live: Collection, projection: Projection, token: Token | None) -> None:
        self._live = live
        self._owned = {*projection.owned, "_id"}
        self._key = projection.key
        self.not_applied: list[Any] = []
        self.redefined: list[Document] = []
        self._waiting: list[Document] = []
        self.renamed_at: Timestamp | None = None
        watched: Any = live.with_options(codec_options=_RAW)

        def watch(behind: Token | None) -> ChangeStream[Document]:
            stream: ChangeStream[Document] = watched.watch(
                resume_after=behind, max_await_time_ms=AWAIT_MS, show_expanded_events=True
            )
            return stream

        self._followed = Followed(live, watch, token)
        self.close, self.ask = self._followed.close, self._followed.ask

    @property
    def token(self) -> Token | None:
        """The token after the changes read so far."""
        return self._followed.token

    def drain(self, now: Timestamp | None = None) -> Iterator[list[Any]]:
        """The `_id`s of documents whose foreign fields changed until now, in batches of some hundred.

        Raises:
            LiveReplaced: the live collection was replaced.
        """
        ids: list[Any] = []
        for change in self._up_to_now(now):
            if self._concerns_foreign(change):
                ids.append(_id_of(change))
            if len(ids) >= _AT_ONCE:
                yield ids
                ids = []
                self._followed.token = change["_id"]
        yield ids
        if self.renamed_at is not None:
            raise LiveReplaced(self._live.name)
        self._followed.worked_off()

    def apply(self, renamed: Collection) -> int:
        """Apply to the new collection the changes of the live one before the rename; returns their number.

        A field written since the rename keeps its value, so call it soon. A change of a document that does not exist
        yet is left to the next call. `not_applied` has the `_id`s of documents whose changes the driver cannot
        represent.
        """
        late: dict[bytes, list[Document]] = defaultdict(list)
        for change in [*self._waiting, *filter(self._concerns_foreign, self._up_to_now())]:
            if change["operationType"] == "update" or is_plain(self._key_in(change)):
                late[_identity(change)].append(change)
        self._followed.worked_off()
        self._waiting = []
        if late:
            with self._written_since(renamed) as newer:
                for changes in late.values():
                    self._apply_to_one(changes, renamed.with_options(codec_options=CODEC), newer)
        return sum(map(len, late.values()))

    def _apply_to_one(self, changes: Sequence[Document], collection: Collection, newer: _Newer) -> None:
        """Apply all changes of a document at once, so that a repetition after a crash does not take its own writes for
        newer ones.
        """
        left, doing = list(changes), 0
        keys = [self._key_in(change) for change in changes if change["operationType"] != "update"]
        # An inserted document may have got another `_id` here.
        this = string_keys(self._key, keys[-1:]) if keys else with_id(_id_of(changes[0]))

        def do(session: ClientSession) -> bool:
            nonlocal doing
            # Before the newer fields are read: if the document is written afterwards, the transaction starts again.
            document = next(found(collection, this, session=session), None)
            if document is None:
                return False
            kept = self._owned | newer().get(written({"_id": document["_id"]}), set())
            reached(Moment.FOREIGN_APPLIED)
            for doing, change in enumerate(left):  # noqa: B007 - the caller reads it
                for step in _steps_of(change, kept):
                    if has_repeated(document):
                        raise _StandsTwice
                    here = with_id(document["_id"])
                    collection.update_one(here, step, bypass_document_validation=True, session=session)
            return True

        while left:
            try:
                if not in_transaction(collection, do):
                    self._waiting += left
                break
            except _CANNOT_BE_SAID as error:
                if isinstance(error, OperationFailure) and any(map(is_the_servers, codes_of(error))):
                    raise
                del left[doing]
        if len(left) < len(changes):
            self.not_applied.append(_id_of(changes[0]))

    def _key_in(self, change: Document) -> Any:
        return read(change["fullDocument"].raw).get(self._key)

    @contextmanager
    def _written_since(self, renamed: Collection) -> Iterator[_Newer]:
        since_then: dict[bytes, set[str]] = defaultdict(set)
        if self.renamed_at is None:
            yield lambda: since_then
            return
        watched: Any = renamed.with_options(codec_options=_RAW)
        since = right_after(self.renamed_at)

        def watch(behind: Token | None) -> ChangeStream[Document]:
            begin = {"start_at_operation_time": since} if behind is None else {"resume_after": behind}
            stream: ChangeStream[Document] = watched.watch(**begin, max_await_time_ms=AWAIT_MS)
            return stream

        with closing(Followed(renamed, watch)) as followed:

            def up_to_now() -> Mapping[bytes, Set[str]]:
                for change in followed.up_to_now():
                    if change["operationType"] in _WRITES:
                        whole = change["operationType"] != "update"
                        fields = read(change["fullDocument"].raw) if whole else map(_top, _paths(change))
                        since_then[_identity(change)].update(fields)
                followed.worked_off()
                return since_then

            yield up_to_now

    def _up_to_now(self, now: Timestamp | None = None) -> Iterator[Document]:
        for change in self._followed.up_to_now(now):
            if change["operationType"] in ("rename", "drop", "invalidate"):
                self.renamed_at = change["clusterTime"]
                self._followed.end()
                return
            if change["operationType"] in REDEFINED:
                self.redefined.append(change)
            yield change

    def _concerns_foreign(self, change: Mapping[str, Any]) -> bool:
        if change["operationType"] not in _WRITES:
            return False
        if change["operationType"] != "update":
            # The `_id` of a new document is also foreign.
            return True
        return any(_top(path) not in self._owned for path in _paths(change))


def _steps_of(change: Mapping[str, Any], kept: Set[str]) -> list[Any]:
    """The updates that repeat the changes of fields other than these."""
    if change["operationType"] == "update":
        return _steps(change["updateDescription"], lambda path: _top(path) not in kept)
    return [[{"$replaceWith": merged("$$ROOT", [*kept], {"$literal": change["fullDocument"]})}]]


def _steps(what: Mapping[str, Any], stands: Callable[[str], bool]) -> list[Any]:
    """The updates that repeat the server's description of the changes of the existing fields."""
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
