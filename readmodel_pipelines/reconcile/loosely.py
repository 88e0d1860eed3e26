"""Compares values without their BSON types: an int32 17, a double 17.0 and the text "17" are equal here.

Only for causes. Verdicts use `compare`, which distinguishes types.
"""

import re
from typing import Any

from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.events.exact import Odd
from readmodel_pipelines.events.values import parse_time
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.compare import ABSENT, same_value

_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,19})?", re.ASCII)
_UNDEFINED = 0x06
_PLAIN = (str, int, bool, type(None))


def loosely_same(one: object, other: object) -> bool:
    """Whether two decoded BSON values are equal, apart from their types."""
    kind = type(one)
    if kind is type(other):
        if kind in _PLAIN:
            return one == other
        if kind is list:
            return len(one) == len(other) and all(map(loosely_same, one, other))  # type: ignore[arg-type, call-overload]
        if kind is dict:
            return one.keys() == other.keys() and all(loosely_same(one[name], other[name]) for name in one)  # type: ignore[attr-defined, index]
        return same_value(one, other)
    if one is ABSENT or other is ABSENT:
        return False
    return _of_another_type(one, other) or _of_another_type(other, one)


def _of_another_type(one: Any, other: Any) -> bool:
    if isinstance(one, DatetimeMS):
        return int(one) == (_milliseconds(other) if isinstance(other, str) else _number(other))
    if isinstance(one, bool) and isinstance(other, str):
        return other.lower() == str(one).lower()
    if one is None:
        return isinstance(other, Odd) and other.kind == _UNDEFINED
    if isinstance(one, Odd):
        return one.symbol is not None and isinstance(other, str) and one.symbol == other
    if isinstance(one, str):
        return str(one) == str(other) if isinstance(other, str | ObjectId) else _number_in(one) == _number(other)
    number = _number(one)
    return number is not None and number == _number(other)


def _number(value: object) -> Any:
    if isinstance(value, Decimal128):
        value = value.to_decimal()
        return value if value.is_finite() else None
    return value if isinstance(value, int | float) else None


def _number_in(text: str) -> Any:
    return (float(text) if "." in text else int(text)) if _NUMBER.fullmatch(text) else ABSENT


def _milliseconds(text: str) -> int | None:
    try:
        return parse_time(text)
    except ValueError:
        return None


def fits(made: Document, stored: Document, but_for: frozenset[str] = frozenset()) -> bool:
    """Whether a stored document loosely equals a projected one, except for some fields; `_id` is ignored."""
    for name, value in made.items():
        if name not in but_for:
            other = stored.get(name, ABSENT)
            if value is not other and not loosely_same(value, other):
                return False
    return all(name in made or name in but_for or name == "_id" for name in stored)
