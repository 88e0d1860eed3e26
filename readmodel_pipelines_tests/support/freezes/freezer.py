"""To freeze a client of the driver: right before one of the commands that write is sent, with all that it sends then.

The threads that use the client stand still as those of a paused virtual machine do: no clock of theirs tells them that
they did. What they wake up to is whatever others did meanwhile.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient, monitoring

from readmodel_pipelines.mongo.driver import Database, ours
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.races.frozen import writes

_LONGEST = 240.0
IsIt = Callable[[monitoring.CommandStartedEvent], bool]
"""Whether a command is the one before which to fall asleep."""


class Freezer(monitoring.CommandListener):
    """StoredState still before the command that `is_it` says it is, until somebody thaws it."""

    def __init__(self, is_it: IsIt) -> None:
        self._is_it = is_it
        self._lock = threading.Lock()
        self.frozen = threading.Event()
        self._thawed = threading.Event()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        with self._lock:
            if not self.frozen.is_set() and not self._thawed.is_set() and self._is_it(event):
                self.frozen.set()
        if self.frozen.is_set():
            self._thawed.wait(_LONGEST)

    def thaw(self) -> None:
        self._thawed.set()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def nth_write(number: int) -> IsIt:
    """Whether it is the n-th command that writes."""
    seen = 0

    def is_it(event: monitoring.CommandStartedEvent) -> bool:
        nonlocal seen
        seen += writes(event)
        return writes(event) and seen == number

    return is_it


def command(name: str, of: str, number: int = 1) -> IsIt:
    """Whether it is the n-th command of that name on a collection, or onto one, whose name begins so."""
    seen = 0

    def is_it(event: monitoring.CommandStartedEvent) -> bool:
        nonlocal seen
        target = str(event.command.get("to") or event.command.get(name)).rpartition(".")[2]
        is_one = event.command_name == name and target.startswith(of) and writes(event)
        seen += is_one
        return is_one and seen == number

    return is_it


class Sleeper:
    """Something at work in a thread of its own, with a client that freezes; `told` is what it gave, or raised."""

    def __init__(self, freezer: Freezer, work: Callable[[], Any]) -> None:
        self._freezer = freezer
        self._work = work
        self.told: Any = None
        self._thread = threading.Thread(target=self._do, daemon=True)
        self._ended = threading.Event()
        self._thread.start()

    def _do(self) -> None:
        try:
            self.told = self._work()
        except BaseException as error:  # noqa: BLE001 - whoever asks looks at it
            self.told = error
        finally:
            self._ended.set()

    def is_frozen(self) -> bool:
        """Once it is either frozen or at its end."""
        while not self._freezer.frozen.wait(0.005):
            if self._ended.is_set():
                return self._freezer.frozen.is_set()
        return True

    def wake_up(self) -> Any:
        """Let it go on to its end; gives what it tells then."""
        self._freezer.thaw()
        self._thread.join(_LONGEST)
        assert not self._thread.is_alive()
        return self.told


@contextmanager
def asleep(settings: Settings, work: Callable[[Database], Any], is_it: IsIt) -> Iterator[Sleeper]:
    """Something at work with a client of its own."""
    freezer = Freezer(is_it)
    with MongoClient[dict[str, Any]](uri_of(settings), event_listeners=[freezer]) as client:
        database = ours(client[settings.database])
        sleeper = Sleeper(freezer, lambda: work(database))
        try:
            yield sleeper
        finally:
            sleeper.wake_up()
