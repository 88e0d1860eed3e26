"""Progress of a long run on stderr: a bar with rate and remaining time at a terminal, a line every few seconds
elsewhere.

Nothing is imported or shown before the first report, and a run over one aggregate sends none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from readmodel_pipelines.cli.terminal.voice import SECONDS_BETWEEN_LINES, voice
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.progress import Progress, ProgressLines

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


@contextmanager
def event_progress(label: str) -> Iterator[Progress]:
    """Show progress while the block runs, and remove the bar at its end."""
    if voice.quiet:
        yield lambda _done, _total, _counts: None
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield ProgressLines(lambda line: voice.note(f"{label}: {line}"), every=SECONDS_BETWEEN_LINES)
        return
    from readmodel_pipelines.mongo.patience import report_waits_to

    started = time.monotonic()
    bar: RichProgress | None = None

    def move(done: int, total: int, counts: Mapping[str, Counts]) -> None:
        nonlocal bar
        bar = bar or _bar(label)
        found = sum(each.checked - each.same for each in counts.values())
        rate = done / max(time.monotonic() - started, 1e-9)
        bar.update(
            bar.task_ids[0],
            completed=done,
            total=max(total, done),
            rate=f"{rate:,.0f} events/s",
            found=f"{found:,} not same" if found else "",
        )

    def wait(line: str) -> None:
        if bar is None:
            voice.note(line)
        else:
            # Above the bar, not inside it.
            bar.console.print(line, markup=False, highlight=False)

    try:
        with report_waits_to(wait):
            yield move
    finally:
        if bar:
            bar.stop()


def _bar(label: str) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[found]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # A redirect would move stdout, for example the JSON document, to stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task(label, total=None, rate="", found="")
    bar.start()
    return bar
