"""Reading beforehand: the server makes the next batch while this process works on the one before it."""

from collections.abc import Generator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


def beforehand(batches: Generator[T, None, None], name: str) -> Generator[T, None, None]:
    """The same batches, one of them ahead; the first is asked for at once, and not when somebody wants it.

    What is raised there is raised here, behind the batches before it. They are asked for in a thread of this `name`,
    with the context of whoever asks here.
    """
    wanted, given_up = Semaphore(), Event()
    got: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def read() -> None:
        try:
            while wanted.acquire() and not given_up.is_set():
                got.put((next(batches), None))
        except BaseException as error:  # noqa: BLE001 - whoever wants the batch is told, whatever it is
            got.put((None, error))
        finally:
            batches.close()

    # Nobody waits at the end of the process for a batch that nobody wants any more.
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
