"""Numbers among the fields of a model: which they are, and their ranges."""

from typing import Any, get_args


def numbers_in(annotation: Any) -> set[type]:
    """The types of numbers that a field may hold."""
    return {int, float} & {annotation, *get_args(annotation)}


def ends_of(field: Any) -> tuple[float, float]:
    """The range of a field; there must be one."""
    ends = {name: getattr(item, name) for item in field.metadata for name in ("ge", "le") if hasattr(item, name)}
    assert set(ends) == {"ge", "le"}, f"{field} has no range"
    return ends["ge"], ends["le"]
