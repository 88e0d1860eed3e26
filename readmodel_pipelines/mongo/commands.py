"""What passes between this process and the server: commands with their times, and the servers it connects to.

Told in words, with no document in them. Worker processes have their own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from pymongo import monitoring


class Commands(monitoring.CommandListener, monitoring.ServerListener):
    """Counts and times of the commands that this process sent; of servers it only tells."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)

    def clear(self) -> None:
        """Count from now on."""
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
        """Nothing: what counts is how it ends."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """One more."""
        self._seconds[event.command_name].append(event.duration_micros / 1e6)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """One more, told at once."""
        self._seconds[event.command_name].append(event.duration_micros / 1e6)
        code = event.failure.get("code", "")
        self._tell(f"{event.command_name} failed after {event.duration_micros / 1e6:.3f} s: code {code}")

    def opened(self, event: monitoring.ServerOpeningEvent) -> None:
        """Nothing: it is not known yet what is there."""

    def closed(self, event: monitoring.ServerClosedEvent) -> None:
        """Nothing: it is the end of the connection."""

    def description_changed(self, event: monitoring.ServerDescriptionChangedEvent) -> None:
        """What is known of a server now."""
        host, port = event.server_address
        now: Any = event.new_description
        of = f" of replica set {now.replica_set_name}" if now.replica_set_name else ""
        took = f", answers in {now.round_trip_time * 1_000:.1f} ms" if now.round_trip_time is not None else ""
        self._tell(f"MongoDB at {host if port is None else f'{host}:{port}'}: {now.server_type_name}{of}{took}")


def overheard(tell: Callable[[str], None]) -> Commands:
    """The commands of every client that is made from now on; the driver has no way back."""
    commands = Commands(tell)
    monitoring.register(commands)
    return commands
