"""A claim: the leases of some aggregates and their due tasks, taken and released together.

At the end of its block every task is completed, failed or released. An interruption, a lost lease or a lost server
releases the rest as if it had not been taken. Any other error looks like a crash and counts as one: the next claim sees
that leases and tasks were lost.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.errors import LeaseLost, MongoUnavailable, OutOfOrder, UnsuitableCollection
from readmodel_pipelines.mongo.driver import ConnectionFailure, Database, OperationFailure, PyMongoError, ServerTime
from readmodel_pipelines.mongo.failures import codes_of, is_the_servers

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Holder:
    """The claimer: `name` goes into the tasks (a run id), `owner` into the leases, which last `lease_seconds`."""

    name: str
    owner: str
    seconds: float


@dataclass(slots=True)
class Claim:
    """`ids` are the claimed aggregates, of one type of stream; `tasks` is the number of their tasks.

    `token` is stored in the tasks. `still_ours` is called before every write, and raises `LeaseLost` if another process
    may have taken over. Its user counts in `ended` the tasks that need no release.
    """

    ids: Sequence[str]
    tasks: int
    token: str
    still_ours: Callable[[], None]
    ended: int = 0


@contextmanager
def claim(
    database: Database,
    queue: RepairQueue,
    stream: str,
    ids: Sequence[str],
    holder: Holder,
    task_ids: Sequence[str] = (),
    now: ServerTime | None = None,
) -> Iterator[Claim]:
    """Lease the free ones of these aggregates, then take their tasks due `now`; released in the opposite order."""
    held = list(ids)
    leases = Leases(
        database,
        holder.seconds,
        f"repair by {holder.name}",
        holder.owner,
        also_renew=lambda: queue.renew(held, leases.nonce, holder.seconds),
    )
    try:
        with _answered():
            leases.acquire([lease_of(stream, aggregate_id) for aggregate_id in ids], now)
        held[:] = [name.rpartition(":")[2] for name in leases.nonces]
        with leases.kept():
            claimed = Claim(held, 0, leases.nonce, leases.check)
            with _answered():
                if held:
                    due_at = now.at if now else None
                    mark = (leases.nonce, holder.name, holder.seconds)
                    claimed.tasks = queue.claim(stream, held, *mark, task_ids, due_at)
            yield claimed
        if claimed.ended < claimed.tasks:
            queue.give_back(held, leases.nonce)
        leases.delete()
    except BaseException as error:
        # An interruption may come at any line, also while leasing or releasing; the nonce identifies our leases.
        with suppress(PyMongoError):
            if _is_nobodys_fault(error):
                _give_up(queue, leases, held)
            else:
                queue.free(holder.name)
                leases.abandon()
        raise


@contextmanager
def _answered() -> Iterator[None]:
    """Delay a signal until the reply, because the server would execute a claim that is already released.

    A second signal is not delayed. Signals interrupt only the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {int(number): handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    came: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            before[number](number, frame)

    for number in before:
        signal.signal(number, later)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _give_up(queue: RepairQueue, leases: Leases, ids: Sequence[str]) -> None:
    queue.give_back(ids, leases.nonce)
    leases.delete()


def lease_of(stream: str, aggregate_id: str) -> str:
    """The name of an aggregate's lease."""
    return f"repair:{stream}:{aggregate_id}"


def _is_nobodys_fault(error: BaseException) -> bool:
    if isinstance(error, OperationFailure):
        return any(map(is_the_servers, codes_of(error)))
    of_all = LeaseLost | ConnectionFailure | MongoUnavailable | OutOfOrder | UnsuitableCollection
    return not isinstance(error, Exception) or isinstance(error, of_all)
