"""Values of events, times above all, as a second implementation reads them: from DATA_CONTRACT.md alone.

It imports nothing of the package.
"""

from calendar import isleap
from collections.abc import Sequence

from readmodel_pipelines_tests.support.stored_values import Value


class Bad(Exception):
    """A rule that an event breaks: its reason."""


def is_missing(value: Value | None) -> bool:
    return value is None or value.kind == "null"


def text(value: Value | None) -> str:
    """A text, as «Values» has it."""
    if is_missing(value):
        return ""
    assert value is not None
    if value.kind != "string":
        raise Bad("bad_field")
    return str(value.value)


def text_or_none(value: Value | None) -> str | None:
    return None if is_missing(value) else text(value)


def boolean(value: Value | None) -> bool:
    if is_missing(value):
        return False
    assert value is not None
    if value.kind == "bool" or (value.kind in ("int", "long", "double") and value.value in (0, 1)):
        return bool(value.value)
    raise Bad("bad_field")


def integer(value: Value | None, reason: str = "bad_field") -> int:
    if is_missing(value):
        return 0
    assert value is not None
    held = value.value
    if value.kind in ("int", "long"):
        return int(held)
    if value.kind == "double" and held == held and abs(held) != float("inf") and held == int(held):
        whole = int(held)
        if -(2**63) <= whole < 2**63:
            return whole
    raise Bad(reason)


# Times: milliseconds since 1970, rounded down

NO_TIME = -62_135_596_800_000


def time(value: Value | None) -> int:
    """Milliseconds of a time, as «Times» has it."""
    if is_missing(value):
        return NO_TIME
    assert value is not None
    if value.kind == "date":
        return int(value.value)
    if value.kind != "string":
        raise Bad("bad_field")
    return _rfc3339(value.value)


def time_or_none(value: Value | None) -> int | None:
    return None if is_missing(value) else time(value)


def _digits(held: str, start: int, length: int) -> int:
    part = held[start : start + length]
    if len(part) != length or any(digit not in "0123456789" for digit in part):
        raise Bad("bad_field")
    return int(part)


def _mark(held: str, at: int, allowed: str) -> None:
    if held[at : at + 1] not in tuple(allowed):
        raise Bad("bad_field")


def _rfc3339(held: str) -> int:
    for at, mark in ((4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")):
        _mark(held, at, mark)
    year, month, day = _digits(held, 0, 4), _digits(held, 5, 2), _digits(held, 8, 2)
    hour, minute, second = _digits(held, 11, 2), _digits(held, 14, 2), _digits(held, 17, 2)
    lengths = [31, 29 if isleap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1] or hour > 23 or minute > 59 or second > 59:
        raise Bad("bad_field")
    rest, fraction = held[19:], ""
    if rest.startswith("."):
        while rest[1 + len(fraction) : 2 + len(fraction)] in tuple("0123456789"):
            fraction += rest[1 + len(fraction)]
        rest = rest[1 + len(fraction) :]
        if not 1 <= len(fraction) <= 9:
            raise Bad("bad_field")
    milliseconds = int((fraction + "000")[:3])
    return (
        _days(year, month, day, lengths) * 86_400 + hour * 3600 + minute * 60 + second - _offset(rest)
    ) * 1000 + milliseconds


def _days(year: int, month: int, day: int, lengths: Sequence[int]) -> int:
    """Days since 1970 in the proleptic Gregorian calendar, counted year by year."""
    years = sum(365 + isleap(item) for item in range(1970, year)) - sum(
        365 + isleap(item) for item in range(year, 1970)
    )
    return years + sum(lengths[: month - 1]) + day - 1


def _offset(rest: str) -> int:
    if rest in ("Z", "z"):
        return 0
    if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":":
        raise Bad("bad_field")
    hours, minutes = _digits(rest, 1, 2), _digits(rest, 4, 2)
    if hours > 23 or minutes > 59:
        raise Bad("bad_field")
    return (1 if rest[0] == "+" else -1) * (hours * 3600 + minutes * 60)
