"""Progress of a long run, on stderr: a bar with rate and remaining time on a terminal, a line now and then elsewhere.

Nothing is imported or shown before the first report comes, which a run over one aggregate never sends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from readmodel_pipelines.cli.terminal.voice import SECONDS_BETWEEN_LINES, voice
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.progress import Progress, ProgressLines

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@contextmanager
def event_progress(label: str) -> Iterator[Progress]:
    """Show progress while the block runs; nothing of a bar stays behind."""
    if voice.quiet:
        yield lambda _done, _total, _counts: None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield ProgressLines(lambda line: voice.note(f"{label}: {line}"), every=SECONDS_BETWEEN_LINES)
        return
    bar = Bar(label)
    try:
        yield bar
    finally:
        bar.close()


class Bar:
    """A bar of rich's, which vanishes when it is closed."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._shown: tuple[RichProgress, TaskID] | None = None

    def __call__(self, done: int, total: int, counts: Mapping[str, Counts]) -> None:
        """Move the bar."""
        progress, task = self._shown = self._shown or self._show()
        rate = done / max(time.monotonic() - self._started, 1e-9)
        found = sum(each.checked - each.same for each in counts.values())
        progress.update(
            task,
            completed=done,
            total=max(total, done),
            rate=f"{rate:,.0f} events/s",
            found=f"{found:,} not same" if found else "",
        )

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
            TextColumn("{task.fields[found]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            # Redirecting would move what goes to stdout to stderr, the JSON document for one.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.start()
        return progress, progress.add_task(self._label, total=None, rate="", found="")
