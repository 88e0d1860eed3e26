"""A shadow: the new collection that a rebuild builds beside the live one, until it takes its place.

It is made with the options of the live one, filled by copies on the server and bulk writes, indexed after that as the
live one is, and then renamed over it in one step: readers see the old documents or the new ones, never none. Documents
keep their `_id` and the fields that their projection does not own. Its name is fixed, because MongoDB grants rights by
exact names: whoever begins a rebuild, and holds the lease, drops what an earlier one left there.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, UpdateOne

from readmodel_pipelines.batched import batched
from readmodel_pipelines.cutover.foreign import merged
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.events.exact import Repeated, has_repeated, sendable
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.collection import BY_BYTES
from readmodel_pipelines.mongo.driver import (
    CODEC,
    DUPLICATE_KEY,
    INVALID_NAMESPACE,
    BulkWriteError,
    ClientSession,
    Collection,
    Database,
    Document,
    OperationFailure,
)
from readmodel_pipelines.mongo.failures import raise_servers_own
from readmodel_pipelines.mongo.kinds import expiry_of
from readmodel_pipelines.mongo.scan import found, string_keys, with_id, with_ids
from readmodel_pipelines.mongo.wanted_indexes import of_read_model
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.compare import same_value
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.summary import Summary

_REPLACE = {"whenMatched": "replace", "whenNotMatched": "insert"}
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


class ShadowFailed(ReadModelError):
    """The shadow cannot be made as the live collection is; that one is as it was."""


def create_like(database: Database, live: str, name: str) -> None:
    """Make an empty collection with the options and validators of the live one, if it is not there.

    Raises:
        ShadowFailed: the live one is of a kind that cannot be replaced.
    """
    (info,) = list(database.list_collections(filter={"name": live})) or [{"type": "collection", "options": {}}]
    options = info["options"]
    # A shadow is not sharded, and the read model would not be any more.
    if "clusteredIndex" in options or database.command("collStats", live).get("sharded"):
        raise ShadowFailed(
            f"{live} is a clustered or a sharded collection, and no shadow can take its place.",
            hint="Rebuild it with the strategy in_place.",
        )
    if index := expiry_of(Collection(database, live)):
        raise ShadowFailed(
            f"MongoDB deletes documents of {live} by its index {index}, and a shadow could not be verified meanwhile.",
            hint="Rebuild it with the strategy in_place, or drop that index first.",
        )
    if database.list_collection_names(filter={"name": name}):
        return
    try:
        database.command("create", name, **options)
    except OperationFailure as error:
        if error.code != INVALID_NAMESPACE:
            raise
        raise ShadowFailed(
            f"No shadow of {live} can be made: {name} is too long a name for MongoDB.",
            hint="Rebuild it with the strategy in_place.",
        ) from None


def index_like(database: Database, live: str, name: str, projection: Projection) -> None:
    """Give a collection the indexes of the live one, and in any case those that a read model has.

    Raises:
        ShadowFailed: two documents want the same unique key.
    """
    wanted: list[Document] = [dict(index) for index in database[live].list_indexes() if index["name"] != "_id_"]
    by_bytes = [list(index["key"].items()) for index in wanted if "collation" not in index]
    names = {index["name"] for index in wanted}
    for own in of_read_model(projection):
        if list(own.key) not in by_bytes:
            called = own.name_beside(names)
            wanted.append({"key": dict(own.key), "name": called, "unique": True})
    for index in wanted:
        for option in ("v", "ns"):
            index.pop(option, None)
        # One without a collation says so, or it gets the collection's own.
        index.setdefault("collation", BY_BYTES)
    try:
        database.command("createIndexes", name, indexes=wanted)
    except OperationFailure as error:
        if error.code != DUPLICATE_KEY:
            raise
        raise ShadowFailed(
            f"The new {live} cannot have its unique index: {str((error.details or {}).get('errmsg', error))[:300]}",
            hint="A document of a malformed stream holds it: mend its events, or rebuild with the strategy in_place.",
        ) from None


@dataclass
class ShadowSink:
    """Makes every document that ought to be there in a shadow; drops what the events do not account for.

    What is there already is copied on the server, and mended there as it would be in place: the driver cannot give
    back every text and type of a foreign field, and the validator has its say on what changes alone. A malformed
    stream keeps the document that it has. A batch may be written again after a crash.
    """

    shadow: Collection
    live: Collection
    lane: Lane
    summary: Summary
    rebuild_id: str
    still_ours: Callable[[], None]
    _copies: list[Document] = field(default_factory=list)
    _right: list[UpdateOne] = field(default_factory=list)
    _repeated: list[Document] = field(default_factory=list)
    _writes: list[tuple[Any, InsertOne[Document] | UpdateOne]] = field(default_factory=list)
    _bytes: int = 0

    def __post_init__(self) -> None:
        self.lane.keep = self.keep
        self.lane.stays = self.carry

    def keep(self, expected: Document, actual: Document) -> None:
        """A document that is right as it is."""
        self._right.append(UpdateOne(with_id(actual["_id"]), {"$setOnInsert": expected}, upsert=True))
        self.carry(actual)

    def accept(self, verdict: Verdict) -> None:
        """One that is not."""
        expected, actual = verdict.expected or {}, verdict.actual
        match verdict.outcome:
            case Outcome.MALFORMED:
                if actual is not None:
                    self.carry(actual)
            case Outcome.MISSING | Outcome.DIFFERENT:
                if actual is None:
                    self.lane.counts.inserted += 1
                    document = {"_id": self._id_of(verdict.aggregate_id), **expected}
                    self._writes.append((verdict.aggregate_id, InsertOne(document)))
                else:
                    self.lane.counts.replaced += 1
                    self._writes.append((verdict.aggregate_id, self._mend(expected, actual)))
                    is_repeated = any(isinstance(value, Repeated) for value in actual.values())
                    (self._repeated if is_repeated else self._copies).append(actual)
                self._bytes += verdict.size
                self._flush_if_full()
            case _:
                self.lane.counts.deleted += 1

    def carry(self, actual: Document) -> None:
        """A document that stays as it is, to the byte."""
        self._copies.append(actual)
        self._flush_if_full()

    def _mend(self, expected: Document, actual: Document) -> UpdateOne:
        # All of it, and an upsert: what is copied may not be what was compared any more.
        unset = {name: "" for name in self.lane.projection.owned if name not in expected}
        return UpdateOne(
            with_id(actual["_id"]), {"$set": expected, **({"$unset": unset} if unset else {})}, upsert=True
        )

    def _id_of(self, key: Any) -> ObjectId:
        """The same each time, so that a batch that is repeated makes no second document."""
        return ObjectId(hashlib.sha256(f"{self.rebuild_id}/{key}".encode("utf-8", "surrogateescape")).digest()[:12])

    def _flush_if_full(self) -> None:
        if len(self._copies) >= BATCH or len(self._writes) >= BATCH or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the batch as it is."""
        copies, right, writes, repeated = self._copies, self._right, self._writes, self._repeated
        self._copies, self._right, self._writes, self._repeated, self._bytes = [], [], [], [], 0
        if copies or repeated or writes:
            self.still_ours()
        if copies or repeated:
            self._copy(copies, repeated)
        if right:
            # Somebody may have deleted a live document, perhaps only to insert it anew, since it was compared.
            ids = [document["_id"] for document in copies]
            if self.shadow.count_documents(with_ids(ids)) < len(ids):
                self.shadow.bulk_write(right, ordered=False, bypass_document_validation=True)
        if writes:
            self._write(writes)

    def _copy(self, copies: Sequence[Document], repeated: Sequence[Document]) -> None:
        documents = [*copies, *repeated]
        # Made before a crash: when there was no live one yet, or from the live one, which `$merge` may not replace when
        # it has a name that begins with a dollar.
        earlier = [self._id_of(document.get(self.lane.projection.key)) for document in documents]
        self.shadow.delete_many({"_id": {"$in": earlier}})
        self.shadow.delete_many(with_ids([document["_id"] for document in documents]))
        reached(Moment.SHADOW_COPY)
        copy_by_id(self.live, self.shadow, [document["_id"] for document in copies])
        for document in repeated:
            # What is set afterwards would be the first of them alone.
            names = [name for name, value in document.items() if isinstance(value, Repeated)]
            _merge(self.live, self.shadow, [document["_id"]], _REPLACE, without=names)

    def _write(self, writes: Sequence[tuple[Any, InsertOne[Document] | UpdateOne]]) -> None:
        try:
            self.shadow.bulk_write([operation for _, operation in writes], ordered=False)
        except BulkWriteError as error:
            raise_servers_own(error.details["writeErrors"], error.details["writeConcernErrors"])
            for item in error.details["writeErrors"]:
                if item["code"] == DUPLICATE_KEY and "_id" in item.get("keyPattern", {}):
                    continue
                key, operation = writes[item["index"]]
                if isinstance(operation, InsertOne):
                    self.lane.counts.inserted -= 1
                else:
                    self.lane.counts.replaced -= 1
                why = str(item.get("errmsg"))[:300]
                self.summary.fail(self.lane.projection.read_model, key, Why.WRITE_REFUSED, why)


