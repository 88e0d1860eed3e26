"""Prefetching: the server prepares the next batch while this process works on the previous one."""

from collections.abc import Generator, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


class Beforehand(Iterator[T]):
    """The same batches, one of them prefetched; the first is requested at once, before it is needed.

    An error there is raised here, after the batches before it. The batches are requested in a thread of this `name`, in
    the context of the caller.
    """

    def __init__(self, batches: Generator[T, None, None], name: str) -> None:
        wanted, given_up = Semaphore(), Event()
        got: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

        def read() -> None:
            try:
                while wanted.acquire() and not given_up.is_set():
                    got.put((next(batches), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that needs the batch
                got.put((None, error))
            finally:
                batches.close()

        self._wanted, self._given_up, self._got = wanted, given_up, got
        # A daemon thread, so that the process does not wait for a batch that is no longer needed.
        Thread(target=copy_context().run, args=[read], name=name, daemon=True).start()

    def __next__(self) -> T:
        batch, error = self._got.get()
        if error is not None:
            # The next call raises it too.
            self._got.put((None, error))
            raise error
        self._wanted.release()
        return batch  # type: ignore[return-value]

    def close(self) -> None:
        """Request no further batch."""
        self._given_up.set()
        self._wanted.release()

    # The thread has no reference to this object, so it ends when the object is no longer used.
    __del__ = close
