"""Times in events: RFC 3339 text to whole milliseconds since 1970, cut towards the past.

Milliseconds are plain integers and not `datetime` objects: year 1 with an offset lies before Python's first date,
and Python's own parsers stop at microseconds. The rule is DATA_CONTRACT.md, «Times».
"""

from __future__ import annotations

import re
from datetime import date

ZERO_TIME_MS = -62_135_596_800_000
"""0001-01-01T00:00:00Z, the application's «no time»."""

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAYS_IN_400_YEARS = 146_097


def parse_time(text: str) -> int:
    """Milliseconds since 1970-01-01T00:00:00Z of an RFC 3339 time, rounded down.

    Takes 0 to 9 fraction digits, `Z` or an offset up to ±23:59, and `t` or `z` in lower case (RFC 3339, section 5.6).

    Raises:
        ValueError: anything else, second 60 among it: a leap second has no place among milliseconds since 1970.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    year, month, day, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    if hour > "23" or minute > "59" or second > "59":
        raise ValueError("hour, minute or second out of range")
    seconds = _days(int(year), int(month), int(day)) * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    if sign:
        if offset_hour > "23" or offset_minute > "59":
            raise ValueError("offset beyond 23:59")
        offset = int(offset_hour) * 3600 + int(offset_minute) * 60
        seconds += offset if sign == "-" else -offset
    # A fraction only ever adds to the second, so that cutting its digits is rounding down, before 1970 too.
    return seconds * 1000 + (int(fraction[:3].ljust(3, "0")) if fraction else 0)


def _days(year: int, month: int, day: int) -> int:
    if year:
        return date(year, month, day).toordinal() - _EPOCH_ORDINAL
    # `date` begins at year 1; the calendar repeats every 400 years.
    return date(400, month, day).toordinal() - _DAYS_IN_400_YEARS - _EPOCH_ORDINAL
