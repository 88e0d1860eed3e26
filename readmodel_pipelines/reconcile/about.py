"""What a run was about: the rebuild that it worked on, or what a verification covered and did besides looking.

Whoever decides asks these values; their words and JSON are for showing. A field is None where there is nothing to say.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from readmodel_pipelines.rebuild_state import RebuildState, Strategy

Tier = Literal["documents", "versions"]

_FARTHEST_LAST = tuple(map(RebuildState, ("done", "aborted", "building", "paused", "refused")))


@dataclass(slots=True)
class RebuildOutcome:
    """Which rebuild, the last one of several groups, and how far. `already_done`: it was, before this slice came."""

    id: str | None = None
    strategy: Strategy | None = None
    caught_up: int | None = None
    state: RebuildState | None = None
    already_done: Literal[True] | None = None

    def reached(self, state: RebuildState) -> None:
        """Of several groups that one counts which is farthest from done."""
        self.state = max(self.state or RebuildState.DONE, state, key=_FARTHEST_LAST.index)


@dataclass(slots=True)
class VerificationScope:
    """What was looked at, `coverage` in words; how many repairs were queued; the reports that were written."""

    tier: Tier | None = None
    coverage: str | None = None
    everything: bool = True
    started_at: datetime | None = None
    queued: int | None = None
    pending_already: int | None = None
    reports: list[str] | None = None
