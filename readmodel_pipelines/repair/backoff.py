"""Backoff: how long a failed repair waits for its next attempt. Exponential, capped, with full jitter."""

from __future__ import annotations

from collections.abc import Callable

from readmodel_pipelines.settings import Settings


def delays(settings: Settings, draw: Callable[[float, float], float]) -> list[float]:
    """The waits in seconds after the first failed attempt, the second and so on; `draw` is `random.uniform`.

    That after the nth is drawn evenly from 0 to `repair_backoff_seconds * repair_backoff_factor ** (n - 1)`, never from
    beyond `repair_backoff_cap_seconds`; after the last of `repair_attempts` there is none. The jitter keeps tasks that
    failed together, because a server was down for example, from coming back together.
    """
    cap, longest, waits = settings.repair_backoff_cap_seconds, settings.repair_backoff_seconds, []
    for _ in range(settings.repair_attempts - 1):
        waits.append(draw(0.0, min(longest, cap)))
        # Grown no further than the cap, so that many attempts do not leave the range of floats.
        longest = min(longest * settings.repair_backoff_factor, cap)
    return waits
