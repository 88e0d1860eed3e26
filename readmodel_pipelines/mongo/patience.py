"""Transient errors do not end a verb: it repeats until a primary answers, for a limited time, and reports it.

Only commands whose repetition is harmless are repeated, and reads that continue after their last result. Before a
server has answered once, there is no wait, because a wrong address must fail at once. After a wait that failed, the
steps of cleaning up do not wait again; the next answer ends that.

Only the verb's own thread waits, and threads that prefetch for it. Threads that renew leases or follow changes try
again by themselves.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo.errors import PyMongoError

from readmodel_pipelines.mongo.failures import REPLACED, is_glitch

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_WORTH_TELLING = 1.0

R = TypeVar("R")
T = TypeVar("T")


@dataclass
class Patience:
    """How long a verb waits for a server, in `seconds` per outage, and how it reports that.

    `met` says whether a server has answered yet; `repeats` counts repetitions. `takes_another` says whether a read
    continues with a collection that replaced the one it read.
    """

    seconds: float
    tell: Callable[[str], object] = lambda _: None
    met: bool = False
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    repeats: int = 0
    given_up: bool = False
    takes_another: bool = True


_current: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def retrying(patience: Patience) -> Iterator[None]:
    """Repeat commands in the block after transient errors."""
    before = _current.get()
    _current.set(patience)
    try:
        yield
    finally:
        # It may end in another thread than it began in, where nothing must be undone.
        _current.set(before)


@contextmanager
def ensure_retrying(seconds: float) -> Iterator[None]:
    """The same, if the database was opened without it."""
    with nullcontext() if _current.get() else retrying(Patience(seconds)):
        yield


@contextmanager
def of_the_same_collections() -> Iterator[None]:
    """In the block, a read ends if its collection is dropped, renamed or replaced."""
    patience = _current.get()
    if patience is not None:
        patience.takes_another = False
    try:
        yield
    finally:
        if patience is not None:
            patience.takes_another = True


@contextmanager
def report_waits_to(tell: Callable[[str], object]) -> Iterator[None]:
    """Report waits of a verb in the block to `tell`."""
    patience = _current.get()
    if patience is None:
        yield
        return
    before, patience.tell = patience.tell, tell
    try:
        yield
    finally:
        patience.tell = before


def report_waits_to_parent(do: Callable[[T, Callable[[Any], None]], R]) -> Callable[[T, Callable[[Any], None]], R]:
    """For a worker process: send messages about waits to its parent, which reports them."""

    def done(task: T, send: Callable[[Any], None]) -> R:
        with report_waits_to(send):
            return do(task, send)

    return done


def tell(line: str) -> None:
    """Report a wait of another process that works for this verb."""
    if (patience := _current.get()) is not None:
        patience.tell(line)


def waits() -> bool:
    """Whether a verb that repeats commands is at work here."""
    patience = _current.get()
    return patience is not None and patience.seconds > 0


def repeats() -> int:
    """The number of repetitions of this verb so far.

    If the number is the same before and after a write, the write ran once. Otherwise its first reply may be lost, and
    the last reply does not count all writes.
    """
    patience = _current.get()
    return 0 if patience is None else patience.repeats


class Attempts:
    """The attempts of one piece of work; `repeated` is true after the first.

    `client`, if given, is used to ask a new primary whether it is ready.
    """

    def __init__(self, client: Any = None) -> None:
        self._patience = _current.get()
        self._client = client
        self._since: float | None = None
        self._pause = _FIRST_PAUSE
        self._told = False
        self.repeated = False

    def failed(self, error: PyMongoError) -> None:
        """Wait until it may be tried again.

        Raises:
            PyMongoError: the error itself, if it is not transient or was waited for long enough.
        """
        patience = self._patience
        if patience is None or not patience.met or patience.given_up or not is_glitch(error):
            raise error
        replaced = getattr(error, "code", None) == REPLACED
        if replaced and not patience.takes_another:
            raise error
        now, is_first = patience.clock(), self._since is None
        self._since = now if self._since is None else self._since
        waited = now - self._since
        # Its replacement already exists.
        if waited >= patience.seconds and not (replaced and is_first):
            patience.given_up = True
            raise error
        patience.sleep(min(self._pause, patience.seconds - waited))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        patience.repeats += 1
        self.repeated = True
        self._await_majority()
        if patience.clock() - self._since >= _WORTH_TELLING and not self._told:
            self._told = True
            what = f"MongoDB does not answer ({_in_short(error)})"
            patience.tell(f"{what}. Waiting for it, up to {patience.seconds:g} s.")

    def _await_majority(self) -> None:
        """Wait until a new primary knows the majority's writes; before, a read could lack earlier writes."""
        patience, before = self._patience, None
        while self._client is not None and patience is not None:
            try:
                last = self._client.admin.command("hello").get("lastWrite") or {}
            except PyMongoError:
                # The work itself reports the error.
                return
            written, of_majority = last.get("opTime"), last.get("majorityOpTime")
            if not written or not of_majority:
                return
            before = before or written
            waited = patience.clock() - (self._since or 0.0)
            if of_majority["ts"] >= before["ts"] or waited >= patience.seconds:
                return
            patience.sleep(_FIRST_PAUSE)

    def done(self, result: R) -> R:
        """Record success."""
        self.went_on()
        return result

    def went_on(self) -> None:
        """Record progress: the next error belongs to another outage."""
        patience = self._patience
        if patience is None:
            return
        patience.met, patience.given_up = True, False
        if self._told and self._since is not None:
            patience.tell(f"MongoDB answers again after {patience.clock() - self._since:.1f} s. The work continues.")
        self._since, self._pause, self._told = None, _FIRST_PAUSE, False


def _in_short(error: PyMongoError) -> str:
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"error {code}"


def patiently(do: Callable[[], R], client: Any = None) -> R:
    """Do something repeatable, again after each transient error."""
    if _current.get() is None:
        return do()
    attempts = Attempts(client)
    while True:
        try:
            return attempts.done(do())
        except PyMongoError as error:
            attempts.failed(error)
