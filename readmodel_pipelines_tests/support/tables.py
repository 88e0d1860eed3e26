"""Long tables: of a test that is marked with `each_once`, the default run has every line of every table once.

Where two tables cross, what is odd is odd by a line of one of them, and rarely by their meeting. So the default run
takes the fewest crossings in which each line comes up, spread over the lines of the others; `--whole` takes all of
them, and so does `make soak`. What is marked with `whole` is for that run alone.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

Line = tuple[int, str]
"""Which table it is in, and the id of it there."""


def those_of_a_run(items: Sequence[pytest.Item], *, whole: bool) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The tests that are run, in their order, and those that are left to the whole run."""
    if whole:
        return list(items), []
    left_out = {item.nodeid for item in items if item.get_closest_marker("whole")}
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.nodeid not in left_out and item.get_closest_marker("each_once") and hasattr(item, "callspec"):
            tables[item.nodeid.partition("[")[0]].append(item)
    for crossed in tables.values():
        chosen = each_once([tuple(enumerate(item.callspec._idlist)) for item in crossed])  # type: ignore[attr-defined]
        left_out |= {item.nodeid for number, item in enumerate(crossed) if number not in chosen}
    return [item for item in items if item.nodeid not in left_out], [item for item in items if item.nodeid in left_out]


def each_once(crossings: Sequence[Sequence[Line]]) -> set[int]:
    """The numbers of crossings in which every line comes up; those with most that is new first."""
    missing = {line for crossing in crossings for line in crossing}
    times: Counter[Line] = Counter()
    chosen: set[int] = set()

    def worth(number: int) -> tuple[int, int, int]:
        crossing = crossings[number]
        return len(missing.intersection(crossing)), -sum(times[line] for line in crossing), -number

    while missing:
        best = max(range(len(crossings)), key=worth)
        chosen.add(best)
        missing -= set(crossings[best])
        times.update(crossings[best])
    return chosen
