"""Prefetching: the server prepares the next batch while this process works on the previous one."""

from collections.abc import Generator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


def beforehand(batches: Generator[T, None, None], name: str) -> Generator[T, None, None]:
    """The same batches, one of them prefetched; the first is requested at once, before it is needed.

    An error there is raised here, after the batches before it. The batches are requested in a thread of this `name`, in
    the context of the caller.
    """
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

    # A daemon thread, so that the process does not wait for a batch that is no longer needed.
    Thread(target=copy_context().run, args=[read], name=name, daemon=True).start()
    return _handed_on(got, wanted, given_up)


def _handed_on(
    got: "SimpleQueue[tuple[T | None, BaseException | None]]", wanted: Semaphore, given_up: Event
) -> Generator[T, None, None]:
    try:
        while True:
            batch, error = got.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.release()
            yield batch  # type: ignore[misc]
    finally:
        given_up.set()
        wanted.release()
