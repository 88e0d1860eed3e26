"""The states of a full rebuild, and which may follow which; the strategies that there are.

`Rebuilds.to` asks `MAY_FOLLOW` before it changes a record. A summary has a state too: what one run's work came to.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

Strategy = Literal["in_place", "shadow"]


class RebuildState(StrEnum):
    """How far a rebuild is."""

    BUILDING = "building"
    """Its ranges are being worked on."""
    FINISHING = "finishing"
    """All ranges are done; deletions, catch-up and, in a shadow, the gate."""
    SWAPPING = "swapping"
    """The shadow is right and takes the place of the live collection."""
    DONE = "done"
    REFUSED = "refused"
    """It stopped before it deleted or swapped anything: too many deletions, a shadow that is not right or is gone, or a
    live collection that is another one by now."""
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    """What was before is being put in its place again, and brought up to date."""
    ROLLED_BACK = "rolled_back"
    """The read model is again what it was before."""
    PAUSED = "paused"
    """Of a run alone: its window was over; the record is where it was, and goes on when somebody resumes it."""
    INTERRUPTED = "interrupted"
    """Of a run alone: somebody ended it; the same holds."""


_AT_WORK_OR_REFUSED = (RebuildState.BUILDING, RebuildState.FINISHING, RebuildState.REFUSED)
MAY_FOLLOW: Mapping[RebuildState, tuple[RebuildState, ...]] = {
    RebuildState.BUILDING: (*_AT_WORK_OR_REFUSED, RebuildState.SWAPPING),
    RebuildState.FINISHING: _AT_WORK_OR_REFUSED,
    RebuildState.ABORTED: (*_AT_WORK_OR_REFUSED, RebuildState.SWAPPING),
    RebuildState.REFUSED: (RebuildState.FINISHING, RebuildState.SWAPPING),
    RebuildState.SWAPPING: (RebuildState.FINISHING, RebuildState.SWAPPING),
    RebuildState.DONE: (RebuildState.FINISHING, RebuildState.SWAPPING),
    RebuildState.ROLLING_BACK: (RebuildState.DONE, RebuildState.ROLLING_BACK, RebuildState.ROLLED_BACK),
    RebuildState.ROLLED_BACK: (RebuildState.ROLLING_BACK,),
    RebuildState.PAUSED: (),
    RebuildState.INTERRUPTED: (),
}
UNFINISHED = (
    *(RebuildState.BUILDING, RebuildState.FINISHING, RebuildState.SWAPPING, RebuildState.REFUSED),
    RebuildState.ROLLING_BACK,
)
