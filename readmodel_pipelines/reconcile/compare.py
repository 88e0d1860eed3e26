"""Compares documents by value and BSON type: 1, 1.0, true and int64 1 are four different values.

The order of array elements counts, the order of fields does not.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

from readmodel_pipelines.events.exact import Repeated
from readmodel_pipelines.projections.projection import Document


class Absent(Enum):
    """The type of `ABSENT`; a member of an enum is the same object in every process."""

    ABSENT = auto()

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent.ABSENT
"""StoredState for a missing field, which differs from null."""


def same_value(one: object, other: object) -> bool:
    """Whether two decoded BSON values are equal in value and type."""
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is list:
        return len(one) == len(other) and all(map(same_value, one, other))  # type: ignore[arg-type, call-overload]
    if kind is dict:
        return _same_fields(one, other)  # type: ignore[arg-type]
    if kind is Repeated:
        return same_value([*one.values], [*other.values])  # type: ignore[attr-defined]
    # NaN equals NaN here, because it is a stored value and not the result of a calculation.
    return bool(one == other) or (kind is float and one != one and other != other)


def _same_fields(one: Document, other: Document) -> bool:
    if len(one) != len(other):
        return False
    for name, value in one.items():
        twin = other.get(name, ABSENT)
        if value is not twin and not same_value(value, twin):
            return False
    return True


def same_document(expected: Document, actual: Document) -> bool:
    """Whether `actual`, which holds only `_id` and owned fields, equals the expected document."""
    # The hot path: `same_value` is called only for containers and for unequal values, which may be NaN.
    if len(actual) != len(expected) + 1:
        return False
    for name, value in expected.items():
        other = actual.get(name, ABSENT)
        kind = type(value)
        if kind is not type(other):
            return False
        if (value != other or kind is list or kind is dict) and not same_value(value, other):
            return False
    return True


def differing_fields(expected: Document, actual: Document) -> Mapping[str, tuple[Any, Any]]:
    """The different fields, each with (expected, actual), `ABSENT` for a missing one; without `_id`."""
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, value in expected.items():
        other = actual.get(name, ABSENT)
        # Most fields are equal texts.
        if (type(value) is not str or value != other or type(other) is not str) and not same_value(value, other):
            pairs[name] = value, other
    for name in actual:
        if name not in expected:
            pairs[name] = ABSENT, actual[name]
    pairs.pop("_id", None)
    return pairs
