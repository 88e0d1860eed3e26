"""How fast a rebuild may go, and when: a run waits, or stops cleanly, between its batches alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.pacing import RateLimit, Window
from readmodel_pipelines.settings import Settings

_LOOK_AGAIN = timedelta(seconds=1)
_NEVER = datetime.fromtimestamp(0, UTC)


class WindowClosed(Exception):
    """The off-peak window is over: the run stops here, cleanly."""


@dataclass(slots=True)
class Pace:
    """How fast a run may go: limits for events and documents, the server's load, and the hours of the day."""

    events: RateLimit = field(default_factory=lambda: RateLimit(None))
    documents: RateLimit = field(default_factory=lambda: RateLimit(None))
    load: Pressure | None = None
    window: Window | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], object] = time.sleep
    _asked_at: datetime = _NEVER

    def wait(self, events: int, documents: int) -> None:
        """Wait after a batch as long as limits and load ask for.

        Raises:
            WindowClosed: the hours are over, also while it waits.
        """
        self.check_window()
        self.events.spend(events)
        self.documents.spend(documents)
        # A load that was low a moment ago is not asked for again: batches may be short. A clock may be set back.
        if self.load is not None and abs(self.now() - self._asked_at) >= _LOOK_AGAIN:
            while self.load.reason_to_wait():
                self.check_window()
                self.sleep(_LOOK_AGAIN.total_seconds())
            self._asked_at = self.now()
        self.check_window()

    def check_window(self) -> None:
        """Raises `WindowClosed` outside of it."""
        if self.window is not None and not self.window.is_open(self.now()):
            raise WindowClosed


def window_of(settings: Settings, off_peak: bool) -> Window | None:
    """The hours to which a run is kept, if it is."""
    return Window.parse(settings.off_peak_window, settings.timezone) if off_peak else None


def pace_of(settings: Settings, database: Database, share: float, off_peak: bool) -> Pace:
    """The pace that the settings ask for, as a worker's share of it."""

    def limit(per_second: float | None) -> RateLimit:
        return RateLimit(None if per_second is None else per_second * share)

    load = Pressure(
        database, max_queued=settings.max_queued_operations, max_lag_seconds=settings.max_replication_lag_seconds
    )
    limits = limit(settings.max_events_per_second), limit(settings.max_documents_per_second)
    return Pace(*limits, load, window_of(settings, off_peak))
