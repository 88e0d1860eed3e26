"""Keys put off until a full run is over: on the server, which may hold any number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from readmodel_pipelines.bookkeeping.scratch import Owner, scratch
from readmodel_pipelines.mongo.driver import Database, Document, duplicates_allowed
from readmodel_pipelines.mongo.names import DEFERRED
from readmodel_pipelines.reconcile.deferred import KEYS_AT_ONCE


class DeferredInMongo:
    """Implements `readmodel_pipelines.reconcile.deferred.Deferred` with the keys of an owner.

    Who puts off the same key again, after a crash for example, puts it off once. The workers of a
    rebuild, and who resumes it, share them.
    """

    def __init__(self, database: Database, owner: Owner) -> None:
        self._collection = scratch(database, DEFERRED)
        self._owner = owner
        self._unwritten: list[Document] = []

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._unwritten += [{"_id": key} for key in self._owner.keyed(kind, keys)]
        if len(self._unwritten) >= KEYS_AT_ONCE:
            self.write()

    def count(self, kind: str) -> int:
        """How many were put off."""
        self.write()
        return self._collection.count_documents(self._owner.kept(kind))

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        self.write()
        cursor = self._collection.find(self._owner.kept(kind), batch_size=KEYS_AT_ONCE)
        while batch := cursor.to_list(KEYS_AT_ONCE):
            yield [document["_id"]["key"] for document in batch]

    def write(self) -> None:
        """Make sure that nothing put off is lost with this process."""
        documents, self._unwritten = self._unwritten, []
        if not documents:
            return
        with duplicates_allowed():
            self._collection.insert_many(documents, ordered=False)
