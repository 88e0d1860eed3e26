"""The garbage collector during a full pass.

A pass creates millions of short-lived small dicts and no cycles. The cyclic collector would scan them and every loaded
module again and again, for about a third of a verification's time. So it stays on, but runs rarely.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RARE = (50_000, 20, 100)

_lock = threading.Lock()
_passes = 0
_before: tuple[int, int, int] = (0, 0, 0)


@contextmanager
def calm_collector() -> Iterator[None]:
    """Make the collector run rarely; the first of overlapping passes does that, and the last one restores it."""
    global _passes, _before
    with _lock:
        _passes += 1
        if _passes == 1:
            _before = gc.get_threshold()
            gc.freeze()
            gc.set_threshold(*_RARE)
    try:
        yield
    finally:
        with _lock:
            _passes -= 1
            if _passes == 0:
                gc.set_threshold(*_before)
                gc.unfreeze()
