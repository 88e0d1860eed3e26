"""A shadow: the new collection that a rebuild builds beside the live one and then renames over it.

It is created with the options of the live one, filled by copies on the server and bulk writes, and then indexed like
the live one. One rename replaces the live collection: readers see the old documents or the new ones, never none.
Documents keep their `_id` and the fields that their projection does not own. Each command that writes to it contains
its UUID.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.batched import batched
from readmodel_pipelines.cutover.built import Holder
from readmodel_pipelines.cutover.definition import Like, ShadowFailed, create_like
from readmodel_pipelines.cutover.foreign import merged
from readmodel_pipelines.cutover.transaction import in_transaction
from readmodel_pipelines.events.exact import Repeated, has_repeated, sendable, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import (
    CODEC,
    DUPLICATE_KEY,
    UNFIT,
    BulkWriteError,
    ClientSession,
    Collection,
    Database,
    Document,
    OperationFailure,
)
from readmodel_pipelines.mongo.failures import codes_of, raise_servers_own
from readmodel_pipelines.mongo.fenced import Fence, FencedCollection
from readmodel_pipelines.mongo.scan import (
    Query,
    drain,
    found,
    index_on,
    keys_within,
    odd_documents,
    string_keys,
    with_id,
    with_ids,
)
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.compare import same_value
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import BATCH, BATCH_BYTES
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.side_by_side import side_by_side

_INSERT = {"whenMatched": "fail", "whenNotMatched": "insert"}
_REPLACE = {"whenMatched": "replace", "whenNotMatched": "insert"}
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


@dataclass(slots=True)
class _Batch:
    """What is written at once: documents to copy, those of them that are right (`_id`, expected), and changes."""

    copies: list[Document] = field(default_factory=list)
    right: list[tuple[Any, Document]] = field(default_factory=list)
    repeated: list[Document] = field(default_factory=list)
    writes: list[tuple[Any, InsertOne[Document] | UpdateOne]] = field(default_factory=list)
    bytes: int = 0
    left_out: int = 0


@dataclass
class ShadowSink:
    """Writes every expected document to a shadow; leaves out documents without a basis in the events.

    An existing document is copied on the server and then changed as in place. So foreign fields that the driver cannot
    represent survive, and a validator checks only the changes. A malformed stream keeps its document. A batch may be
    written again after a crash. Batches are written `behind`, perhaps in another thread. If the shadow is `shared`,
    other runs write to it, too, and one of them may sleep meanwhile.
    """

    shadow: FencedCollection
    live: Collection
    lane: Lane
    summary: Summary
    rebuild_id: str
    still_ours: Callable[[], None]
    behind: Callable[[Callable[[], object]], object]
    shared: bool = False
    _batch: "_Batch" = field(init=False)

    def __post_init__(self) -> None:
        self._batch = _Batch()
        self.lane.keep = self.keep
        self.lane.stays = self.carry

    def keep(self, expected: Document, actual: Document) -> None:
        """Take a document that is right."""
        self._batch.right.append((actual["_id"], expected))
        self.carry(actual)

    def accept(self, verdict: Verdict) -> None:
        """Take a document that differs."""
        expected, actual, batch = verdict.expected or {}, verdict.actual, self._batch
        match verdict.outcome:
            case Outcome.MALFORMED:
                if actual is not None:
                    self.carry(actual)
            case Outcome.MISSING | Outcome.DIFFERENT:
                if actual is None:
                    document = {"_id": self._id_of(verdict.aggregate_id), **expected}
                    batch.writes.append((verdict.aggregate_id, InsertOne(document)))
                else:
                    batch.writes.append((verdict.aggregate_id, self._mend(expected, actual)))
                    is_repeated = any(isinstance(value, Repeated) for value in actual.values())
                    (batch.repeated if is_repeated else batch.copies).append(actual)
                batch.bytes += verdict.size
                self._flush_if_full()
            case _:
                batch.left_out += 1

    def carry(self, actual: Document) -> None:
        """Copy a document byte by byte."""
        self._batch.copies.append(actual)
        self._flush_if_full()

    def _mend(self, expected: Document, actual: Document) -> UpdateOne:
        # The whole document, as an upsert, because the copied version may be newer than the compared one.
        unset = {name: "" for name in self.lane.projection.owned if name not in expected}
        return UpdateOne(
            with_id(actual["_id"]), {"$set": expected, **({"$unset": unset} if unset else {})}, upsert=True
        )

    def _id_of(self, key: Any) -> ObjectId:
        """The same `_id` each time, so that a repeated batch makes no second document."""
        return ObjectId(hashlib.sha256(f"{self.rebuild_id}/{key}".encode("utf-8", "surrogateescape")).digest()[:12])

    def _flush_if_full(self) -> None:
        batch = self._batch
        if len(batch.copies) >= BATCH or len(batch.writes) >= BATCH or batch.bytes >= BATCH_BYTES:
            self.behind(self.take())

    def take(self) -> Callable[[], None]:
        """Begin a new batch; returns what writes the old one."""
        batch, self._batch = self._batch, _Batch()
        return partial(self._flush, batch)

    def _flush(self, batch: "_Batch") -> None:
        copies, right, writes, repeated = batch.copies, batch.right, batch.writes, batch.repeated
        self.lane.counts.deleted += batch.left_out
        if copies or repeated or writes:
            self.still_ours()
        if copies or repeated:
            self._copy(copies, repeated)
        if right:
            # A live document may have been deleted, or deleted and inserted again, since it was compared.
            ids = [document["_id"] for document in copies]
            if self.shadow.count_documents(with_ids(ids)) < len(ids):
                inserts = [UpdateOne(with_id(of), {"$setOnInsert": made}, upsert=True) for of, made in right]
                self.shadow.bulk_write(inserts, ordered=False, bypass_document_validation=True)
        if writes:
            self._write(writes)

    def _copy(self, copies: Sequence[Document], repeated: Sequence[Document]) -> None:
        documents = [*copies, *repeated]
        these = with_ids([document["_id"] for document in documents])
        if self.shared:
            # Perhaps written by a run that slept: when there was no live document yet, or from the live one.
            earlier = [self._id_of(document.get(self.lane.projection.key)) for document in documents]
            self.shadow.bulk_write([DeleteMany({"_id": {"$in": earlier}}), DeleteMany(these)])
        reached(Moment.SHADOW_COPY)
        try:
            # A third of the server's work of a replacement.
            self._merge(copies, repeated, _INSERT)
        except DuplicateKeyError:
            # A reply was lost, or a document moved to another range. Deleted first, because `$merge` may not replace a
            # document if one of its names begins with a dollar.
            self.still_ours()
            delete_from(self.shadow, these)
            self._merge(copies, repeated, _REPLACE)

    def _merge(self, copies: Sequence[Document], repeated: Sequence[Document], how: Mapping[str, str]) -> None:
        copy_by_id(self.live, self.shadow, [document["_id"] for document in copies], how)
        for document in repeated:
            # Fields set afterwards would go only to the first of the duplicates.
            names = [name for name, value in document.items() if isinstance(value, Repeated)]
            _merge(self.live, self.shadow, [document["_id"]], how, without=names)

    def _write(self, writes: Sequence[tuple[Any, InsertOne[Document] | UpdateOne]]) -> None:
        inserts = sum(isinstance(operation, InsertOne) for _, operation in writes)
        self.lane.counts.inserted += inserts
        self.lane.counts.replaced += len(writes) - inserts
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


def copy_by_id(
    live: Collection, shadow: FencedCollection, ids: Sequence[Any], how: Mapping[str, str] = _REPLACE
) -> None:
    """Copy these documents into a shadow byte by byte."""
    _merge(live, shadow, ids, how)
    if None in ids:
        _copy_nameless(live, shadow)


def _copy_nameless(live: Collection, shadow: FencedCollection) -> None:
    """Copy the document whose `_id` is null, which `$merge` refuses."""
    if (nameless := live.with_options(codec_options=_RAW).find_one({"_id": None})) is not None:
        shadow.bulk_write([ReplaceOne({"_id": None}, nameless, upsert=True)], bypass_document_validation=True)


def drop_unsaved(shadow: FencedCollection, key: str, rests: Sequence[IdRange]) -> None:
    """Delete the documents that a killed run wrote without saving its progress.

    Otherwise a document that the application deletes or inserts again meanwhile would exist twice.
    """
    if rests:
        delete_from(shadow, {"$or": [_rest(key, rest) for rest in rests]})


def _rest(key: str, rest: IdRange) -> Mapping[str, Any]:
    if rest.lower is not None:
        return keys_within(key, rest)
    # The first batch also has the keys that are no strings.
    return {} if rest.upper is None else {"$nor": [keys_within(key, IdRange(rest.upper))]}


def delete_from(shadow: FencedCollection, where: Mapping[str, Any]) -> None:
    """Delete documents."""
    shadow.bulk_write([DeleteMany(sendable(where))])


def _merge(
    live: Collection, shadow: FencedCollection, ids: Sequence[Any], how: Mapping[str, Any], without: Sequence[str] = ()
) -> None:
    # They stay on the server, which is the fastest way; it does not work for an `_id` of null.
    these = with_ids([item for item in ids if item is not None])
    unset: list[Document] = [{"$unset": [*without]}] if without else []
    shadow.take_from(live, [{"$match": these}, *unset], {"$merge": {"into": shadow.name, "on": "_id", **how}})


def sync_all_foreign(live: Collection, shadow: FencedCollection, projection: Projection) -> None:
    """Like `sync_foreign`, for all documents; read in order of their keys, so that only the position is remembered."""
    key, fields = projection.key, {projection.key: 1}
    index = index_on(live, key)
    in_order = drain(live, Query(keys_within(key, EVERYTHING), fields, ((key, 1),), index))
    others = odd_documents(live, {}, fields, [key], index, symbols=False)
    _sync(live, shadow, projection, chain(chain.from_iterable(in_order), others))


def sync_foreign(live: Collection, shadow: FencedCollection, projection: Projection, where: Mapping[str, Any]) -> None:
    """Copy `_id` and foreign fields of these live documents into the shadow, as they are now.

    Raises:
        ShadowFailed: they exceed a limit.
    """
    _sync(live, shadow, projection, found(live, where, {projection.key: 1}, batch_size=BATCH))


def _sync(live: Collection, shadow: FencedCollection, projection: Projection, documents: Iterable[Document]) -> None:
    key, fields = projection.key, {projection.key: 1}
    for batch in batched(documents, BATCH):
        wanted = {item[key]: item["_id"] for item in batch if is_plain(item.get(key))}
        for document in found(shadow, string_keys(key, list(wanted)), fields):
            if not same_value(wanted[document[key]], document["_id"]):
                # The application inserted its document after ours was made.
                _give_id(shadow, projection, document["_id"], wanted[document[key]])
        ids = [item["_id"] for item in batch]
        twice = [item["_id"] for each in (live, shadow) for item in found(each, with_ids(ids)) if has_repeated(item)]
        if twice:
            _merge_here(live, shadow, projection, twice)
        foreign = [{"$replaceWith": merged("$$ROOT", ["_id", *projection.owned], "$$new")}]
        ids = [item for item in ids if not any(same_value(item, other) for other in twice)]
        try:
            try:
                _merge(live, shadow, ids, {"whenMatched": foreign, "whenNotMatched": "discard"})
            except DuplicateKeyError:
                # Documents swapped unique values; one by one, each would block the next.
                _merge_here(live, shadow, projection, ids)
        except OperationFailure as error:
            if not {error.code, *codes_of(error)} & {*UNFIT, DUPLICATE_KEY}:
                raise
            raise ShadowFailed(
                f"Foreign fields of {live.name} do not fit into the rebuilt documents: "
                f"{str((error.details or {}).get('errmsg', error))[:300]}",
                hint="Shorten them, or rebuild with --strategy in_place, which names the document.",
            ) from None


def _merge_here(live: Collection, shadow: FencedCollection, projection: Projection, ids: Sequence[Any]) -> None:
    """Do the same as `merged`, to all of these documents at once, in this process.

    This also works for documents in which a field occurs twice: a pipeline that changes such a field crashes the server
    (6.0.5).
    """
    kept = {"_id", *projection.owned}
    theirs = {written({"_id": item["_id"]}): item for item in found(live, with_ids(ids))}
    deletes, inserts = [], []
    for ours in found(shadow, with_ids(ids)):
        if (their := theirs.get(written({"_id": ours["_id"]}))) is not None:
            own = {name: value for name, value in ours.items() if name in kept}
            foreign = {name: value for name, value in their.items() if name not in kept}
            deletes.append(DeleteOne(with_id(ours["_id"])))
            inserts.append(InsertOne(sendable(own | foreign)))

    def replace(session: ClientSession) -> None:
        shadow.bulk_write([*deletes, *inserts], bypass_document_validation=True, session=session)

    if inserts:
        in_transaction(shadow, replace)


def _give_id(shadow: FencedCollection, projection: Projection, old: Any, new: Any) -> None:
    """Give a document another `_id` without a moment in which it does not exist; its foreign fields are merged
    afterwards.
    """
    owned = {"_id": 0, **dict.fromkeys(projection.owned, 1)}
    read = shadow.with_options(codec_options=CODEC)

    def replace(session: ClientSession) -> None:
        ours = read.find_one(with_id(old), owned, session=session)
        if ours is not None:
            named = sendable({"_id": new, **ours})
            writes = [DeleteOne(with_id(old)), InsertOne(named)]
            shadow.bulk_write(writes, bypass_document_validation=True, session=session)

    in_transaction(shadow, replace)


def copy_on_server(database: Database, wanted: Sequence[Like], held: Holder) -> list[Fence]:
    """Copy live collections with their options and validators; the documents stay on the server.

    Raises:
        LeaseLost: another process took over.
    """
    made = create_like(database, wanted, held)
    side_by_side(*(partial(_copy_all, database, each.live, copy) for each, copy in zip(wanted, made, strict=True)))
    return made


def _copy_all(database: Database, live: str, made: Fence) -> None:
    of, copy = Collection(database, live), FencedCollection(database, made)
    # `$out` ends with a rename that waits for every transaction in the database, and blocks all writers meanwhile. The
    # natural order reads the documents as they lie on the disk.
    named = {"_id": {"$not": {"$type": ["null", "undefined"]}}}
    try:
        copy.take_from(of, [{"$match": named}], {"$merge": {"into": made.name, **_INSERT}})
    except DuplicateKeyError:
        # Some were copied before, and the reply was lost; or one was deleted and inserted again behind the position.
        copy.take_from(of, [{"$match": named}], {"$merge": {"into": made.name, **_REPLACE}})
    _copy_nameless(of, copy)
