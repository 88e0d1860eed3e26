"""One read model's collection: read in key order, written conditionally.

Every replace and delete requires that the document still equals the compared one. If no statement can express that (too
large, too deep, or of a type that the driver cannot write), it is compared inside a transaction.
"""

import uuid
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

from bson.errors import InvalidDocument
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, ConnectionFailure, DocumentTooLarge, OperationFailure

from readmodel_pipelines.events.exact import Repeated, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.conditional import ConditionalWrites, Write, fits_a_statement, update
from readmodel_pipelines.mongo.driver import CODEC, DUPLICATE_KEY, ClientSession, Collection, Document
from readmodel_pipelines.mongo.failures import raise_servers_own
from readmodel_pipelines.mongo.kinds import indexes_of
from readmodel_pipelines.mongo.other_indexes import UniqueIndex, claims, held, unique_indexes
from readmodel_pipelines.mongo.patience import patiently, repeats, waits
from readmodel_pipelines.mongo.scan import (
    SPARE,
    Query,
    drain,
    drain_stored,
    found,
    index_on,
    keys_within,
    odd_documents,
    sampled,
    string_keys,
    with_id,
)
from readmodel_pipelines.mongo.spooling import Spooled
from readmodel_pipelines.mongo.unique_keys import having_one_of, unique_keys
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.compare import differing_fields, same_document, same_value
from readmodel_pipelines.reconcile.outcome import Counts, Verdict, Why
from readmodel_pipelines.reconcile.ports import Written
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange
from readmodel_pipelines.reconcile.stored import Stored

_NO_TRANSACTIONS = 20
_WRITE_CONFLICT = 112


