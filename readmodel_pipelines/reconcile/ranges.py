"""Ranges of aggregate ids: the parts in which a large read model is reconciled, in parallel or in turn.

Ranges are half-open. Those of a split hold every text exactly once, in order; the first and the last are open-ended;
there is at least one. Ids are compared byte by byte, as MongoDB does, and need not be UUIDs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from readmodel_pipelines.events.ids import is_utf8


@dataclass(frozen=True, slots=True)
class IdRange:
    """The ids from `lower` on that come before `upper`; None is an open end."""

    lower: str | None = None
    upper: str | None = None

    def __str__(self) -> str:
        if self.lower is None:
            return "all ids" if self.upper is None else f"ids before {self.upper}"
        return f"ids from {self.lower} on" if self.upper is None else f"ids from {self.lower} to before {self.upper}"


EVERYTHING = IdRange()


def split(samples: Iterable[str], parts: int) -> list[IdRange]:
    """At most `parts` ranges with about the same number of events each.

    `samples` are the aggregate ids of random events, so that an aggregate with many events counts for more. One
    aggregate is never split, so few or uneven samples give fewer ranges.
    """
    # Python's order is byte order for valid UTF-8, and MongoDB cannot be asked for any other text.
    ordered = sorted(item for item in samples if is_utf8(item))
    quantiles = [ordered[len(ordered) * number // parts] for number in range(1, parts) if ordered]
    # Before the smallest sample there would be an empty range.
    bounds = [None, *sorted(set(quantiles) - set(ordered[:1])), None]
    return [IdRange(lower, upper) for lower, upper in pairwise(bounds)]
