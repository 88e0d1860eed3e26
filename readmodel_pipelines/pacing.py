"""Pacing: how fast a long run works, how much at once, and when, so that it leaves the server to the application.

Clocks and sleeping are parameters. What is not used of a limit while idle is not saved up for later.
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
"""So long a batch ought to take, waiting included."""

_WEIGHT = 0.3
_CLOCK_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])"
_WINDOW = re.compile(rf"\s*{_CLOCK_TIME}\s*-\s*{_CLOCK_TIME}\s*")


@dataclass
class RateLimit:
    """At most `per_second` (above 0) of something over time, from the first on; None is no limit, and never waits."""

    per_second: float | None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        self._paid_until = self.clock()

    def spend(self, number: int) -> None:
        """Wait until these are paid for, by the time that they took and by waiting for the rest of it."""
        if self.per_second is None:
            return
        now = self.clock()
        # Not the time when sleep came back, which is always a bit late and would add up.
        self._paid_until = max(now, self._paid_until + number / self.per_second)
        if self._paid_until > now:
            self.sleep(self._paid_until - now)


class BatchSize:
    """How many to take at once, so that a batch takes about `target_seconds` whatever the server can do now.

    What a batch takes on its way, however small it is, comes on top: `on_its_way` gives these seconds. From `least` to
    `most`, and at most doubled from one batch to the next.
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
        # Averages of both and not of their quotient: a slow batch counts by its length, and a tiny one hardly at all.
        self._number = float(self._size)
        self._seconds = target_seconds

    @property
    def size(self) -> int:
        """How many to take next."""
        return self._size

    def took(self, number: int, seconds: float) -> None:
        """So many took so long, waiting aside."""
        self._number += _WEIGHT * (number - self._number)
        self._seconds += _WEIGHT * (seconds - self._seconds)
        # A clock may not move at all during a batch.
        working = self._seconds - min(self._on_its_way(), 0.9 * self._seconds)
        fitting = self._number / max(working, 1e-9) * self._target_seconds
        self._size = int(min(self._most, 2 * self._size, max(self._least, fitting)))


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of a day in which a run may work, by the clock on the wall; they may cross midnight.

    When the clocks change, an hour that comes twice counts twice, and one that is left out is left out.
    """

    start: datetime.time
    end: datetime.time
    timezone: ZoneInfo

    @classmethod
    def parse(cls, text: str, timezone: str) -> Window:
        """From the form `22:00-06:00`.

        Raises:
            UsageError: it is none, or there is no such time zone.
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
                f"There is no time zone {timezone!r}.", hint="Take a name of the IANA database such as Europe/Vienna."
            ) from None

    def is_open(self, now: datetime.datetime) -> bool:
        """Whether an aware moment lies in it: from the start on, before the end."""
        wall = now.astimezone(self.timezone).time()
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.timezone}"
