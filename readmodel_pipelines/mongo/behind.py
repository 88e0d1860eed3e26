"""Writing behind: the server writes a batch while this process works on the next one."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread


class Behind:
    """Does one piece of work at a time, in a thread of this `name`, in the context of the caller.

    An error there is raised here, by the next call.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin a piece of work, after the one before."""
        self.wait()
        self._begun = begun = Future[None]()
        context = copy_context()

        def run() -> None:
            try:
                begun.set_result(context.run(work))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that needs it done
                begun.set_exception(error)

        # A daemon thread, so that the process does not wait for a server that is gone.
        Thread(target=run, name=self._name, daemon=True).start()

    def wait(self, at_most: float | None = None) -> None:
        """Wait for the end of what was begun, perhaps for a limited time in seconds.

        Raises:
            TimeoutError: it took longer.
        """
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result(at_most)
