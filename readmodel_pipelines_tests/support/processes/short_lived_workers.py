"""Workers that live short: each is forked from this process, works off the repair queue, and is killed in the middle.

A process of its own, because pytest's has threads and connections that no fork should inherit. Imports are paid once.
Prints how many workers were killed, and how many of these in the middle of a repair.
"""

import argparse
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence

from readmodel_pipelines import RepairQueue, RepairWorker
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.settings import Settings


def main() -> None:
    """Let workers live and die, then tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest", type=float, default=0.15, help="seconds of work until a worker dies, at most")
    parser.add_argument("--lease", type=float, default=0.3)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--deadly", default="", help="the aggregate whose repair kills the worker")
    arguments = parser.parse_args()
    settings = Settings(mongodb_uri=arguments.uri, database=arguments.database)
    print(json.dumps(die_of_one(settings, arguments) if arguments.deadly else die_at_random(settings, arguments)))


def die_at_random(settings: Settings, arguments: argparse.Namespace) -> dict[str, int]:
    """Kill so many workers, each at a random moment; then one lives until all is done.

    Every third dies while it begins. The others are let come to their first repair, however slow the machine is.
    """
    moments = random.Random(arguments.seed)
    at_work = 0
    for number in range(arguments.kills):
        told, tells = os.pipe()
        child = _worker(settings, arguments, Moment.REPAIR, lambda ids, to=tells: os.write(to, b"."))
        os.close(tells)
        at_work += bool(number % 3 and os.read(told, 1))
        time.sleep(moments.uniform(0.0, arguments.longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
    last = _worker(settings, arguments, until_done=True)
    os.waitpid(last, 0)
    return {"killed": arguments.kills, "at_work": at_work}


def die_of_one(settings: Settings, arguments: argparse.Namespace) -> dict[str, int]:
    """Workers one after the other, until one comes back; leases expire between them."""

    def die(ids: Sequence[str]) -> None:
        if arguments.deadly in ids:
            os.kill(os.getpid(), signal.SIGKILL)

    lives = 0
    while True:
        lives += 1
        _, status = os.waitpid(_worker(settings, arguments, Moment.REPAIR, die), 0)
        if os.WIFEXITED(status):
            return {"killed": lives - 1}
        _expire(settings)


def _worker(
    settings: Settings,
    arguments: argparse.Namespace,
    moment: Moment = Moment.REPAIRS,
    act: Callable[..., object] = lambda: None,
    *,
    until_done: bool = False,
) -> int:
    child = os.fork()
    if child:
        return child
    with listening(moment, act), open_database(settings) as database:
        worker = RepairWorker(database, settings, batch_size=arguments.batch, lease_seconds=arguments.lease)
        worker.work()
        while until_done and RepairQueue(database, settings).stats().open:
            time.sleep(0.05)
            worker.work()
    os._exit(0)


def _expire(settings: Settings) -> None:
    """In a process of its own: a client here would be forked into the next worker."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    with open_database(settings) as database:
        long_ago = [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}]
        database[LEASES].update_many({"_id": {"$regex": "^repair:"}}, long_ago)
        database.repair_queue.update_many({"status": "processing"}, [{"$set": {"lease_until": "$$NOW"}}])
    os._exit(0)


if __name__ == "__main__":
    main()
