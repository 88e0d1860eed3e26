"""To wait for what comes, for conditions and never for times: the machine may be slow."""

import time
from collections.abc import Callable


def wait_until(true: Callable[[], object], seconds: float = 240.0, *, every: float = 0.25) -> None:
    """Raises AssertionError when it does not come to be so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come to be so in {seconds:.0f} s"
        time.sleep(every)
