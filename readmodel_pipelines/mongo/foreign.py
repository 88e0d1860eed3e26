"""Foreign fields while a shadow is built: what others change in the live documents meanwhile comes along.

Up to the swap the changed documents are read again. What was changed between the last such look and the swap is in the
change stream alone, which ends with the renaming: it is applied to the new collection after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

import bson
from bson.timestamp import Timestamp
from pymongo import UpdateOne
from pymongo.change_stream import ChangeStream
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from readmodel_pipelines.mongo.changes import HISTORY_LOST, HistoryLost, Token, time_of
from readmodel_pipelines.mongo.read_model import update_of
from readmodel_pipelines.mongo.scan import CODEC, Document
from readmodel_pipelines.projections.projection import Projection

_AWAIT_MS = 5
_AT_ONCE = 1_000
_WRITES = ("insert", "replace", "update")


class ForeignFollower:
    """Follows what others do to the foreign fields of a live collection, from a token on.

    Raises (here and in what reads on):
        HistoryLost: the token lies before what the server remembers.
    """

    def __init__(self, live: Collection[Document], projection: Projection, token: Token) -> None:
        self._live = live
        self._owned = {*projection.owned, "_id"}
        self._key = projection.key
        self.token = token
        self._renamed_at: Timestamp | None = None
        watched = live.with_options(codec_options=CODEC)
        try:
            self._stream = watched.watch(resume_after=token, max_await_time_ms=_AWAIT_MS)
        except OperationFailure as error:
            raise _lost(error) from None

    def drain(self) -> Iterator[list[Any]]:
        """The `_id`s of documents whose foreign fields changed up to now, some hundred at a time."""
        ids: list[Any] = []
        for change in self._up_to_now():
            if self._concerns_foreign(change):
                ids.append(change["documentKey"]["_id"])
            if len(ids) >= _AT_ONCE:
                yield ids
                ids = []
                self.token = change["_id"]
        yield ids
        self.token = self._stream.resume_token or self.token

    def apply(self, renamed: Collection[Document]) -> int:
        """Do to the new collection what was done to the live one before it was renamed over; gives the number.

        A field that somebody wrote since then keeps what it got.
        """
        late = [change for change in self._up_to_now() if self._concerns_foreign(change)]
        newer = self._written_since(renamed) if late else set()
        for change in late:
            self._do(change, renamed.with_options(codec_options=CODEC), newer)
        return len(late)

    def _written_since(self, renamed: Collection[Document]) -> set[tuple[bytes, str]]:
        """(`_id`, field) of what was written into the new collection since the renaming."""
        if self._renamed_at is None:
            return set()
        since = Timestamp(self._renamed_at.time, self._renamed_at.inc + 1)
        watched = renamed.with_options(codec_options=CODEC)
        written: set[tuple[bytes, str]] = set()
        with watched.watch(start_at_operation_time=since, max_await_time_ms=_AWAIT_MS) as stream:
            for change in _drained(stream, _now(renamed)):
                if change["operationType"] in _WRITES:
                    fields = (
                        map(_top, _paths(change)) if change["operationType"] == "update" else change["fullDocument"]
                    )
                    written |= {(_identity(change), field) for field in fields}
        return written

    def close(self) -> None:
        """Let go of the server's cursor."""
        self._stream.close()

    def _up_to_now(self) -> Iterator[Document]:
        for change in _drained(self._stream, _now(self._live)):
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
        return any(self._is_foreign(path) for path in _paths(change))

    def _do(self, change: Mapping[str, Any], collection: Collection[Document], newer: Set[tuple[bytes, str]]) -> None:
        def stands(path: str) -> bool:
            return self._is_foreign(path) and (_identity(change), _top(path)) not in newer

        if change["operationType"] != "update":
            document = change["fullDocument"]
            there = collection.find_one({self._key: document.get(self._key)})
            if there is not None:
                ours, theirs = ({name: item[name] for name in item if stands(name)} for item in (document, there))
                if update := update_of(ours, theirs):
                    collection.update_one({"_id": there["_id"]}, update)
            return
        what = change["updateDescription"]
        steps: list[Document] = [
            {"$push": {item["field"]: {"$each": [], "$slice": item["newSize"]}}}
            for item in what["truncatedArrays"]
            if stands(item["field"])
        ]
        changed = {"$set": what["updatedFields"], "$unset": dict.fromkeys(what["removedFields"], "")}
        for operator, fields in changed.items():
            if standing := {path: value for path, value in fields.items() if stands(path)}:
                steps.append({operator: standing})
        if steps:
            collection.bulk_write([UpdateOne({"_id": change["documentKey"]["_id"]}, step) for step in steps])

    def _is_foreign(self, path: str) -> bool:
        return _top(path) not in self._owned


def _drained(stream: ChangeStream[Document], now: Timestamp) -> Iterator[Document]:
    """What the stream tells up to that moment."""
    while stream.alive:
        try:
            change = stream.try_next()
        except OperationFailure as error:
            raise _lost(error) from None
        if change is not None:
            yield dict(change)
        if change["clusterTime"] > now if change else time_of(stream.resume_token) >= now:
            return


def _now(collection: Collection[Document]) -> Timestamp:
    now: Timestamp = collection.database.client.admin.command("ping")["operationTime"]
    return now


def _paths(change: Mapping[str, Any]) -> list[str]:
    what = change["updateDescription"]
    return [*what["updatedFields"], *what["removedFields"], *(item["field"] for item in what["truncatedArrays"])]


def _top(path: str) -> str:
    return path.partition(".")[0]


def _identity(change: Mapping[str, Any]) -> bytes:
    return bson.encode({"_id": change["documentKey"]["_id"]})


def _lost(error: OperationFailure) -> Exception:
    if error.code in HISTORY_LOST:
        return HistoryLost("the server's history of changes does not reach back so far")
    return error
