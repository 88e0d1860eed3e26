"""Round trips of what is asked on the way of a piece of work: commands that are sent, and not answered unasked.

What is followed in the background goes on beside the work, as long as that takes, and is counted apart.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pymongo import monitoring


class RoundTrips(monitoring.CommandListener):
    """`asked` counts the commands of the main thread by name and collection, `beside` those of others."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        self._counts = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count anew while the block runs, in clients that are made in it or after this listener."""
        self.asked.clear()
        self.beside.clear()
        self._counts = True
        try:
            yield
        finally:
            self._counts = False

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        # The server sends the next batch of its own accord: the driver tells of it without a request.
        if not self._counts or not event.request_id or event.command_name == "endSessions":
            return
        of_main = threading.current_thread() is threading.main_thread()
        where = event.command.get("collection") or event.command.get(event.command_name)
        (self.asked if of_main else self.beside)[f"{event.command_name} {where}"] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Every command counts when it starts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Every command counts when it starts."""
