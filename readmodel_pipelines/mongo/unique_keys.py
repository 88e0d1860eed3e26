"""What a unique index of MongoDB makes of a document's field: the keys that no other document may have.

A field that is not there has the key null, as one that is null; an array has a key for each element. Numbers of
different types are one key where they are equal.
"""

from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from readmodel_pipelines.events.exact import Odd, Repeated
from readmodel_pipelines.mongo.driver import Document


def unique_keys(document: Mapping[str, Any], field: str) -> dict[Hashable, Any]:
    """The keys of a field: each value by what tells it from others."""
    value = document.get(field)
    if isinstance(value, Repeated):
        # As queries and indexes have it.
        value = value.values[0]
    # An empty array has a key of its own, which finds it as a whole.
    values = value if isinstance(value, list) and value else [value]
    return {_told_apart_by(item): item for item in values}


def having_one_of(field: str, keys: Iterable[Any]) -> Document:
    """The filter for documents with any of these keys."""
    texts: list[Any] = []
    others: list[Any] = []
    for key in keys:
        (texts if type(key) is str or key is None else others).append(key)
    # `$in` takes a regular expression for a pattern, and refuses a document with a `$` in its names.
    one_of = [{field: {"$in": texts}}] if texts else []
    return {"$or": [*one_of, *({field: {"$eq": key}} for key in others)]} if others else one_of[0]


def _told_apart_by(key: Any) -> Hashable:
    if type(key) is str or key is None:
        return key
    if isinstance(key, Odd) and key.symbol is not None:
        # MongoDB takes it for the same as the text.
        return key.symbol
    number = key.to_decimal() if isinstance(key, Decimal128) else key
    if type(key) is bool or not isinstance(number, int | float | Decimal):
        return type(key).__name__, repr(key)
    # A signaling one has no hash, and is no float.
    return int, "NaN" if Decimal(number).is_nan() else number
