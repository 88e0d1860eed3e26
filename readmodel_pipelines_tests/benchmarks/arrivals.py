"""How soon `readmodel repair-queue work` mends what comes, at some rates of tasks. `make bench-more`.

A worker in a process of its own; from the insert of a task to its completion, by the clock of this machine, which is
the server's too. The goals are half of them within 100 ms and 99 of 100 within a second at 200 tasks/s, and 1,000
tasks/s sustained. The tasks come from here, on the same processors: what that takes is told too.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any

from readmodel_pipelines.bookkeeping.presence import is_attended
from readmodel_pipelines.cli import main as command_line
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks.measuring import bench_server
from readmodel_pipelines_tests.benchmarks.processes import cpu_seconds
from readmodel_pipelines_tests.benchmarks.reconcile import fill
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.repairing import task
from readmodel_pipelines_tests.support.waiting import wait_until

_EVERY_SECONDS = 0.01


def main() -> None:
    """Run the benchmark and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rates", type=int, nargs="+", default=[1, 200, 1_000], help="tasks a second")
    arguments = parser.parse_args()
    with bench_server() as settings, open_database(settings) as database:
        fill(database, settings, chat_events(arguments.chats))
        ReadModelProjector(database, settings).rebuild_all()
        ids = [chat["chat_id"] for chat in database.chats_read_model.find({}, {"chat_id": 1})]
        processes = {"server": database.client.admin.command("serverStatus")["pid"], "this": os.getpid()}
        with _worker(settings, database) as worker:
            processes["worker"] = worker
            for rate in arguments.rates:
                before = {name: cpu_seconds(pid) for name, pid in processes.items()}
                _put(database, ids, rate, arguments.seconds)
                put = cpu_seconds(processes["this"]) - before.pop("this")
                _tell(database, rate)
                took = {name: cpu_seconds(processes[name]) - seconds for name, seconds in before.items()}
                tasks = rate * arguments.seconds / 1e6
                print(", ".join(f"{name} {spent / tasks:,.0f}" for name, spent in took.items()), end="")
                print(f", put {put / tasks:,.0f} µs of the processor a task")


@contextmanager
def _worker(settings: Settings, database: Mongo) -> Iterator[int]:
    """The id of its process."""
    uri = settings.mongodb_uri
    environment = {
        **os.environ,
        "READMODEL_MONGODB_URI": uri.get_secret_value() if uri else "",
        "READMODEL_DATABASE": settings.database,
    }
    command = [sys.executable, "-m", command_line.__name__, "repair-queue", "work", "--every", "60"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_attended(database, settings.repair_queue_collection))
            yield process.pid
        finally:
            process.terminate()


def _put(database: Mongo, ids: list[str], rate: int, seconds: float) -> None:
    """Break so many documents a second, and leave a task for each."""
    database.repair_queue.delete_many({})
    rest, put, started = cycle(ids), 0, time.perf_counter()
    while put < rate * seconds:
        due = int((time.perf_counter() - started) * rate) + 1 - put
        if due > 0:
            some = list(islice(rest, due))
            database.chats_read_model.update_many({"chat_id": {"$in": some}}, {"$set": {"title": "broken"}})
            now = datetime.now(UTC)
            database.repair_queue.insert_many([task(item, created_at=now) for item in some], ordered=False)
            put += due
        time.sleep(_EVERY_SECONDS)


def _tell(database: Mongo, rate: int) -> None:
    started = time.perf_counter()
    wait_until(lambda: not database.repair_queue.count_documents({"status": {"$ne": "completed"}}))
    late = time.perf_counter() - started
    took: list[dict[str, Any]] = [
        {"$project": {"took": {"$subtract": ["$completed_at", "$created_at"]}}},
        {"$sort": {"took": 1}},
    ]
    waited = [task["took"] for task in database.repair_queue.aggregate(took)]
    half, most = waited[len(waited) // 2], waited[len(waited) * 99 // 100]
    print(f"{rate:5,} tasks/s, {len(waited):6,} tasks: p50 {half} ms, p99 {most} ms, done {late:.1f} s behind the last")


if __name__ == "__main__":
    main()
