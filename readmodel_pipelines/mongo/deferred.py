"""Keys put off until a pass is over: in a collection for a full run, which may put off any number, else in a list."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pymongo.database import Database
from pymongo.errors import PyMongoError

from readmodel_pipelines.mongo.scan import CODEC, Document

_BATCH = 500


class DeferredInMongo:
    """Implements `readmodel_pipelines.reconcile.ports.Deferred` in a collection of its own, dropped when closed.

    What killed runs left behind is dropped first: the lease lets one run at a time work on a read model. A run that
    lost its lease drops only what is its own.
    """

    def __init__(self, database: Database[Document], read_model: str) -> None:
        prefix = f"readmodel_deferred_{read_model}_"
        for name in database.list_collection_names(filter={"name": {"$regex": f"^{re.escape(prefix)}[0-9a-f]+$"}}):
            database.drop_collection(name)
        self._collection = database.get_collection(f"{prefix}{uuid.uuid4().hex}", codec_options=CODEC)
        self._counts: dict[str, int] = defaultdict(int)
        self._unwritten: list[Document] = []

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._counts[kind] += len(keys)
        self._unwritten += [{"kind": kind, "key": key} for key in keys]
        if len(self._unwritten) >= _BATCH:
            self._write()

    def count(self, kind: str) -> int:
        """How many were put off."""
        return self._counts[kind]

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        if not self._counts[kind]:
            return
        self._write()
        cursor = self._collection.find({"kind": kind}, batch_size=_BATCH)
        while batch := cursor.to_list(_BATCH):
            yield [document["key"] for document in batch]

    def _write(self) -> None:
        documents, self._unwritten = self._unwritten, []
        if documents:
            self._collection.insert_many(documents)

    def close(self) -> None:
        """Drop the collection."""
        if any(self._counts.values()):
            # Without a server the next full run drops it, and what went wrong first must be told.
            with suppress(PyMongoError):
                self._collection.drop()


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