def copy_by_id(live: Collection, shadow: Collection, ids: Sequence[Any]) -> None:
    """Put these documents into a shadow as they are, to the byte."""
    _merge(live, shadow, ids, _REPLACE)
    if None in ids and (nameless := live.with_options(codec_options=_RAW).find_one({"_id": None})) is not None:
        shadow.with_options(codec_options=_RAW).replace_one(
            {"_id": None}, nameless, upsert=True, bypass_document_validation=True
        )


def _merge(
    live: Collection, shadow: Collection, ids: Sequence[Any], how: Document, without: Sequence[str] = ()
) -> None:
    # They never leave the server, which is the quickest way; it knows none for an `_id` of null.
    merge = {"into": shadow.name, "on": "_id", **how}
    these = with_ids([item for item in ids if item is not None])
    unset: list[Document] = [{"$unset": [*without]}] if without else []
    pipeline: list[Mapping[str, Any]] = [{"$match": these}, *unset, {"$merge": merge}]
    # By the collation of both of them, which their index on `_id` has: `$merge` asks for an index that has its own.
    live.aggregate(pipeline, bypassDocumentValidation=True, collation=None)


def sync_foreign(live: Collection, shadow: Collection, projection: Projection, where: Mapping[str, Any]) -> None:
    """Bring `_id` and foreign fields of these documents in the shadow in line with the live ones, as they are now."""
    key, fields = projection.key, {projection.key: 1}
    for batch in batched(found(live, where, fields, batch_size=BATCH), BATCH):
        wanted = {item[key]: item["_id"] for item in batch if is_plain(item.get(key))}
        for document in found(shadow, string_keys(key, list(wanted)), fields):
            if not same_value(wanted[document[key]], document["_id"]):
                # The application inserted its document after ours was made.
                _give_id(shadow, projection, document["_id"], wanted[document[key]])
        ids = [item["_id"] for item in batch]
        twice = [item["_id"] for each in (live, shadow) for item in found(each, with_ids(ids)) if has_repeated(item)]
        for document_id in twice:
            _merge_here(live, shadow, projection, document_id)
        foreign = [{"$replaceWith": merged("$$ROOT", ["_id", *projection.owned], "$$new")}]
        ids = [item for item in ids if not any(same_value(item, other) for other in twice)]
        _merge(live, shadow, ids, {"whenMatched": foreign, "whenNotMatched": "discard"})


