"""Foreign fields while a shadow is built: what others change in the live documents meanwhile comes along.

Up to the swap the changed documents are read again. What was changed between the last such look and the swap is in the
change stream alone, which ends with the renaming: it is applied to the new collection after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bson.timestamp import Timestamp
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from readmodel_pipelines.mongo.changes import HISTORY_LOST, HistoryLost, Token, time_of
from readmodel_pipelines.mongo.read_model import update_of
from readmodel_pipelines.mongo.scan import CODEC, Document
from readmodel_pipelines.projections.projection import Projection

_AWAIT_MS = 50
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
        """Do to the new collection what was done to the live one before it was renamed over; gives the number."""
        done = 0
        for change in self._up_to_now():
            if self._concerns_foreign(change):
                self._do(change, renamed.with_options(codec_options=CODEC))
                done += 1
        return done

    def close(self) -> None:
        """Let go of the server's cursor."""
        self._stream.close()

    def _up_to_now(self) -> Iterator[Document]:
        now: Timestamp = self._live.database.client.admin.command("ping")["operationTime"]
        while self._stream.alive:
            try:
                change = self._stream.try_next()
            except OperationFailure as error:
                raise _lost(error) from None
            if change is None:
                if time_of(self._stream.resume_token) >= now:
                    return
                continue
            if change["operationType"] in ("rename", "drop", "invalidate"):
                return
            yield dict(change)
            if change["clusterTime"] > now:
                return

    def _concerns_foreign(self, change: Mapping[str, Any]) -> bool:
        if change["operationType"] not in _WRITES:
            return False
        if change["operationType"] != "update":
            # The `_id` of a new document is foreign, too.
            return True
        what = change["updateDescription"]
        paths = [*what["updatedFields"], *what["removedFields"], *(item["field"] for item in what["truncatedArrays"])]
        return any(path.partition(".")[0] not in self._owned for path in paths)

    def _do(self, change: Mapping[str, Any], collection: Collection[Document]) -> None:
        if change["operationType"] != "update":
            document = change["fullDocument"]
            there = collection.find_one({self._key: document.get(self._key)})
            update = there and update_of(self._foreign(document), self._foreign(there))
            if there and update:
                collection.update_one({"_id": there["_id"]}, update)
            return
        this = {"_id": change["documentKey"]["_id"]}
        what = change["updateDescription"]
        shortened = {
            item["field"]: item["newSize"] for item in what["truncatedArrays"] if self._is_foreign(item["field"])
        }
        set_, unset = (
            {path: value for path, value in fields.items() if self._is_foreign(path)}
            for fields in (what["updatedFields"], dict.fromkeys(what["removedFields"], ""))
        )
        steps: list[Document] = [{"$push": {path: {"$each": [], "$slice": size}}} for path, size in shortened.items()]
        steps += [{operator: fields} for operator, fields in (("$set", set_), ("$unset", unset)) if fields]
        if steps:
            collection.bulk_write([UpdateOne(this, step) for step in steps])

    def _is_foreign(self, path: str) -> bool:
        return path.partition(".")[0] not in self._owned

    def _foreign(self, document: Document) -> Document:
        return {name: value for name, value in document.items() if name not in self._owned}


def _lost(error: OperationFailure) -> Exception:
    if error.code in HISTORY_LOST:
        return HistoryLost("the server's history of changes does not reach back so far")
    return error
