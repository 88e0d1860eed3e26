"""Words for people, the same everywhere: numbers of things, durations, times, long values.

Command line, doctor, checks, warnings and logs of runs use them; documents for programs never do. Imports nothing of
this project.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
# Length of the longest text that is shown.
_SHOWN_BEFORE = 1 / 5


def count(number: int, one: str, many: str = "") -> str:
    """A number of things: `1 task`, `1,200 tasks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def numbers(by_name: Mapping[str, int]) -> str:
    """The nonzero numbers of several kinds: `9 same, 1 different`."""
    return ", ".join(f"{number:,} {name}" for name, number in by_name.items() if number)


def span(seconds: float) -> str:
    """A duration in whole days, hours, minutes or seconds."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def moment(value: object) -> str:
    """A time as MongoDB stores it, in UTC; any other value in a record is an unknown time."""
    # Not by a format, which omits the zeros of a year before 1000.
    return f"{value.isoformat(' ')[:19]} UTC" if isinstance(value, datetime) else "an unknown time"


def storable(text: str) -> str:
    """The text in a form that databases, files and Dagster accept: half an emoji, or a byte that was no UTF-8, as its
    number.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """A foreign text in a form that is safe on one line of a terminal, a log or a page.

    Line ends, control characters, marks that change the direction of writing, and halves of characters are escaped. So
    none has an effect, and none forges a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def cut(text: str, longest: int) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def cut_at_difference(one: str, other: str, longest: int) -> tuple[str, str]:
    """Two texts; long ones with the same beginning would look alike, so they start shortly before their first
    difference.
    """
    alike = _alike(one, other)
    before = int(longest * _SHOWN_BEFORE)
    if max(len(one), len(other)) > longest and alike > before:
        one, other = (f"…{text[alike - before :]}" for text in (one, other))
    return cut(one, longest), cut(other, longest)


def _alike(one: str, other: str) -> int:
    """The length of the common beginning of two texts; by halves, for texts of megabytes."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        half = (least + most + 1) // 2
        least, most = (half, most) if one[least:half] == other[least:half] else (least, half - 1)
    return least


class Throttle:
    """Limits lines of progress: at most one in `every` seconds, and the first not before that."""

    def __init__(self, every: float, now: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._now = now
        self._last = now()

    def __call__(self) -> bool:
        """True if a line is due, and then not for a while."""
        now = self._now()
        if now - self._last < self._every:
            return False
        self._last = now
        return True
