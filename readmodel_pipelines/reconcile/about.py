"""What a run was about: the rebuilds that it worked on, or what a verification covered and did besides looking.

Whoever decides asks these values; their words and JSON are for showing. A field is None where there is nothing to say.
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
    """Which rebuild, of which read models, and how far. `already_done`: it was, before this slice came."""

    id: str | None = None
    strategy: Strategy | None = None
    caught_up: int | None = None
    state: RebuildState | None = None
    already_done: Literal[True] | None = None
    read_models: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """What there is to say of it, of plain JSON types."""
        said = {
            "rebuild": self.id,
            "strategy": self.strategy,
            "caught_up": self.caught_up,
            "state": self.state and self.state.value,
            "already_done": self.already_done,
        }
        return {name: value for name, value in said.items() if value is not None}


def of_all(outcomes: Sequence[RebuildOutcome]) -> RebuildOutcome:
    """What several rebuilds come to: that one which is farthest from done, and the documents caught up with in all."""
    told = [item for item in outcomes if item.state is not None] or outcomes
    if not told:
        return RebuildOutcome()
    # The last one of those that are equally far: it was at work when the run ended.
    worst = max(reversed(told), key=lambda item: _FARTHEST_LAST.index(item.state or RebuildState.DONE))
    caught_up = [item.caught_up for item in outcomes if item.caught_up is not None]
    return replace(worst, caught_up=sum(caught_up) if caught_up else None)


@dataclass(slots=True)
class VerificationScope:
    """What was looked at, `coverage` in words; how many repairs were queued; the reports that were written.

    `young` says, in words too, which events the aggregates were chosen by, if by such; `look` is the kind of looking in
    a word, whose numbers are comparable.
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
