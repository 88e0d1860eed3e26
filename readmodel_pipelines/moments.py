"""Named moments of the work, announced by the code that does it, so that a test can act at one of them.

Only tests listen. A moment belongs to a batch, a command or a phase, never to a document or an event, so an
announcement costs nothing. An exception of a listener is raised in the work, as if it had failed there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any


class Moment(Enum):
    """Each comes right before the step it names, unless it says that the step is done."""

    # Reading
    LOOK = auto()
    LOOK_AT_FRESH = auto()
    SPOOLED = auto()
    EVENTS = auto()
    DOCUMENTS = auto()
    SECOND_COMPARISON = auto()
    COMPARISON_AGAIN = auto()
    # Writing
    APPEND = auto()
    WRITE = auto()
    TRANSACTION = auto()
    SHADOW_COPY = auto()
    # Leases
    LEASE_TAKEN = auto()
    LEASE_ASKED_FOR = auto()
    LEASE_RENEWED = auto()
    # Repairs
    REPAIRS = auto()
    REPAIR = auto()
    # A rebuild's ranges
    INDEX_BUILD = auto()
    REBUILD_BEGUN = auto()
    RANGES = auto()
    BATCH_WRITTEN = auto()
    BATCH_SAVED = auto()
    RANGE_DONE = auto()
    # Changes during a rebuild
    HISTORY_ASKED_FOR = auto()
    HISTORY_READ = auto()
    DRAINED = auto()
    TOUCHED_GIVEN = auto()
    TOUCHED_WORKED_OFF = auto()
    TOUCHED_FORGOTTEN = auto()
    # A rebuild's end
    FINISH = auto()
    SECOND_PASS_BEGUN = auto()
    SHADOW_INDEXES = auto()
    DELETIONS_COUNTED = auto()
    GATE = auto()
    GATE_PASSED = auto()
    COPY_MADE = auto()
    LAST_LOOK_DONE = auto()
    FOREIGN_APPLIED = auto()
    SWAP = auto()
    SWAPPED = auto()


_listeners: dict[Moment, list[Callable[..., object]]] = {}


def reached(moment: Moment, **facts: Any) -> None:
    """Call the listeners of this moment."""
    for act in tuple(_listeners.get(moment, ())):
        act(**facts)


@contextmanager
def listening(moment: Moment, act: Callable[..., object]) -> Iterator[None]:
    """Call `act` with the facts of the moment, each time, while the block runs; the newest listener is called first."""
    listeners = _listeners.setdefault(moment, [])
    listeners.insert(0, act)
    try:
        yield
    finally:
        listeners.remove(act)