class ReadModelCollection:
    """Implements `readmodel_pipelines.reconcile.ports.ReadModel`; `spooled` documents are read from there."""

    def __init__(self, collection: Collection, projection: Projection) -> None:
        self._collection = collection.with_options(codec_options=CODEC)
        self._projection = projection
        self._key = projection.key
        self.spooled: Spooled | None = None
        self._fields = {"_id": 1, **dict.fromkeys((*projection.owned, *SPARE), 1)}

    def count(self) -> int:
        """The approximate number of documents."""
        return self._collection.estimated_document_count()

    def read(self, keys: Sequence[str]) -> Iterator[Document]:
        """Documents with one of these keys in their order, only `_id` and owned fields."""
        reached(Moment.DOCUMENTS, keys=keys)
        # The server finds a document with two keys by the first of them.
        yield from (document for document in self._found(self.query(keys)) if type(document[self._key]) is str)

    def stored_of(self, keys: Sequence[str]) -> Iterator[Stored]:
        """The same documents as `read`, not decoded yet."""
        reached(Moment.DOCUMENTS, keys=keys)
        for batch in drain_stored(self._collection, self.query(keys), self._key):
            yield from (document for document in batch if type(document.key) is str)

    def stored(self, within: IdRange = EVERYTHING) -> Iterator[Document | Stored]:
        """Like `read`, for a range; also those whose key is a symbol or occurs twice."""
        reached(Moment.DOCUMENTS, keys=None)
        if self.spooled is not None:
            yield from chain.from_iterable(self.spooled.read(within))
        else:
            yield from chain.from_iterable(drain_stored(self._collection, self.query(within=within), self._key))

    def query(self, keys: Sequence[str] | None = None, within: IdRange = EVERYTHING) -> Query:
        """The query of `read`."""
        where = keys_within(self._key, within) if keys is None else string_keys(self._key, keys)
        # Duplicates come in the same order each time: an index has one, and without it the server's sort has none.
        sort = ((self._key, 1),) if self._index else ((self._key, 1), ("_id", 1))
        return Query(where, self._fields, sort, self._index)

    @cached_property
    def _conditional(self) -> ConditionalWrites:
        return ConditionalWrites(self._projection, sharded=self._collection.database.client.is_mongos)

    @cached_property
    def _is_clustered(self) -> bool:
        """Whether the server would read all documents between the least and the greatest `_id` of a list."""
        return any("clustered" in index for index in indexes_of(self._collection) or ())

    @cached_property
    def _index(self) -> str | None:
        return index_on(self._collection, self._key)

    def _found(self, query: Query) -> Iterator[Document]:
        return chain.from_iterable(drain(self._collection, query))

    def ids(self) -> Iterator[str]:
        """Every key that is a string, in order, from the index alone; that of a duplicate comes twice."""
        query = replace(self.query(), fields={"_id": 0, self._key: 1})
        return (key for document in self._found(query) if type(key := document[self._key]) is str)

    def versions(self) -> Iterator[Document]:
        """Documents with a string or a symbol as key in its order, with only key and, if they have one, version."""
        key = self._key
        shown = {name: 1 for name in self._projection.owned if name in (key, "version")}
        query = replace(self.query(), fields={"_id": 0, key: 1, **shown})
        for batch in drain(self._collection, query):
            for document in batch:
                # The join excludes it from the comparison.
                document["_id"] = None
                yield document

    def sample(self, size: int) -> set[str]:
        """About `number` random keys."""
        return set(sampled(self._collection, self._key, string_keys(self._key), size))

    def odd_documents(self, *, symbols: bool) -> Iterator[Document]:
        """Documents whose key is not a string; symbols only if `symbols` is set; only `_id` and owned fields."""
        return odd_documents(self._collection, {}, self._fields, [self._key], self._index, symbols=symbols)

    def odd_documents_with(self, document_ids: Sequence[Any]) -> Iterator[Document]:
        """Those of `odd_documents` with these `_id`s, and those whose key is no valid UTF-8."""
        for document in found(self._collection, {"_id": {"$in": list(document_ids)}}, self._fields):
            if not is_plain(document.get(self._key)):
                yield document

    def holders(self, changes: Sequence[Verdict]) -> list[tuple[Verdict, Document, Sequence[str]]]:
        """(a change, another document that holds a unique key of the change, the fields of that index)."""
        holding: list[tuple[Verdict, Document, Sequence[str]]] = []
        wanting = [change for change in changes if change.expected is not None]
        for index in unique_indexes(self._collection) if wanting else ():
            ours = self._is_one_of_ours(index)
            held_of_it: Iterable[tuple[Verdict, Document]] = (
                self._holders_of_key(index.fields[0], wanting)
                if ours
                else held(self._collection, index, self._projection, wanting)
            )
            holding += [(change, document, index.fields) for change, document in held_of_it]
        return [item for item in holding if not _is_own(item[0], item[1])]

    def _is_one_of_ours(self, index: UniqueIndex) -> bool:
        return index.is_plain and index.fields[0] in (self._key, *self._projection.unique)

    def _holders_of_key(self, name: str, wanting: Sequence[Verdict]) -> Iterator[tuple[Verdict, Document]]:
        wanted: dict[Hashable, list[Verdict]] = defaultdict(list)
        keys: dict[Hashable, Any] = {}
        for change in wanting:
            own = unique_keys(change.expected or {}, name)
            keys |= own
            for key in own:
                wanted[key].append(change)
        for document in found(self._collection, having_one_of(name, keys.values()), self._fields):
            for key in unique_keys(document, name):
                yield from ((change, document) for change in wanted.get(key, ()))

    def claims(self, changes: Sequence[Verdict]) -> list[list[tuple[Sequence[str], bytes]]]:
        """For each change its claims on foreign unique indexes: the fields, and a digest of the values."""
        claimed: list[list[tuple[Sequence[str], bytes]]] = [[] for _ in changes]
        for index in unique_indexes(self._collection) if changes else ():
            if not self._is_one_of_ours(index):
                for place, claim in claims(self._collection, index, self._projection, changes):
                    claimed[place].append((index.fields, claim))
        return claimed

    def write(self, changes: Sequence[Verdict]) -> Written:
        """Write in no order, each change conditionally."""
        reached(Moment.WRITE, changes=changes)
        others: list[Verdict] = []
        updates: list[Verdict] = []
        too_large: list[Verdict] = []
        for change in changes:
            if not fits_a_statement(change):
                too_large.append(change)
            elif change.actual is None or change.expected is None:
                others.append(change)
            else:
                updates.append(change)
        written = self._write_batch(others) if others else Written()
        if updates:
            _add(written, self._update(updates))
        for change in too_large:
            _add(written, self.swap([change]))
        return written

    def _update(self, changes: Sequence[Verdict]) -> Written:
        """Change documents together if a verb repeats a batch whose reply was lost: the driver would not."""
        asked = repeats()
        if not waits() or self._is_clustered:
            return self._write_batch(changes)
        try:
            result = self._collection.bulk_write(self._conditional.together(changes), ordered=False)
        except BulkWriteError as error:
            raise_servers_own(error.details["writeErrors"], error.details["writeConcernErrors"])
            # It is about any of them, and some are changed.
            return self._write_batch(changes, twice=True)
        written = Written(Counts(replaced=result.modified_count))
        if lost := len(changes) - result.modified_count:
            self._look_after_lost(changes, lost, written, twice=repeats() > asked)
        return written

    def _write_batch(self, changes: Sequence[Verdict], *, twice: bool = False) -> Written:
        """Write each by a statement of its own; `twice` says that some may be written already."""
        errors: list[Any] = []
        asked = repeats()
        try:
            result = self._collection.bulk_write([self._conditional(change) for change in changes], ordered=False)
            counts: Mapping[str, Any] = result.bulk_api_result
        except BulkWriteError as error:
            counts = error.details
            errors = counts["writeErrors"]
            raise_servers_own(errors, counts["writeConcernErrors"])
        done = Counts(inserted=counts["nInserted"], replaced=counts["nModified"], deleted=counts["nRemoved"])
        written = Written(done)
        failed = {error["index"]: error for error in errors}
        self._sort_out_errors(changes, failed, written)
        tried = [change for place, change in enumerate(changes) if place not in failed and change.actual is not None]
        lost = len(tried) - done.replaced - done.deleted
        if lost:
            self._look_after_lost(tried, lost, written, twice=twice or repeats() > asked)
        return written

    def _sort_out_errors(self, changes: Sequence[Verdict], failed: dict[int, Any], written: Written) -> None:
        raced: dict[str, Verdict] = {}
        for position, error in failed.items():
            key = changes[position].aggregate_id
            if error["code"] != DUPLICATE_KEY:
                written.refused.append((key, Why.WRITE_REFUSED, str(error.get("errmsg", ""))[:300]))
            elif changes[position].actual is None and list(error.get("keyPattern", {})) == [self._key]:
                raced[key] = changes[position]
            else:
                written.conflicts[key] = _index_of(error)
        if raced:
            there = {document[self._key] for document in self.read(sorted(raced))}
            written.counts.superseded += len(there)
            written.again += [change for key, change in raced.items() if key in there]
            # Held by a document whose key is an array, or inserted and deleted again.
            written.conflicts |= {key: self._key for key in raced if key not in there}

    def _look_after_lost(self, done: Sequence[Verdict], lost: int, written: Written, *, twice: bool) -> None:
        """Find the changes that were not applied, because the bulk result only has their number.

        In a batch that was sent `twice`, finished changes are most likely our own, whose first reply was lost. A
        document that still equals the compared one was not changed by others: a filter cannot express its value (a type
        that the driver cannot write), so it is compared inside a transaction.
        """
        ids = [change.actual["_id"] for change in done if change.actual]
        stored = {
            _identity(document): document for document in found(self._collection, {"_id": {"$in": ids}}, self._fields)
        }
        counts, may_be_ours = replace(written.counts), list[Verdict]()
        for change in done:
            actual = change.actual or {}
            document = stored.get(_identity(actual))
            if _is_done(change, document):
                may_be_ours.append(change)
                continue
            if document is not None and same_value(document, actual):
                lost -= 1
                _add(written, self.swap([change]))
            else:
                written.again.append(change)
        if twice:
            # Changes counted by the last reply are among them.
            deletions = sum(change.expected is None for change in may_be_ours)
            written.counts.deleted += deletions - counts.deleted
            written.counts.replaced += len(may_be_ours) - deletions - counts.replaced
            lost -= len(may_be_ours) - counts.deleted - counts.replaced
        written.counts.superseded += lost

    def swap(self, changes: Sequence[Verdict]) -> Written:
        """Write all changes or none in a transaction, so that documents can exchange unique keys.

        Deletes come first, then every changing unique key gets a temporary value, then all get their expected values.
        Nobody else sees a step of it, and foreign fields never leave the server.
        """
        reached(Moment.TRANSACTION, changes=changes)
        return patiently(lambda: self._swap(changes), self._collection.database.client)

    def _swap(self, changes: Sequence[Verdict]) -> Written:
        keys = [change.aggregate_id for change in changes]
        with self._collection.database.client.start_session() as session:
            try:
                # Not the client's own concerns, which come from the connection string.
                session.start_transaction(
                    read_concern=self._collection.read_concern,
                    write_concern=self._collection.write_concern,
                    read_preference=self._collection.read_preference,
                )
                written = self._swap_within(session, changes)
                # It is applied once, however often it is sent.
                patiently(session.commit_transaction, session.client)
                return written
            except _Superseded:
                return Written(Counts(superseded=1), again=list(changes))
            except (DocumentTooLarge, InvalidDocument, UnicodeEncodeError) as error:
                return _refused(keys, str(error))
            except (ConnectionFailure, OperationFailure) as error:
                if error.has_error_label("TransientTransactionError"):
                    # Any other one is the server's: a lock, an election.
                    conflict = isinstance(error, OperationFailure) and error.code == _WRITE_CONFLICT
                    return Written(Counts(superseded=int(conflict)), again=list(changes))
                if not isinstance(error, OperationFailure):
                    raise
                if isinstance(error, BulkWriteError):
                    errors = error.details["writeErrors"]
                    raise_servers_own(errors, error.details["writeConcernErrors"])
                    first = errors[0]
                    if first["code"] == DUPLICATE_KEY:
                        wanting = [change.aggregate_id for change in changes if change.expected is not None]
                        return Written(conflicts=dict.fromkeys(wanting, _index_of(first)))
                    return _refused(keys, str(first.get("errmsg")))
                if error.code == _NO_TRANSACTIONS:
                    detail = "documents exchange unique keys, which takes a transaction; run MongoDB as a replica set"
                    return Written(refused=[(key, Why.NEEDS_REPLICA_SET, detail) for key in keys])
                raise

    def _swap_within(self, session: ClientSession, changes: Sequence[Verdict]) -> Written:
        ids = [change.actual["_id"] for change in changes if change.actual is not None]
        read = found(self._collection, {"_id": {"$in": ids}}, self._fields, session=session)
        stored = {_identity(document): document for document in read}
        written = Written()
        indexed = {name for item in unique_indexes(self._collection) for name in item.fields} if changes[1:] else ()
        deletes: list[Write] = []
        parks: list[Write] = []
        writes: list[Write] = []
        for change in changes:
            if change.actual is None:
                written.counts.inserted += 1
                writes.append(InsertOne(dict(change.expected or {})))
                continue
            if not same_value(stored.get(_identity(change.actual)), change.actual):
                raise _Superseded
            this = with_id(change.actual["_id"])
            if change.expected is None:
                written.counts.deleted += 1
                deletes.append(DeleteOne(this))
            else:
                written.counts.replaced += 1
                if changing := [name for name in differing_fields(change.expected, change.actual) if name in indexed]:
                    # Unique temporary values, so that others can take the released ones.
                    parks.append(UpdateOne(this, {"$set": {name: f"parked {uuid.uuid4()}" for name in changing}}))
                writes += [UpdateOne(this, unset) for unset in removing_repeated(change.actual)]
                writes.append(UpdateOne(this, update(change.expected, change.actual)))
        self._collection.bulk_write([*deletes, *parks, *writes], session=session)
        return written


