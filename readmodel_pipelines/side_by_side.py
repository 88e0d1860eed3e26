"""Independent queries at the same time, which together take one round trip. Imports nothing of this project."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from threading import Thread
from typing import Any

_MOMENT = 1.0


def side_by_side(*queries: Callable[[], Any]) -> list[Any]:
    """The results in order; the first query runs in this thread, each other one in its own with the same context.

    An error is raised after all have ended, the first in order if there are several. An interruption is raised after a
    moment, because the server may build an index or copy a collection for hours.
    """
    first, *others = queries
    results = [_asked(query) for query in others]
    try:
        return [first(), *(result.result() for result in results)]
    except Exception:
        wait(results)
        raise
    except BaseException:
        wait(results, _MOMENT)
        raise


def _asked(query: Callable[[], Any]) -> Future[Any]:
    """Its result, from a thread that does not keep this process alive."""
    result: Future[Any] = Future()

    def ask() -> None:
        try:
            result.set_result(query())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks
            result.set_exception(error)

    Thread(target=copy_context().run, args=[ask], name="side by side", daemon=True).start()
    return result
