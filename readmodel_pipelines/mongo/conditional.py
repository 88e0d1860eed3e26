"""Conditional writes: only if the document still equals the compared one in `_id`, key and every owned field.

The server plans each filter except one on `_id` alone, which takes longer than the write. So an update finds its
document by `_id`, and has the condition in its pipeline. If it is false, the document stays unchanged and does not
count as modified. A pipeline keeps all other fields byte by byte, even repeated ones.
"""

from typing import Any

import bson
from bson import ObjectId
from bson.errors import InvalidDocument
from pymongo import DeleteOne, InsertOne, UpdateOne

from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import differing_fields
from readmodel_pipelines.reconcile.outcome import Verdict

Write = InsertOne[Document] | UpdateOne | DeleteOne

_LARGEST_STATEMENT = 15 * 1024 * 1024
_DEEPEST_STATEMENT = 49
_MOST_FIELDS = 20
"""Maximum number of changed fields; a pipeline with more would be nested too deeply."""
_BY_ID = {"_id": 1}
"""The index that finds the document. Without a hint, the server would evaluate the one on the key for each write."""


class ConditionalWrites:
    """Builds the statement for a change of a document of one projection, in a collection that may be `sharded`."""

    def __init__(self, projection: Projection, *, sharded: bool) -> None:
        self._sharded = sharded
        self._key = projection.key
        self._owned = projection.owned

    def __call__(self, change: Verdict) -> Write:
        """Insert without `actual`, delete without `expected`, else change the different owned fields."""
        expected, actual = change.expected, change.actual
        if actual is None:
            return InsertOne(dict(expected or {}))
        where, condition = self._place(actual), self._condition(actual)
        if expected is None:
            return DeleteOne({**where, "$expr": condition}, hint=_BY_ID)
        changed = differing_fields(expected, actual)
        if len(changed) > _MOST_FIELDS:
            return UpdateOne({**where, "$expr": condition}, update(expected, actual), hint=_BY_ID)
        into: Any = "$$ROOT"
        for name in changed:
            value = {"$literal": expected[name]} if name in expected else "$$REMOVE"
            into = {"$setField": {"field": {"$literal": name}, "input": into, "value": value}}
        pipeline = [{"$replaceWith": {"$cond": [condition, into, "$$ROOT"]}}]
        document_id = actual["_id"]
        if not self._sharded and isinstance(document_id, ObjectId | str | int):
            # A key, a hint or an operator beside it, and the server plans.
            return UpdateOne({"_id": document_id}, pipeline)
        return UpdateOne(where, pipeline, hint=_BY_ID)

    def _place(self, actual: Document) -> Document:
        """The filter for the document; with its key, which may select the shard."""
        where: Document = {"_id": {"$eq": actual["_id"]}}
        if isinstance(actual.get(self._key), str):
            where[self._key] = actual[self._key]
        return where

    def _condition(self, actual: Document) -> Document:
        """Every owned field is unchanged: one comparison of all of them, which takes half the time of one for each.

        In a list, null also stands for a missing field, so the types are compared too.
        """
        stored: list[Any] = []
        read: list[Any] = []
        for name in self._owned:
            value = actual.get(name)
            stored.append({"$type": f"${name}"} if value is None else f"${name}")
            read.append(("null" if name in actual else "missing") if value is None else value)
        return {"$eq": [stored, {"$literal": read}]}


def update(expected: Document, actual: Document) -> Document:
    """The update of the different owned fields."""
    changes: Document = {}
    for name in differing_fields(expected, actual):
        operator = "$set" if name in expected else "$unset"
        changes.setdefault(operator, {})[name] = expected.get(name, "")
    return changes


def fits_a_statement(change: Verdict) -> bool:
    """Whether one statement can hold both the compared and the new document."""
    if change.actual is None:
        return True
    try:
        size = len(bson.encode(change.actual)) + change.size
    except (InvalidDocument, UnicodeEncodeError):
        return False
    return size < _LARGEST_STATEMENT and _depth(change.actual) < _DEEPEST_STATEMENT


def _depth(value: Any) -> int:
    """How many containers lie in one another."""
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item) for item in inner if isinstance(item, dict | list)), default=0)
