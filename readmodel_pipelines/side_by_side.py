"""Independent queries at the same time, which together take one round trip. Imports nothing of this project."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any


def side_by_side(*queries: Callable[[], Any]) -> list[Any]:
    """The results in order; the first query runs in this thread, each other one in its own with the same context.

    An error is raised after all have ended, the first in order if there are several.
    """
    first, *others = queries
    with ThreadPoolExecutor(max(1, len(others)), thread_name_prefix="side by side") as threads:
        results = [threads.submit(copy_context().run, query) for query in others]
        return [first(), *(result.result() for result in results)]
