"""How fast a rebuild or a verification may go: so many events and documents a second, the server's load, the hours."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.pressure import Pressure
from readmodel_pipelines.pacing import BATCH_SECONDS, RateLimit, Window
from readmodel_pipelines.reconcile.ports import BATCH
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

    @property
    def first_batch(self) -> int:
        """How many streams may be done at once before it is known how long they take: what half a second pays for."""
        limits = [limit.per_second for limit in (self.events, self.documents) if limit.per_second is not None]
        return int(min([BATCH, *(limit * BATCH_SECONDS for limit in limits)]))

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
            self.has_asked()
        self.check_window()

    def has_asked(self) -> None:
        """The load is known for a moment."""
        self._asked_at = self.now()

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


def waiting(settings: Settings, database: Database, share: float = 1.0) -> Callable[[int], None]:
    """What is told the number of events that were read, by batch, and waits as long as limits and load ask for.

    The load is not asked for within the first second: most looks at few aggregates are over by then.
    """
    pace = pace_of(settings, database, share, off_peak=False)
    pace.has_asked()
    return lambda number: pace.wait(number, 0)


def paced(
    settings: Settings, database: Database, share: float = 1.0, tell: Callable[[int], None] | None = None
) -> Callable[[int], None]:
    """What an event store tells how many events it has read, for whom nobody else waits; hands it on to `tell`."""
    wait = waiting(settings, database, share)
    paid = 0

    def on_events(read: int) -> None:
        nonlocal paid
        number, paid = read - paid, read
        wait(number)
        if tell is not None:
            tell(read)

    return on_events
