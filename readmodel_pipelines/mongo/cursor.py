"""The cursor of a `find` that continues at its position after it was lost."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from pymongo.cursor import Cursor
from pymongo.errors import PyMongoError

from readmodel_pipelines.events.exact import written
from readmodel_pipelines.mongo.patience import Attempts
from readmodel_pipelines.projections.projection import Document


class SteadyCursor(Cursor[Document]):
    """Repeats the query and skips documents that it already returned, by `_id` or, without one, by their content.

    It remembers them, so it is not for millions of documents. In a transaction it is an ordinary cursor.
    """

    def __init__(self, collection: Any, *query: Any, **options: Any) -> None:
        super().__init__(collection, *query, **options)
        self._in_transaction = options.get("session") is not None
        self._given: list[Any] = []
        self._known: Counter[bytes] = Counter()
        self._attempts: Attempts | None = None

    def next(self) -> Document:
        """The next document."""
        if self._in_transaction:
            return super().next()
        self._attempts = attempts = self._attempts or Attempts(self.collection.database.client)
        while True:
            try:
                document = super().next()
            except PyMongoError as error:
                attempts.failed(error)
                self.rewind()
                self._known = Counter(map(_told_apart, self._given))
                continue
            except StopIteration:
                attempts.went_on()
                raise
            identity = document.get("_id", document)
            if self._known and self._known[key := _told_apart(identity)] > 0:
                self._known[key] -= 1
                continue
            # Only after progress: a query that fails each time at the same position is not continued.
            attempts.went_on()
            self._given.append(identity)
            return document

    def __next__(self) -> Document:
        return self.next()

    def to_list(self, length: int | None = None) -> list[Document]:
        """The next documents, at most this many, or all of them."""
        return [*islice(self, length)]


def _told_apart(identity: Any) -> bytes:
    return written({"": identity})
