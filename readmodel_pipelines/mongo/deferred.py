"""Keys put off until a pass is over: in a collection for a full run, which may put off any number, else in a list."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo.database import Database
from pymongo.errors import BulkWriteError, PyMongoError

from readmodel_pipelines.mongo.scan import CODEC, Document

_BATCH = 500
_DUPLICATE_KEY = 11000


class DeferredInMongo:
    """Implements `readmodel_pipelines.reconcile.ports.Deferred` in a collection of this name.

    Who puts off the same key again, after a crash for example, puts it off once. The collection stays until `drop`: the
    workers of a rebuild, and who resumes it, share it.
    """

    def __init__(self, database: Database[Document], name: str) -> None:
        self._collection = database.get_collection(name, codec_options=CODEC)
        self._unwritten: list[Document] = []

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._unwritten += [{"_id": {"kind": kind, "key": key}} for key in keys]
        if len(self._unwritten) >= _BATCH:
            self.write()

    def count(self, kind: str) -> int:
        """How many were put off."""
        self.write()
        return self._collection.count_documents(_of(kind))

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        self.write()
        cursor = self._collection.find(_of(kind), batch_size=_BATCH)
        while batch := cursor.to_list(_BATCH):
            yield [document["_id"]["key"] for document in batch]

    def write(self) -> None:
        """Make sure that nothing put off is lost with this process."""
        documents, self._unwritten = self._unwritten, []
        if not documents:
            return
        try:
            self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if any(item["code"] != _DUPLICATE_KEY for item in error.details["writeErrors"]):
                raise

    def close(self) -> None:
        """Others may go on with it."""

    def drop(self) -> None:
        """Forget all."""
        self._unwritten = []
        self._collection.drop()


class DeferredForThisRun(DeferredInMongo):
    """One that ends with the run, and drops first what killed runs over the same read model left behind.

    The lease lets one run at a time work on a read model. A run that lost its lease drops only what is its own.
    """

    def __init__(self, database: Database[Document], read_model: str) -> None:
        prefix = f"readmodel_deferred_{read_model}_"
        for name in database.list_collection_names(filter={"name": {"$regex": f"^{re.escape(prefix)}[0-9a-f]+$"}}):
            database.drop_collection(name)
        super().__init__(database, f"{prefix}{uuid.uuid4().hex}")
        self._written = False

    def write(self) -> None:
        """As it says; most runs put nothing off and make no collection."""
        self._written |= bool(self._unwritten)
        super().write()

    def close(self) -> None:
        """Drop the collection."""
        if self._written:
            # Without a server the next full run drops it, and what went wrong first must be told.
            with suppress(PyMongoError):
                self.drop()


def _of(kind: str) -> Document:
    return {"_id": {"$gte": {"kind": kind, "key": MinKey()}, "$lte": {"kind": kind, "key": MaxKey()}}}


class DeferredInMemory:
    """The same for a run over some ids."""

    def __init__(self) -> None:
        self._keys: dict[str, list[Any]] = defaultdict(list)

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._keys[kind] += keys

    def count(self, kind: str) -> int:
        """How many were put off."""
        return len(self._keys[kind])

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        keys = self._keys[kind]
        for start in range(0, len(keys), _BATCH):
            yield keys[start : start + _BATCH]

    def close(self) -> None:
        """Forget all."""
        self._keys.clear()
