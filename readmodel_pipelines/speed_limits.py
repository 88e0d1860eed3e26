"""The speed of a rebuild or a verification: events and documents per second, the server's load, the hours."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.pacing import BATCH_SECONDS, RateLimit, Window
from readmodel_pipelines.reconcile.ports import BATCH
from readmodel_pipelines.settings import Settings

_LOOK_AGAIN = timedelta(seconds=1)
_NEVER = datetime.fromtimestamp(0, UTC)


class WindowClosed(ReadModelError):
    """The off-peak window is over: a rebuild pauses, and a verification ends without a result."""


@dataclass(slots=True)
class Pace:
    """The speed limits of a run: for events and documents, by the server's load, and by the hours of the day."""

    events: RateLimit = field(default_factory=lambda: RateLimit(None))
    documents: RateLimit = field(default_factory=lambda: RateLimit(None))
    load: Pressure | None = None
    window: Window | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], object] = time.sleep
    _asked_at: datetime = _NEVER

    @property
    def first_batch(self) -> int:
        """The number of streams of the first batch, whose duration is unknown: as many as half a second allows."""
        limits = [limit.per_second for limit in (self.events, self.documents) if limit.per_second is not None]
        return int(min([BATCH, *(limit * BATCH_SECONDS for limit in limits)]))

    def wait(self, events: int, documents: int) -> None:
        """Wait after a batch as long as limits and load demand.

        Raises:
            WindowClosed: the window is over, also during the wait.
        """
        self.check_window()
        self.events.spend(events)
        self.documents.spend(documents)
        # A load that was low a moment ago is not read again, because batches may be short. A clock may be set back.
        if self.load is not None and abs(self.now() - self._asked_at) >= _LOOK_AGAIN:
            while self.load.reason_to_wait():
                self.check_window()
                self.sleep(_LOOK_AGAIN.total_seconds())
            self.has_asked()
        self.check_window()

    def has_asked(self) -> None:
        """Record that the load is known for a moment."""
        self._asked_at = self.now()

    def check_window(self) -> None:
        """Raise `WindowClosed` outside of it."""
        if self.window is not None and not self.window.is_open(self.now()):
            raise WindowClosed(
                f"It is outside of the off-peak window {self.window}, so the work stopped before its end.",
                hint="Run it again in the window. A verification of what changed (--since last) or of a part "
                "(--bucket) needs less time; READMODEL_OFF_PEAK_WINDOW sets the window.",
            )


def window_of(settings: Settings, off_peak: bool) -> Window | None:
    """The window of a run, if it has one."""
    return Window.parse(settings.off_peak_window, settings.timezone) if off_peak else None


def pace_of(settings: Settings, database: Database, share: float, off_peak: bool) -> Pace:
    """The limits of the settings, as a worker's share of them."""

    def limit(per_second: float | None) -> RateLimit:
        return RateLimit(None if per_second is None else per_second * share)

    load = Pressure(
        database, max_queued=settings.max_queued_operations, max_lag_seconds=settings.max_replication_lag_seconds
    )
    limits = limit(settings.max_events_per_second), limit(settings.max_documents_per_second)
    return Pace(*limits, load, window_of(settings, off_peak))


def waiting(
    settings: Settings, database: Database, share: float = 1.0, *, off_peak: bool = False
) -> Callable[[int], None]:
    """Called with the number of events read, per batch; waits as long as limits and load demand.

    The load is not read within the first second, because most passes over few aggregates end before. Outside of the
    window an `off_peak` one raises `WindowClosed`.
    """
    pace = pace_of(settings, database, share, off_peak)
    pace.has_asked()
    return lambda number: pace.wait(number, 0)
