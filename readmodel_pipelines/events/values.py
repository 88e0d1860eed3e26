"""Readers for values of an event's own fields: accepted values, zero values, and values that make the stream malformed.

Each reader takes the whole event and the name of a field in its `data`. A missing or null field has its zero value; a
value of another kind raises `BadField` and is never guessed. DATA_CONTRACT.md, «Values» and «Times», has the rules.

Times are milliseconds since 1970 as plain integers and not `datetime` objects: year 1 with an offset lies before
Python's first date, and Python's own parsers stop at microseconds.
"""

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any

from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.events.ids import is_utf8

Event = Mapping[str, Any]
"""An event as stored in MongoDB, decoded with dates as `bson.datetime_ms.DatetimeMS`; perhaps with only the fields that
are read.
"""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ZERO_TIME_MS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the application's «no time»."""

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAYS_IN_400_YEARS = 146_097


class BadField(Exception):
    """A field that the fold uses has a value that the contract does not allow."""

    def __init__(self, field: str, value: object, wanted: str) -> None:
        shown = repr(value)
        super().__init__(f"{field} is not {wanted}: {shown if len(shown) <= 80 else shown[:77] + '...'}")


def text(event: Event, name: str) -> str:
    """A string; "" when missing or null."""
    value = event["data"].get(name)
    if type(value) is str and (value.isascii() or is_utf8(value)):
        return value
    if value is None:
        return ""
    raise BadField(f"data.{name}", value, "a string of valid UTF-8" if isinstance(value, str) else "a string")


def optional_text(event: Event, name: str) -> str | None:
    """A string, or None when missing or null."""
    return None if event["data"].get(name) is None else text(event, name)


def flag(event: Event, name: str) -> bool:
    """A bool; the numbers 0 and 1 stand for one; False when missing or null."""
    value = event["data"].get(name)
    if value is None:
        return False
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise BadField(f"data.{name}", value, "true or false")


def integer(event: Event, name: str) -> int:
    """A whole number within int64, whatever BSON number holds it; 0 when missing or null."""
    value = event["data"].get(name)
    return 0 if value is None else whole(value, f"data.{name}")


def time_ms(event: Event, name: str) -> int:
    """Milliseconds since 1970 of a time, text or BSON date; the year 1 when missing or null."""
    return _time(event["data"].get(name), f"data.{name}")


def optional_time_ms(event: Event, name: str) -> int | None:
    """Like `time_ms`, but None when missing or null."""
    return None if event["data"].get(name) is None else time_ms(event, name)


def occurred_at_ms(event: Event) -> int:
    """Milliseconds since 1970 of the envelope's `occurred_at`."""
    return _time(event.get("occurred_at"), "occurred_at")


def whole(value: object, field: str) -> int:
    """`value` as an integer, if it is a whole number within int64.

    Raises:
        BadField: it is not; also for `true` and NaN.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and INT64_MIN <= value <= INT64_MAX:
        return int(value)
    raise BadField(field, value, "a whole number within 64 bits")


def _time(value: object, field: str) -> int:
    if type(value) is str:
        try:
            return parse_time(value)
        except ValueError as error:
            raise BadField(field, value, f"a time ({error})") from None
    if value is None:
        return ZERO_TIME_MS
    if isinstance(value, DatetimeMS):
        return int(value)
    raise BadField(field, value, "a time")


def parse_time(text: str) -> int:
    """Milliseconds since 1970-01-01T00:00:00Z of an RFC 3339 time, rounded down.

    Accepts 0 to 9 fraction digits, `Z` or an offset up to ±23:59, and `t` or `z` in lower case (RFC 3339, section 5.6).

    Raises:
        ValueError: any other text, also with second 60, because a leap second has no place in milliseconds since 1970.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    day, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    if hour > "23" or minute > "59" or second > "59":
        raise ValueError("hour, minute or second out of range")
    seconds = _days(day) * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    if sign:
        if offset_hour > "23" or offset_minute > "59":
            raise ValueError("offset beyond 23:59")
        offset = int(offset_hour) * 3600 + int(offset_minute) * 60
        seconds += offset if sign == "-" else -offset
    # A fraction only adds to the second, so cutting its digits rounds down, also before 1970.
    return seconds * 1000 + (int(fraction[:3].ljust(3, "0")) if fraction else 0)


# The times of a store lie on some thousand days.
@lru_cache(4_096)
def _days(text: str) -> int:
    year, month, day = map(int, text.split("-"))
    if year:
        return date(year, month, day).toordinal() - _EPOCH_ORDINAL
    # `date` begins at year 1; the calendar repeats every 400 years.
    return date(400, month, day).toordinal() - _DAYS_IN_400_YEARS - _EPOCH_ORDINAL
