"""Progress of a long run, on stderr: a bar with rate and remaining time on a terminal, a line now and then elsewhere.

Nothing is imported or shown before the first report comes, which a run over one aggregate never sends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from readmodel_pipelines.cli.voice import voice

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Report = Callable[[int, int], None]
"""Takes the events read so far and about how many there are."""

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def event_progress(label: str) -> Iterator[Report]:
    """Show progress while the block runs; nothing of a bar stays behind."""
    if voice.quiet:
        yield lambda done, total: None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Lines(label, voice.note)
        return
    bar = Bar(label)
    try:
        yield bar
    finally:
        bar.close()


class Lines:
    """A line every few seconds, for logs."""

    def __init__(self, label: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._say = say
        self._clock = clock
        self._started = self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        """Say where it stands, if the last line is some time ago."""
        now = self._clock()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = done / (now - self._started)
        left = f", about {max(total - done, 0) / rate:,.0f} s left" if rate else ""
        self._say(f"{self._label}: {done:,} of about {max(total, done):,} events, {rate:,.0f} events/s{left}")


class Bar:
    """A bar of rich's, which vanishes when it is closed."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._shown: tuple[RichProgress, TaskID] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        progress, task = self._shown = self._shown or self._show()
        rate = done / max(time.monotonic() - self._started, 1e-9)
        progress.update(task, completed=done, total=max(total, done), rate=f"{rate:,.0f} events/s")

    def close(self) -> None:
        """Take the bar away."""
        if self._shown is not None:
            self._shown[0].stop()

    def _show(self) -> tuple[RichProgress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            # Redirecting would move what goes to stdout to stderr, the JSON document for one.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.start()
        return progress, progress.add_task(self._label, total=None, rate="")
