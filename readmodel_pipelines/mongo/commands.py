"""Statistics of the commands between this process and the server, and of its connections.

Reported as text without documents. Worker processes have their own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pymongo import monitoring


class Commands(monitoring.CommandListener, monitoring.ServerListener):
    """Counts and times of the commands that this process sent, and messages about its servers."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def clear(self) -> None:
        """Reset the counts."""
        self._seconds.clear()

    def in_words(self) -> Iterator[str]:
        """A line for all, and one for each command, the slowest first."""
        every = sorted(self._seconds.items(), key=lambda item: -sum(item[1]))
        if every:
            total = sum(len(times) for _, times in every)
            yield f"{total:,} commands of this process, {sum(sum(times) for _, times in every):.3f} s of the server:"
        for name, times in every:
            yield f"  {name:<16} {len(times):>7,}  {sum(times):>9.3f} s  slowest {max(times):.3f} s"

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Does nothing, because only the end of a command counts."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Count a command."""
        self._seconds[event.command_name].append(event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Count a failed command, and report it at once."""
        self._seconds[event.command_name].append(event.duration_micros / 1e6)
        code = event.failure.get("code", "")
        self._tell(f"{event.command_name} failed after {event.duration_micros / 1e6:.3f} s: code {code}")

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        """Does nothing, because the server is not known yet."""

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        """Does nothing, because the connection ends."""

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        """Report the new state of a server."""
        host, port = event.server_address
        now: Any = event.new_description
        of = f" of replica set {now.replica_set_name}" if now.replica_set_name else ""
        took = f", answers in {now.round_trip_time * 1_000:.1f} ms" if now.round_trip_time is not None else ""
        self._tell(f"MongoDB at {host if port is None else f'{host}:{port}'}: {now.server_type_name}{of}{took}")


def overheard(tell: Callable[[str], None]) -> Commands:
    """The commands of every client created from now on; the driver cannot remove a listener."""
    commands = Commands(tell)
    monitoring.register(commands)
    return commands
