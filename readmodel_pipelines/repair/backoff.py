"""Backoff: how long a failed repair waits for its next attempt. Exponential, capped, with full jitter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from readmodel_pipelines.settings import Settings


@dataclass(frozen=True, slots=True)
class Backoff:
    """After the nth failed attempt the wait is drawn evenly from 0 to `base * factor ** (n - 1)` seconds.

    Never from beyond `cap`; after as many failures as `attempts` there is none. The jitter keeps tasks that failed
    together, because a server was down for example, from coming back together.
    """

    base: float
    factor: float
    cap: float
    attempts: int

    def delays(self, draw: Callable[[float, float], float]) -> list[float]:
        """The waits in seconds after the first failed attempt, the second and so on; `draw` is `random.uniform`."""
        longest, delays = self.base, []
        for _ in range(self.attempts - 1):
            delays.append(draw(0.0, min(longest, self.cap)))
            # Grown no further than the cap, so that many attempts do not leave the range of floats.
            longest = min(longest * self.factor, self.cap)
        return delays


def backoff_of(settings: Settings) -> Backoff:
    """The backoff that the settings ask for."""
    return Backoff(
        settings.repair_backoff_seconds,
        settings.repair_backoff_factor,
        settings.repair_backoff_cap_seconds,
        settings.repair_attempts,
    )
