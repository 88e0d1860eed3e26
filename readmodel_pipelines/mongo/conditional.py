"""Conditional writes: only if the document still equals the compared one in `_id`, key and every owned field.

The server plans each filter except one on `_id` alone, which takes longer than the write. So an update finds its
document by `_id`, and has the condition in its pipeline. If it is false, the document stays unchanged and does not
count as modified. A pipeline keeps all other fields byte by byte, even repeated ones.

Documents that get the same fields are changed by one statement: each finds its old and new values by the place of its
`_id` in a list. For the server that is a third of the work of a statement for each, and for the driver less. The server
changes each of them by itself, so a condition holds as in a statement of its own. An error ends the statement anywhere.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from bson import ObjectId
from pymongo import DeleteOne, InsertOne, UpdateMany, UpdateOne

from readmodel_pipelines.batched import fitting
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, differing_fields
from readmodel_pipelines.reconcile.outcome import Verdict

Write = InsertOne[Document] | UpdateOne | UpdateMany | DeleteOne

_LARGEST_STATEMENT = 15 * 1024 * 1024
_DEEPEST_STATEMENT = 49
_DEEPEST_VALUE = 100
"""How deep the new values may be; each changed field of a pipeline puts them deeper into the statement."""
_MOST_FIELDS = 20
"""Maximum number of changed fields; a pipeline with more would be nested too deeply."""
_WEIGHT = attrgetter("weight")
_BY_ID = {"_id": 1}
"""The index that finds the document. Without a hint, the server would evaluate the one on the key for each write."""


class ConditionalWrites:
    """Builds the statement for a change of a document of one projection, in a collection that may be `sharded`."""

    def __init__(self, projection: Projection, *, sharded: bool) -> None:
        self._sharded = sharded
        self._key = projection.key
        self._owned = projection.owned
        self._fields = {name: f"${name}" for name in projection.owned}

    def __call__(self, change: Verdict) -> Write:
        """Insert without `actual`, delete without `expected`, else change the different owned fields."""
        expected, actual = change.expected, change.actual
        if actual is None:
            return InsertOne(dict(expected or {}))
        where, condition = self._place(actual), {"$eq": [self._fields, {"$literal": self._compared(actual)}]}
        if expected is None:
            return DeleteOne({**where, "$expr": condition}, hint=_BY_ID)
        changed = change.pairs
        if len(changed) > _MOST_FIELDS:
            return UpdateOne({**where, "$expr": condition}, update(expected, actual), hint=_BY_ID)
        values = {name: {"$literal": expected[name]} if name in expected else "$$REMOVE" for name in changed}
        pipeline = [{"$replaceWith": {"$cond": [condition, _with(values), "$$ROOT"]}}]
        document_id = actual["_id"]
        if not self._sharded and isinstance(document_id, ObjectId | str | int):
            # A key, a hint or an operator beside it, and the server plans.
            return UpdateOne({"_id": document_id}, pipeline)
        return UpdateOne(where, pipeline, hint=_BY_ID)

    def together(self, changes: Sequence[Verdict]) -> list[Write]:
        """The statements that change these documents, as few as possible."""
        alike: dict[Hashable, list[Verdict]] = defaultdict(list)
        alone: list[Verdict] = []
        for change in changes:
            # Other ids are in a collection's own collation, which hides them from a query by bytes.
            if self._sharded or type((change.actual or {})["_id"]) is not ObjectId or len(change.pairs) > _MOST_FIELDS:
                alone.append(change)
            else:
                alike[tuple((name, new is ABSENT) for name, (new, _) in change.pairs.items())].append(change)
        statements = [self(change) for change in alone]
        for some in alike.values():
            statements += [
                self(batch[0]) if len(batch) == 1 else self._many(batch)
                for batch in fitting(some, _WEIGHT, _LARGEST_STATEMENT)
            ]
        return statements

    def _many(self, changes: Sequence[Verdict]) -> UpdateMany:
        """The statement for documents that get the same fields."""
        ids = [(change.actual or {})["_id"] for change in changes]
        compared = [self._compared(change.actual or {}) for change in changes]
        values: Document = {}
        for name, (new, _) in changes[0].pairs.items():
            news = [] if new is ABSENT else [change.pairs[name][0] for change in changes]
            values[name] = "$$REMOVE" if new is ABSENT else _at_place(news)
        condition = {"$eq": [self._fields, _at_place(compared)]}
        # The server looks a place up in a list that it knows beforehand.
        place = {"$indexOfArray": [{"$literal": ids}, "$_id"]}
        into = {"$cond": [condition, _with(values), "$$ROOT"]}
        return UpdateMany({"_id": {"$in": ids}}, [{"$replaceWith": {"$let": {"vars": {"place": place}, "in": into}}}])

    def _place(self, actual: Document) -> Document:
        """The filter for the document; with its key, which may select the shard."""
        where: Document = {"_id": {"$eq": actual["_id"]}}
        if isinstance(actual.get(self._key), str):
            where[self._key] = actual[self._key]
        return where

    def _compared(self, actual: Document) -> Document:
        """What the server compares with an object of the owned fields, in which a missing one is missing too.

        An array of them, with types for what is missing, would take it twice the time.
        """
        return {name: actual[name] for name in self._owned if name in actual}


def _at_place(values: list[Any]) -> Document:
    return {"$arrayElemAt": [{"$literal": values}, "$$place"]}


def _with(values: Document) -> Any:
    """The document with these fields."""
    into: Any = "$$ROOT"
    for name, value in values.items():
        into = {"$setField": {"field": {"$literal": name}, "input": into, "value": value}}
    return into


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
    size = change.stored_size
    if size is None or size + change.size >= _LARGEST_STATEMENT:
        return False
    new = [expected for expected, _ in change.pairs.values()]
    return _depth(change.actual) < _DEEPEST_STATEMENT and _depth(new) < _DEEPEST_VALUE


def _depth(outermost: Document | list[Any]) -> int:
    """How many containers lie in one another."""
    depth = 0
    level: list[Any] = [outermost]
    while level:
        depth += 1
        inside = chain.from_iterable(outer.values() if type(outer) is dict else outer for outer in level)
        level = [item for item in inside if type(item) is dict or type(item) is list]
    return depth
