"""The garbage collector during a full pass.

A pass makes millions of small dicts that die young and no cycles at all; the cyclic collector would walk them, and
every module loaded, over and over: about a third of a verify's time. It stays on, with rare rounds.
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
    """Let the collector rest; the first of overlapping passes calms it, the last one restores it."""
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
