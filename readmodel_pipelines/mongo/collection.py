"""Collections as this project asks them: by the bytes of texts, whatever collation they have of their own.

A collection that was made with a collation means it in every query, sort and index that says nothing else: its texts
come in another order than that of their bytes, and different ones are equal. The merge join, ranges and unique keys go
by bytes. So each verb says the simple collation, and whoever hands on a collection hands on one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pymongo.collection
from pymongo import InsertOne
from pymongo.results import BulkWriteResult

from readmodel_pipelines.projections.projection import Document

BY_BYTES = {"locale": "simple"}
"""The collation that orders texts by their bytes, and has different ones differ."""

_P = ParamSpec("_P")
_R = TypeVar("_R")
AnyCollection = pymongo.collection.Collection[Document]
"""A collection as the driver has it."""


def _by_bytes(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(verb)
    def said(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        # Who means the collection's own says None.
        kwargs.setdefault("collation", BY_BYTES)
        return verb(*args, **kwargs)

    return said


class Collection(AnyCollection):
    """A collection of any database; also `with_options`."""

    find = _by_bytes(AnyCollection.find)
    aggregate = _by_bytes(AnyCollection.aggregate)
    count_documents = _by_bytes(AnyCollection.count_documents)
    distinct = _by_bytes(AnyCollection.distinct)
    replace_one = _by_bytes(AnyCollection.replace_one)
    update_one = _by_bytes(AnyCollection.update_one)
    update_many = _by_bytes(AnyCollection.update_many)
    delete_one = _by_bytes(AnyCollection.delete_one)
    delete_many = _by_bytes(AnyCollection.delete_many)
    find_one_and_delete = _by_bytes(AnyCollection.find_one_and_delete)
    find_one_and_replace = _by_bytes(AnyCollection.find_one_and_replace)
    find_one_and_update = _by_bytes(AnyCollection.find_one_and_update)
    create_index = _by_bytes(AnyCollection.create_index)

    def with_options(self, *args: Any, **options: Any) -> Collection:  # type: ignore[override]
        """The same with other options."""
        other = super().with_options(*args, **options)
        concerns = other.read_preference, other.write_concern, other.read_concern
        return Collection(self.database, self.name, False, other.codec_options, *concerns)

    def bulk_write(self, requests: Sequence[Any], *args: Any, **options: Any) -> BulkWriteResult:
        """Each of the writes goes by bytes."""
        for request in requests:
            if not isinstance(request, InsertOne):
                # The driver has no option for all of them.
                request._collation = BY_BYTES
        return super().bulk_write(requests, *args, **options)

    def plan(self, command: Document) -> Document:
        """How the server would answer a command on this collection; asking runs nothing."""
        asked = {**command, "collation": BY_BYTES}
        explained: Document = self.database.command("explain", asked, verbosity="queryPlanner")
        return explained