class _Superseded(Exception):
    """Inside a transaction: the document no longer equals the compared one."""


def removing_repeated(actual: Document) -> list[Document]:
    """Updates, one after the other, that remove every field that occurs twice: each removes the first occurrence."""
    # Not a pipeline, because one that sets such a field crashes the server (6.0.5).
    repeated = {name: len(value.values) for name, value in actual.items() if isinstance(value, Repeated)}
    return [{"$unset": dict.fromkeys(repeated, "")}] * max(repeated.values(), default=0)


def _identity(document: Document) -> bytes:
    return written({"_id": document.get("_id")})


def _is_own(change: Verdict, document: Document) -> bool:
    return change.actual is not None and same_value(change.actual["_id"], document["_id"])


def _is_done(change: Verdict, stored: Document | None) -> bool:
    if change.expected is None or stored is None:
        return change.expected is None and stored is None
    return same_document(change.expected, stored)


def _index_of(error: Mapping[str, Any]) -> str:
    """The fields of the unique index that an error names."""
    return ", ".join(error.get("keyPattern", ()))


def _refused(keys: Sequence[Any], why: str) -> Written:
    return Written(refused=[(key, Why.WRITE_REFUSED, why[:300]) for key in keys])


def _add(total: Written, part: Written) -> None:
    total.counts.add(part.counts)
    total.again += part.again
    total.conflicts |= part.conflicts
    total.refused += part.refused
