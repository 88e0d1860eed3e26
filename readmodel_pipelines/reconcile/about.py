"""The subject of a run: its rebuilds, or the coverage and other results of a verification.

Decisions use these values; their words and JSON are only for display. A field is None if it does not apply.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from readmodel_pipelines.rebuild_state import RebuildState, Strategy

Tier = Literal["documents", "versions"]

_FARTHEST_LAST = (
    *(RebuildState.DONE, RebuildState.ROLLED_BACK, RebuildState.ABORTED, RebuildState.BUILDING),
    *(RebuildState.PAUSED, RebuildState.REFUSED, RebuildState.INTERRUPTED),
)


@dataclass(slots=True)
class RebuildOutcome:
    """One rebuild: its id, read models and state. `already_done`: it was finished before this slice came."""

    id: str | None = None
    strategy: Strategy | None = None
    caught_up: int | None = None
    state: RebuildState | None = None
    already_done: Literal[True] | None = None
    read_models: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """The known values, as plain JSON types."""
        said = {
            "rebuild": self.id,
            "strategy": self.strategy,
            "caught_up": self.caught_up,
            "state": self.state and self.state.value,
            "already_done": self.already_done,
        }
        return {name: value for name, value in said.items() if value is not None}


def of_all(outcomes: Sequence[RebuildOutcome]) -> RebuildOutcome:
    """The state of several rebuilds: that of the least finished one, and the total of documents caught up."""
    told = [item for item in outcomes if item.state is not None] or outcomes
    if not told:
        return RebuildOutcome()
    # The last of equally finished ones, which was at work when the run ended.
    worst = max(reversed(told), key=lambda item: _FARTHEST_LAST.index(item.state or RebuildState.DONE))
    caught_up = [item.caught_up for item in outcomes if item.caught_up is not None]
    return replace(worst, caught_up=sum(caught_up) if caught_up else None)


@dataclass(slots=True)
class VerificationScope:
    """The coverage of a verification in words, the number of queued repairs, and the written reports.

    `young` describes, also in words, the recent events by which the aggregates were chosen, if any. `look` is the kind
    of coverage in one word; numbers of one kind are comparable.
    """

    tier: Tier | None = None
    coverage: str | None = None
    everything: bool = True
    started_at: datetime | None = None
    queued: int | None = None
    pending_already: int | None = None
    reports: list[str] | None = None
    young: str = ""
    look: str = ""
