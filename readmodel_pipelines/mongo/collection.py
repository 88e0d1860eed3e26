"""Collections as this project queries them: by the bytes of texts, whatever their own collation.

A collection with a collation uses it in every query, sort and index without its own: texts come in another order than
byte order, and different texts can be equal. The merge join, ranges and unique keys compare bytes. So each operation
states the simple collation, and all code passes on collections of this class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pymongo.collection
from pymongo import IndexModel, InsertOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError
from pymongo.results import BulkWriteResult, InsertManyResult, InsertOneResult

from readmodel_pipelines.mongo.cursor import SteadyCursor
from readmodel_pipelines.mongo.failures import DUPLICATE_KEY, is_glitch
from readmodel_pipelines.mongo.index_builds import votes
from readmodel_pipelines.mongo.patience import Attempts, patiently, repeats, waits
from readmodel_pipelines.projections.projection import Document

BY_BYTES = {"locale": "simple"}
"""The collation that orders texts by their bytes, and distinguishes all different texts."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
AnyCollection = pymongo.collection.Collection[Document]
"""A collection of the driver."""


def _asked(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    """An operation that is one command; inside a transaction only the whole transaction can be repeated."""

    @wraps(verb)
    def asked(*args: _P.args, **options: _P.kwargs) -> _R:
        # None requests the collection's own collation.
        options.setdefault("collation", BY_BYTES)
        if options.get("session") is not None:
            return verb(*args, **options)
        collection: Any = args[0]
        return patiently(lambda: verb(*args, **options), collection.database.client)

    return asked


class Collection(AnyCollection):
    """A collection of any database; also `with_options`.

    During a verb, each command is repeated after a transient error, and a cursor continues at its position. An
    aggregation returns its whole result at once, which is always small.
    """

    find_raw_batches = _asked(AnyCollection.find_raw_batches)
    aggregate_raw_batches = _asked(AnyCollection.aggregate_raw_batches)
    count_documents = _asked(AnyCollection.count_documents)
    distinct = _asked(AnyCollection.distinct)
    replace_one = _asked(AnyCollection.replace_one)
    update_one = _asked(AnyCollection.update_one)
    update_many = _asked(AnyCollection.update_many)
    delete_one = _asked(AnyCollection.delete_one)
    delete_many = _asked(AnyCollection.delete_many)
    find_one_and_delete = _asked(AnyCollection.find_one_and_delete)
    find_one_and_replace = _asked(AnyCollection.find_one_and_replace)
    find_one_and_update = _asked(AnyCollection.find_one_and_update)

    @property
    def _server(self) -> Any:
        return self.database.client

    def with_options(self, *args: Any, **options: Any) -> Collection:  # type: ignore[override]
        """The same collection with other options."""
        other = super().with_options(*args, **options)
        concerns = other.read_preference, other.write_concern, other.read_concern
        return Collection(self.database, self.name, False, other.codec_options, *concerns)

    def estimated_document_count(self, *args: Any, **options: Any) -> int:
        """The approximate number of documents."""
        return patiently(lambda: super(Collection, self).estimated_document_count(*args, **options), self._server)

    def find(self, *args: Any, **options: Any) -> SteadyCursor:
        """The documents of a query; `find_one` uses it too."""
        options.setdefault("collation", BY_BYTES)
        return SteadyCursor(self, *args, **options)

    def aggregate(self, *args: Any, **options: Any) -> Any:
        """The result of an aggregation."""
        options.setdefault("collation", BY_BYTES)
        asked = super().aggregate
        if options.get("session") is not None:
            return asked(*args, **options)
        return iter(patiently(lambda: list(asked(*args, **options)), self._server))

    def create_index(self, keys: Any, **options: Any) -> str:  # type: ignore[override]
        """Create an index; None as collation requests the collection's own."""
        index = IndexModel(keys, **{"collation": BY_BYTES, **options})
        made = patiently(lambda: self.create_indexes([index], **votes(self._server)), self._server)
        return made[0]

    def list_indexes(self, *args: Any, **options: Any) -> Any:
        """The existing indexes."""
        asked = super().list_indexes
        return iter(patiently(lambda: list(asked(*args, **options)), self._server))

    def insert_one(self, document: Any, *args: Any, **options: Any) -> InsertOneResult:
        """Insert a document; if it exists when the command is repeated, the first attempt inserted it."""
        write = super().insert_one
        if options.get("session") is not None:
            return write(document, *args, **options)
        attempts = Attempts(self._server)
        while True:
            try:
                return attempts.done(write(document, *args, **options))
            except DuplicateKeyError as error:
                if not attempts.repeated or not _is_of_id(error.details or {}):
                    raise
                return attempts.done(InsertOneResult(document["_id"], True))
            except PyMongoError as error:
                attempts.failed(error)

    def insert_many(self, documents: Iterable[Any], *args: Any, **options: Any) -> InsertManyResult:
        """Insert documents; those that exist when the command is repeated were inserted before."""
        every, write = list(documents), super().insert_many

        def insert(*, again: bool) -> InsertManyResult:
            # Unordered, so that documents inserted before do not prevent the others.
            return write(every, *args, **(options | {"ordered": False} if again else options))

        def of(_: Any) -> InsertManyResult:
            return InsertManyResult([document["_id"] for document in every], True)

        return self._in_bulk(insert, lambda _: True, of, options)

    def bulk_write(self, requests: Sequence[Any], *args: Any, **options: Any) -> BulkWriteResult:
        """Run the writes with the simple collation; documents inserted by a first attempt count as inserted."""
        for request in requests:
            if not isinstance(request, InsertOne):
                # The driver has no such option for all of them.
                request._collation = BY_BYTES
        write = super().bulk_write
        return self._in_bulk(
            lambda again: write(requests, *args, **options),
            lambda place: isinstance(requests[place], InsertOne),
            lambda counts: BulkWriteResult(counts, True),
            options,
        )

    def _in_bulk(
        self,
        write: Callable[..., _R],
        is_insert: Callable[[int], bool],
        result_of: Callable[[Any], _R],
        options: Document,
    ) -> _R:
        if options.get("session") is not None:
            return write(again=False)
        attempts, asked = Attempts(self._server), repeats()
        while True:
            try:
                return attempts.done(write(again=attempts.repeated))
            except BulkWriteError as error:
                if is_glitch(error) or repeats() == asked:
                    attempts.failed(error)
                    continue
                counts: Any = error.details
                errors = counts["writeErrors"]
                counts["writeErrors"] = [item for item in errors if not (is_insert(item["index"]) and _is_of_id(item))]
                counts["nInserted"] += len(errors) - len(counts["writeErrors"])
                if counts["writeErrors"] or counts["writeConcernErrors"]:
                    raise
                return attempts.done(result_of(counts))
            except PyMongoError as error:
                attempts.failed(error)

    def update_counted(self, where: Mapping[str, Any], update: Any, there: int | None = None) -> int:
        """Like `update_many`; returns the number of matches even if a reply is lost, because a repetition would not
        count documents changed before. They are counted first, unless it is known how many are `there`.
        """
        there = self._number_of(where) if there is None else there
        asked = repeats()
        if waits() and not there:
            return 0
        matched = self.update_many(where, update).matched_count
        return there if repeats() > asked else matched

    def delete_counted(self, where: Mapping[str, Any]) -> int:
        """Like `delete_many`; returns the number of matches even if a reply is lost."""
        there, asked = self._number_of(where), repeats()
        if waits() and not there:
            return 0
        deleted = self.delete_many(where).deleted_count
        return there if repeats() > asked else deleted

    def _number_of(self, where: Mapping[str, Any]) -> int:
        # Without waiting for a server, nothing is repeated.
        return self.count_documents(where) if waits() else 0

    def plan(self, command: Document) -> Document:
        """The server's plan for a command on this collection; nothing is executed."""
        asked = {**command, "collation": BY_BYTES}
        explained: Document = self.database.command("explain", asked, verbosity="queryPlanner")
        return explained


def _is_of_id(error: Mapping[str, Any]) -> bool:
    """Whether the error says that a document with this `_id` exists."""
    return error.get("code") == DUPLICATE_KEY and list(error.get("keyPattern", ())) == ["_id"]
