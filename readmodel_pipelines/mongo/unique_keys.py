"""The keys of a document's field in a unique index of MongoDB, which no other document may have.

A missing field has the key null, like a field that is null; an array has a key for each element. Equal numbers of
different types are one key.
"""

from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from readmodel_pipelines.events.exact import Odd, Repeated
from readmodel_pipelines.mongo.driver import Document


def unique_keys(document: Mapping[str, Any], field: str) -> dict[Hashable, Any]:
    """The keys of a field, each in a form that equals only the same key."""
    value = document.get(field)
    if isinstance(value, Repeated):
        # Like queries and indexes.
        value = value.values[0]
    # An empty array has its own key, and is found as a whole.
    values = value if isinstance(value, list) and value else [value]
    return {_told_apart_by(item): item for item in values}


def having_one_of(field: str, keys: Iterable[Any]) -> Document:
    """The filter for documents with any of these keys."""
    texts: list[Any] = []
    others: list[Any] = []
    for key in keys:
        (texts if type(key) is str or key is None else others).append(key)
    # `$in` takes a regular expression as a pattern, and refuses a document with a `$` in its names.
    one_of = [{field: {"$in": texts}}] if texts else []
    return {"$or": [*one_of, *({field: {"$eq": key}} for key in others)]} if others else one_of[0]


def _told_apart_by(key: Any) -> Hashable:
    if type(key) is str or key is None:
        return key
    if isinstance(key, Odd) and key.symbol is not None:
        # MongoDB considers it equal to the text.
        return key.symbol
    number = key.to_decimal() if isinstance(key, Decimal128) else key
    if type(key) is bool or not isinstance(number, int | float | Decimal):
        return type(key).__name__, repr(key)
    # A signaling NaN has no hash, and is no float.
    return int, "NaN" if Decimal(number).is_nan() else number
