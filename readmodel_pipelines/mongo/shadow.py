"""A shadow: the new collection that a rebuild builds beside the live one, until it takes its place.

It is made with the options of the live one, filled by bulk inserts, indexed after that as the live one is, and then
renamed over it in one step: readers see the old documents or the new ones, never none. Documents keep their `_id` and
the fields that their projection does not own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bson import ObjectId
from bson.errors import InvalidDocument
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, OperationFailure

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.events.values import is_plain
from readmodel_pipelines.mongo.indexes import of_read_model
from readmodel_pipelines.mongo.read_model import WithForeign, update_of
from readmodel_pipelines.mongo.scan import CODEC, Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.run import Lane
from readmodel_pipelines.reconcile.sinks import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.summary import Summary

_DUPLICATE_KEY = 11000
_NOT_THERE = 26


class ShadowFailed(ReadModelError):
    """The shadow cannot be made as the live collection is; that one is as it was."""

    code = "shadow_failed"


def shadow_name(live: str, rebuild_id: str) -> str:
    """The collection that a rebuild builds."""
    return f"{live}__rebuild_{rebuild_id}"


def copy_name(live: str, rebuild_id: str) -> str:
    """The copy of what the read model was before."""
    return f"{live}__before_{rebuild_id}"


def create_like(database: Database[Document], live: str, name: str) -> None:
    """Make an empty collection with the options and validators of the live one, if it is not there.

    Raises:
        ShadowFailed: the live one is of a kind that cannot be replaced.
    """
    (info,) = list(database.list_collections(filter={"name": live})) or [{"type": "collection", "options": {}}]
    options = info["options"]
    if info["type"] != "collection" or options.get("capped") or "clusteredIndex" in options:
        raise ShadowFailed(
            f"{live} is a view, a capped, a clustered or a time series collection, and no shadow can take its place.",
            hint="Rebuild it with the strategy in_place.",
        )
    if not database.list_collection_names(filter={"name": name}):
        database.command("create", name, **options)


def index_like(database: Database[Document], live: str, name: str, projection: Projection) -> None:
    """Give a collection the indexes of the live one, and in any case those that a read model has.

    Raises:
        ShadowFailed: two documents want the same unique key.
    """
    wanted: list[Document] = [dict(index) for index in database[live].list_indexes() if index["name"] != "_id_"]
    keys = [list(index["key"].items()) for index in wanted]
    for own in of_read_model(projection):
        if list(own.key) not in keys:
            ((field, way),) = own.key
            wanted.append({"key": {field: way}, "name": f"{field}_{way}", "unique": True})
    for index in wanted:
        for option in ("v", "ns"):
            index.pop(option, None)
    try:
        database.command("createIndexes", name, indexes=wanted)
    except OperationFailure as error:
        if error.code != _DUPLICATE_KEY:
            raise
        raise ShadowFailed(
            f"The new {live} cannot have its unique index: {str((error.details or {}).get('errmsg', error))[:300]}",
            hint="A document of a malformed stream holds it: mend its events, or rebuild with the strategy in_place.",
        ) from None


class ShadowSink:
    """Writes every document that ought to be there into a shadow; drops what the events do not account for.

    A malformed stream keeps the document that it has. Written again after a crash, a document meets its own `_id` and
    stays as it was first written: what happened since then is caught up with.
    """

    def __init__(
        self,
        shadow: Collection[Document],
        live: str,
        lane: Lane,
        summary: Summary,
        rebuild_id: str,
        still_ours: Callable[[], None],
    ) -> None:
        self._shadow = shadow.with_options(codec_options=CODEC)
        self._live = shadow.database[live]
        self._counts = lane.counts
        self._read_model = lane.projection.read_model
        self._summary = summary
        self._rebuild_id = rebuild_id
        self._still_ours = still_ours
        self._batch: list[tuple[Any, Document, Document | None]] = []
        self._bytes = 0
        self._carried: list[Any] = []
        lane.keep = self.keep

    def keep(self, expected: Document, actual: Document) -> None:
        """A document that is right as it is."""
        self._add(None, expected, actual, 0)

    def take(self, verdict: Verdict) -> None:
        """One that is not."""
        match verdict.outcome:
            case Outcome.MALFORMED:
                if verdict.actual is not None:
                    self.carry(verdict.actual)
            case Outcome.MISSING | Outcome.DIFFERENT:
                if verdict.actual is None:
                    self._counts.inserted += 1
                else:
                    self._counts.replaced += 1
                self._add(verdict.aggregate_id, verdict.expected or {}, verdict.actual, verdict.size)
            case _:
                self._counts.deleted += 1

    def carry(self, actual: Document) -> None:
        """A document that stays as it is, to the byte."""
        self._carried.append(actual["_id"])
        if len(self._carried) >= BATCH:
            self.flush()

    def _add(self, key: Any, expected: Document, actual: Document | None, size: int) -> None:
        if actual is None:
            document = {"_id": self._id_of(key), **expected}
        else:
            document = {"_id": actual["_id"], **expected}
            if isinstance(actual, WithForeign):
                document |= actual.foreign
        self._batch.append((key, document, actual))
        self._bytes += size
        if len(self._batch) >= BATCH or self._bytes >= BATCH_BYTES:
            self.flush()

    def _id_of(self, key: Any) -> ObjectId:
        """The same each time, so that a batch that is repeated makes no second document."""
        return ObjectId(hashlib.sha256(f"{self._rebuild_id}/{key}".encode("utf-8", "surrogateescape")).digest()[:12])

    def flush(self) -> None:
        """Write the batch as it is."""
        batch, self._batch, self._bytes = self._batch, [], 0
        carried, self._carried = self._carried, []
        if batch or carried:
            self._still_ours()
        if carried:
            self._copy(carried)
        if not batch:
            return
        try:
            self._insert(batch)
        except (InvalidDocument, UnicodeEncodeError):
            for item in batch:
                self._insert_one(item)

    def _insert(self, batch: Sequence[tuple[Any, Document, Document | None]]) -> None:
        try:
            self._shadow.insert_many([document for _, document, _ in batch], ordered=False)
        except BulkWriteError as error:
            for item in error.details["writeErrors"]:
                if item["code"] == _DUPLICATE_KEY and "_id" in item.get("keyPattern", {}):
                    continue
                key, _, actual = batch[item["index"]]
                self._uncount(actual)
                self._summary.fail(self._read_model, key, Why.WRITE_REFUSED, str(item.get("errmsg"))[:300])

    def _insert_one(self, item: tuple[Any, Document, Document | None]) -> None:
        """One that the driver may not be able to give back as it was: its foreign fields never leave the server."""
        _, document, actual = item
        try:
            self._insert([item])
        except (InvalidDocument, UnicodeEncodeError):
            self._copy([document["_id"]])
            foreign = actual.foreign if isinstance(actual, WithForeign) else {}
            expected = {name: value for name, value in document.items() if name not in foreign and name != "_id"}
            if actual is not None and (update := update_of(expected, actual)):
                self._shadow.update_one({"_id": document["_id"]}, update)

    def _uncount(self, actual: Document | None) -> None:
        if actual is None:
            self._counts.inserted -= 1
        else:
            self._counts.replaced -= 1

    def _copy(self, ids: Sequence[Any]) -> None:
        copy_by_id(self._live, self._shadow, ids)


def copy_by_id(live: Collection[Document], shadow: Collection[Document], ids: Sequence[Any]) -> None:
    """Put these documents into a shadow as they are, to the byte; they never leave the server."""
    into = {"into": shadow.name, "on": "_id", "whenMatched": "replace", "whenNotMatched": "insert"}
    live.aggregate([{"$match": {"_id": {"$in": list(ids)}}}, {"$merge": into}], bypassDocumentValidation=True)


def sync_foreign(
    live: Collection[Document], shadow: Collection[Document], projection: Projection, where: Document
) -> None:
    """Bring `_id` and foreign fields of these documents in the shadow in line with the live ones, as they are now."""
    owned, key = frozenset(projection.owned), projection.key
    live, shadow = live.with_options(codec_options=CODEC), shadow.with_options(codec_options=CODEC)
    cursor = live.find(where, batch_size=BATCH)
    while batch := cursor.to_list(BATCH):
        wanted = {item[key]: item for item in batch if is_plain(item.get(key))}
        there = shadow.find({key: {"$in": list(wanted)}})
        updates: list[Any] = []
        for document in there:
            model = wanted[document[key]]
            if model["_id"] != document["_id"]:
                # The application inserted its document after ours was made.
                foreign = _foreign(model, owned)
                ours = {name: value for name, value in document.items() if name in owned}
                shadow.delete_one({"_id": document["_id"]})
                shadow.insert_one({"_id": model["_id"], **ours, **foreign})
            elif update := update_of(_foreign(model, owned), _foreign(document, owned)):
                updates.append(UpdateOne({"_id": document["_id"]}, update))
        if updates:
            shadow.bulk_write(updates, ordered=False)


def _foreign(document: Document, owned: frozenset[str]) -> Document:
    return {name: value for name, value in document.items() if name not in owned and name != "_id"}


def copy_on_server(database: Database[Document], name: str, copy: str) -> None:
    """Copy a collection; the documents never leave the server."""
    database[name].aggregate([{"$out": copy}])


def swap(database: Database[Document], name: str, live: str) -> None:
    """Put a collection in the place of the live one, in one step."""
    space = database.name
    database.client.admin.command(
        "renameCollection", f"{space}.{name}", to=f"{space}.{live}", dropTarget=True, writeConcern={"w": "majority"}
    )


def is_there(database: Database[Document], name: str) -> bool:
    """Whether there is such a collection."""
    return bool(database.list_collection_names(filter={"name": name}))


def drop(database: Database[Document], names: Iterable[str]) -> None:
    """Drop them, if they are there."""
    for name in names:
        database.drop_collection(name)
