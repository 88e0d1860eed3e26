"""Words for people, the same wherever somebody reads them: numbers of things, spans of time, moments, long values.

Command line, doctor, checks, warnings and logs of runs say them with these; documents for programs never do. Imports
nothing of this project.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
# Of the longest text that is shown.
_SHOWN_BEFORE = 1 / 5


def count(number: int, one: str, many: str = "") -> str:
    """A number of things: `1 task`, `1,200 tasks`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def numbers(by_name: Mapping[str, int]) -> str:
    """What there is of several kinds: `9 same, 1 different`. What there is none of is left out."""
    return ", ".join(f"{number:,} {name}" for name, number in by_name.items() if number)


def span(seconds: float) -> str:
    """A length of time, in whole days, hours, minutes or seconds."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def moment(value: object) -> str:
    """A moment as MongoDB stores it, which is in UTC; what a record holds in its place is no time that is known."""
    # Not by a format, which leaves out the zeros of a year before 1000.
    return f"{value.isoformat(' ')[:19]} UTC" if isinstance(value, datetime) else "an unknown time"


def storable(text: str) -> str:
    """The text as databases, files and Dagster take it: half an emoji, or a byte that was no UTF-8, as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """What somebody else may have written, safe to be shown on one line of a terminal, a log or a page.

    Ends of lines, control characters, marks that turn the direction of writing and halves of characters are spelled
    out: nothing obeys them, and none forges a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def cut(text: str, longest: int) -> str:
    """The beginning of a text that is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def cut_where_they_part(one: str, other: str, longest: int) -> tuple[str, str]:
    """Two texts; long ones that begin alike would look alike, and begin a little before they part."""
    alike = _alike(one, other)
    before = int(longest * _SHOWN_BEFORE)
    if max(len(one), len(other)) > longest and alike > before:
        one, other = (f"…{text[alike - before :]}" for text in (one, other))
    return cut(one, longest), cut(other, longest)


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings; by halves, for texts of megabytes."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        half = (least + most + 1) // 2
        least, most = (half, most) if one[least:half] == other[least:half] else (least, half - 1)
    return least


class NowAndThen:
    """Whether it is time for a line of progress: at most one in `every` seconds, the first not before."""

    def __init__(self, every: float, now: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._now = now
        self._last = now()

    def __call__(self) -> bool:
        """True when it is, and then not for a while."""
        now = self._now()
        if now - self._last < self._every:
            return False
        self._last = now
        return True
