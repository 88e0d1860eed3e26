"""Pieces of work in turn: a thread does them while the next one is prepared. Imports nothing of this project."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from threading import BoundedSemaphore, Thread
from types import TracebackType

_MOMENT = 1.0


class InTurn:
    """Does what it is given in a thread, one piece after another, and has at most `most` unfinished ones.

    An error there is raised here, whenever a piece is given, all are waited for, or the block ends; nothing is done
    after it. A block that fails waits for the piece that is at work, an interrupted one for a moment, and no other is
    begun.
    """

    def __init__(self, most: int) -> None:
        self._room = BoundedSemaphore(most)
        self._failed: BaseException | None = None
        self._last: Future[None] | None = None

    def __call__(self, piece: Callable[[], object]) -> Callable[[], None]:
        """Do this piece after the earlier ones, in the context of the caller; returns what waits for it."""
        self._room.acquire()
        if self._failed is not None:
            self._room.release()
            raise self._failed
        before, self._last = self._last, Future()
        # It does not keep this process alive.
        Thread(
            target=copy_context().run, args=[self._do, piece, before, self._last], name="in turn", daemon=True
        ).start()
        return self._last.result

    def wait(self, at_most: float | None = None) -> None:
        """Wait until all pieces are done, perhaps for a limited time in seconds.

        Raises:
            TimeoutError: they took longer.
        """
        if self._last is not None:
            self._last.result(at_most)
        self._raise()

    def __enter__(self) -> "InTurn":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._failed = self._failed or error
        if self._last is not None:
            wait([self._last], None if error is None or isinstance(error, Exception) else _MOMENT)
        if error is None:
            self._raise()

    def _do(self, piece: Callable[[], object], before: Future[None] | None, done: Future[None]) -> None:
        try:
            if before is not None:
                before.result()
            if self._failed is None:
                piece()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that gives the pieces
            self._failed = error
        finally:
            self._room.release()
            done.set_result(None)

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed
