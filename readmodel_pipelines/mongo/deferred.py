"""Keys put off until a pass is over: in a collection for a full run, which may put off any number, else in a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from readmodel_pipelines.mongo.scan import CODEC, Document

_BATCH = 500


class DeferredInMongo:
    """Implements `readmodel_pipelines.reconcile.ports.Deferred` in a collection of its own, dropped when closed.

    What a killed run left behind is dropped first: the read model's lease lets one run at a time come here.
    """

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection.with_options(codec_options=CODEC)
        self._counts: dict[str, int] = defaultdict(int)
        self._collection.drop()

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        if keys:
            self._counts[kind] += len(keys)
            self._collection.insert_many([{"kind": kind, "key": key} for key in keys])

    def count(self, kind: str) -> int:
        """How many were put off."""
        return self._counts[kind]

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        if not self._counts[kind]:
            return
        batch: list[Any] = []
        for document in self._collection.find({"kind": kind}, batch_size=_BATCH):
            batch.append(document["key"])
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def close(self) -> None:
        """Drop the collection."""
        if self._counts:
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
