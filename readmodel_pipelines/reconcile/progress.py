"""Progress of a pass over many events: the values reported, and the line that shows them."""

import time
from collections.abc import Callable, Mapping

from readmodel_pipelines.reconcile.outcome import Counts, Outcome
from readmodel_pipelines.wording import Throttle, numbers, span

Progress = Callable[[int, int, Mapping[str, Counts]], None]
"""Called at most once per batch, with the events read so far, their approximate total, and the counts so far by read
model. The counts keep changing, so copy them to keep them.
"""


class ProgressLines:
    """Reports the progress of a run, at most once in `every` seconds, because each line is an event in Dagster's
    storage.
    """

    def __init__(
        self, say: Callable[[str], object], *, every: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._now = now
        self._due = Throttle(every, now)
        # A resumed rebuild begins with the events that the earlier run had read.
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, counts: Mapping[str, Counts]) -> None:
        """Report the progress if the last line is old enough."""
        now = self._now()
        if self._first is None:
            self._first = now, done
        if not self._due():
            return
        passed, read = now - self._first[0], done - self._first[1]
        rate = read / passed if passed > 0 else 0.0
        pace = f", {rate:,.0f} events/s, about {span(max(total - done, 0) / rate)} left" if rate else ""
        told = "".join(f"; {name}: {outcomes_in_words(each)}" for name, each in counts.items() if each.checked)
        self._say(f"{done:,} of about {max(total, done):,} events read{pace}{told}.")


def outcomes_in_words(counts: Counts) -> str:
    """The outcomes so far; for a verification also the number of those to recheck."""
    settled = {outcome.value: int(getattr(counts, outcome.value)) for outcome in Outcome}
    return numbers({**settled, "to be compared again": max(0, counts.checked - sum(settled.values()))})