def _merge_here(live: Collection, shadow: Collection, projection: Projection, document_id: Any) -> None:
    """What `merged` does, to a document in which a field stands twice: a pipeline that changes such a field ends the
    server (8.0.4).
    """
    this, kept = with_id(document_id), {"_id", *projection.owned}
    ours, theirs = (next(found(each, this), None) for each in (shadow, live))
    if ours is None or theirs is None:
        return
    own = {name: value for name, value in ours.items() if name in kept}
    document = sendable(own | {name: value for name, value in theirs.items() if name not in kept})

    def replace(session: ClientSession) -> None:
        shadow.delete_one(this, session=session)
        shadow.insert_one(document, bypass_document_validation=True, session=session)  # type: ignore[arg-type]

    _in_transaction(shadow, replace)


def _in_transaction(collection: Collection, do: Callable[[ClientSession], None]) -> None:
    with collection.database.client.start_session() as session:
        # Not the client's own, which come from the connection string.
        session.with_transaction(do, collection.read_concern, collection.write_concern, collection.read_preference)


def _give_id(shadow: Collection, projection: Projection, old: Any, new: Any) -> None:
    """Give a document another `_id`, so that nobody can find neither; its foreign fields are merged after that."""
    owned = {"_id": 0, **dict.fromkeys(projection.owned, 1)}

    def replace(session: ClientSession) -> None:
        ours = shadow.with_options(codec_options=CODEC).find_one_and_delete(with_id(old), owned, session=session)
        if ours is not None:
            named = sendable({"_id": new, **ours})
            shadow.insert_one(named, bypass_document_validation=True, session=session)  # type: ignore[arg-type]

    _in_transaction(shadow, replace)


def copy_on_server(database: Database, name: str, copy: str) -> None:
    """Copy a collection with its options and validators; the documents never leave the server."""
    create_like(database, name, copy)
    Collection(database, name).aggregate([{"$out": copy}], bypassDocumentValidation=True)


def swap(database: Database, name: str, live: str) -> None:
    """Put a collection in the place of the live one, in one step."""
    reached(Moment.SWAP, live=live)
    space = database.name
    database.client.admin.command(
        "renameCollection", f"{space}.{name}", to=f"{space}.{live}", dropTarget=True, writeConcern={"w": "majority"}
    )
    reached(Moment.SWAPPED, live=live)


def identity(database: Database, name: str) -> str:
    """What a collection keeps when it is renamed, and no other one has; empty when there is no such collection."""
    # Of which type it is goes by how the database decodes.
    uuids = [info["info"]["uuid"] for info in database.list_collections(filter={"name": name})]
    return "".join(uuid.hex if isinstance(uuid, UUID) else uuid.hex() for uuid in uuids)


def drop(database: Database, names: Iterable[str]) -> None:
    """Drop them, if they are there."""
    for name in names:
        database.drop_collection(name)
