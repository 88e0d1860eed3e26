"""Progress of a pass over many events: what is told meanwhile, and how it reads as a line now and then."""

import time
from collections.abc import Callable, Mapping

from readmodel_pipelines.reconcile.outcome import Counts, Outcome
from readmodel_pipelines.wording import NowAndThen, numbers, span

Progress = Callable[[int, int, Mapping[str, Counts]], None]
"""Told, once for each batch at most, the events read so far, about how many there are, and what was counted so far by
read model. The counts go on counting: whoever keeps them copies them."""


class ProgressLines:
    """Says how far a run is, at most once in `every` seconds: each line is an event in Dagster's storage, for one."""

    def __init__(
        self, say: Callable[[str], object], *, every: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._now = now
        self._due = NowAndThen(every, now)
        # A rebuild that goes on where another run was begins with what that one had read.
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, counts: Mapping[str, Counts]) -> None:
        """Say where it stands, if the last line is some time ago."""
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
    """The outcomes that there are; of a verification also what is not told yet because it is looked at again."""
    settled = {outcome.value: int(getattr(counts, outcome.value)) for outcome in Outcome}
    return numbers({**settled, "to be looked at again": max(0, counts.checked - sum(settled.values()))})
