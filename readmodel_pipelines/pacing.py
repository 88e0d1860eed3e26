"""Pacing: the speed, batch size and hours of a long run, so that the application keeps enough of the server.

Clocks and sleeping are parameters. Unused allowance is not saved for later.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from readmodel_pipelines.errors import UsageError

BATCH_SECONDS = 0.5
"""Target duration of a batch in seconds, including waits."""

_WEIGHT = 0.3
_CLOCK_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(rf"\s*{_CLOCK_TIME}\s*-\s*{_CLOCK_TIME}\s*")


@dataclass
class RateLimit:
    """At most `per_second` (above 0) on average, from the first on; None is no limit and never waits."""

    per_second: float | None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        self._paid_until = self.clock()

    def spend(self, number: int) -> None:
        """Wait until these are allowed; the time that they took counts."""
        if self.per_second is None:
            return
        now = self.clock()
        # Not the time after the sleep, which is always a little late and would add up.
        self._paid_until = max(now, self._paid_until + number / self.per_second)
        if self._paid_until > now:
            self.sleep(self._paid_until - now)


class BatchSize:
    """The number of items per batch, so that a batch takes about `target_seconds` at the server's current speed.

    A batch also has a fixed cost: `on_its_way` returns it in seconds. The size is from `least` to `most`, and at most
    doubles from one batch to the next.
    """

    def __init__(
        self,
        target_seconds: float = BATCH_SECONDS,
        first: int = 1_000,
        least: int = 50,
        most: int = 20_000,
        on_its_way: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._target_seconds = target_seconds
        self._on_its_way = on_its_way
        self._least = least
        self._most = most
        self._size = min(most, max(least, first))
        # Averages of both numbers and not of their quotient, so that a slow batch counts by its length and a tiny one
        # hardly.
        self._number = float(self._size)
        self._seconds = target_seconds

    @property
    def size(self) -> int:
        """The size of the next batch."""
        return self._size

    def took(self, number: int, seconds: float) -> None:
        """Record the size and duration of a batch, without waits."""
        self._number += _WEIGHT * (number - self._number)
        self._seconds += _WEIGHT * (seconds - self._seconds)
        # A clock may not advance at all during a batch.
        working = self._seconds - min(self._on_its_way(), 0.9 * self._seconds)
        fitting = self._number / max(working, 1e-9) * self._target_seconds
        self._size = int(min(self._most, 2 * self._size, max(self._least, fitting)))


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of a day in which a run may work, in local time; they may cross midnight.

    When the clocks change, a repeated hour counts twice, and a skipped hour does not count.
    """

    start: datetime.time
    end: datetime.time
    timezone: ZoneInfo

    @classmethod
    def parse(cls, text: str, timezone: str) -> Window:
        """Parse the form `22:00-06:00`.

        Raises:
            UsageError: the text is no window, or the time zone does not exist.
        """
        match = _WINDOW.fullmatch(text)
        hours = [int(part) for part in match.groups()] if match else [0, 0, 0, 0]
        start, end = (datetime.time(hour, minute) for hour, minute in (hours[:2], hours[2:]))
        if start == end:
            raise UsageError(
                f"{text!r} is no time window.",
                hint="Give it as HH:MM-HH:MM with two different times from 00:00 to 23:59, for example 22:00-06:00.",
            )
        try:
            return cls(start, end, ZoneInfo(timezone))
        except (KeyError, ValueError, OSError):
            raise UsageError(
                f"There is no time zone {timezone!r}.", hint="Give a name of the IANA database such as Europe/Vienna."
            ) from None

    def is_open(self, now: datetime.datetime) -> bool:
        """Whether an aware time lies in it: from the start, before the end."""
        wall = now.astimezone(self.timezone).time()
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.timezone}"
