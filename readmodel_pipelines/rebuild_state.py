"""The states of a full rebuild with their transitions, and the strategies.

`Rebuilds.to` checks `MAY_FOLLOW` before it changes a record. A summary also has a state: the result of one run.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

Strategy = Literal["in_place", "shadow"]


class RebuildState(StrEnum):
    """The state of a rebuild."""

    BUILDING = "building"
    """Its ranges are in work."""
    FINISHING = "finishing"
    """All ranges are done; deletions, catch-up and, in a shadow, the gate follow."""
    SWAPPING = "swapping"
    """The shadow is right and replaces the live collection."""
    DONE = "done"
    REFUSED = "refused"
    """It stopped before it deleted or cut over: too many deletions, a wrong or missing shadow, or a replaced live
    collection.
    """
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    """The previous documents are being restored and updated."""
    ROLLED_BACK = "rolled_back"
    """The previous documents are restored."""
    PAUSED = "paused"
    """Only of a run: its window is over; the record keeps its state, and a resume continues it."""
    INTERRUPTED = "interrupted"
    """Only of a run: it was interrupted; the record keeps its state, and a resume continues it."""


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
