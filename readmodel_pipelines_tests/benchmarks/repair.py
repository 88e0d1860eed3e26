"""What repairing through the queue costs, as ratios measured in one run. `make bench-more`.

The repair of 1,000 due tasks over 1,000 aggregates against reconciling those aggregates in one bulk pass; a claim from
a queue that holds 1,000,000 completed tasks against one from a queue that holds none. Best or median of some rounds,
taken in turn. Embedded server; all indexes; majority write concern.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from readmodel_pipelines import RepairQueue, RepairWorker
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.repair.claim import Holder, claim
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.benchmarks.measuring import Best, bench_server
from readmodel_pipelines_tests.benchmarks.reconcile import fill
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.repairing import task

AGGREGATES = 1_000
CLAIMED = 100


def main() -> None:
    """Run the benchmarks and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completed", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with bench_server() as settings:
        repairs(settings, arguments.rounds)
        claims(settings, arguments.completed, 3 * arguments.rounds)


def repairs(settings: Settings, rounds: int) -> None:
    """A queue of 1,000 tasks, each of another aggregate with damaged documents, against one bulk pass over them."""
    with open_database(settings) as database:
        fill(database, settings, chat_events(AGGREGATES))
        projector = ReadModelProjector(database, settings)
        projector.rebuild_all()
        ids = [document["chat_id"] for document in database.chats_read_model.find({}, {"chat_id": 1})]
        best = Best()
        for _ in range(rounds):
            _damage(database)
            best.timed("bulk", lambda: projector.rebuild_some(ids))
            _damage(database)
            _queue(database, ids)
            summary = best.timed("repair", RepairWorker(database, settings).work)
            if summary.completed != AGGREGATES or not projector.verify_all().ok:
                raise SystemExit(f"not repaired: {summary}")
    bulk, repair = best["bulk"], best["repair"]
    print(f"{AGGREGATES:,} aggregates in one bulk pass     {bulk:7.3f} s")
    print(f"{AGGREGATES:,} due tasks repaired              {repair:7.3f} s   {AGGREGATES / repair:,.0f} tasks/s")
    print(f"repair through the queue           {repair / bulk:6.2f} x the bulk pass, less than 5")


def claims(settings: Settings, completed: int, rounds: int) -> None:
    """Find what is due, lease and take it: from a queue without completed tasks, and from one with very many."""
    seconds: dict[str, list[float]] = {"none": [], "many": []}
    with open_database(settings) as database:
        ids = [document["chat_id"] for document in database.chats_read_model.find({}, {"chat_id": 1})]
        queues = {name: settings.model_copy(update={"database": f"bench_{name}"}) for name in seconds}
        concerns: dict[str, Any] = {"read_concern": database.read_concern, "write_concern": database.write_concern}
        databases = {name: database.client.get_database(queue.database, **concerns) for name, queue in queues.items()}
        for name, item in databases.items():
            fill(item, queues[name], [])
        _complete(databases["many"], ids, completed)
        for _ in range(rounds):
            for name, item in databases.items():
                _queue(item, random.sample(ids, CLAIMED))
                seconds[name].append(_claim(item, queues[name]))
        stats = Best()
        for name, item in databases.items():
            stats.timed(name, RepairQueue(item, queues[name]).stats)
    none, many = (statistics.median(seconds[name]) for name in ("none", "many"))
    print(f"claim {CLAIMED} of {CLAIMED}, none completed        {none:7.4f} s")
    print(
        f"the same beside {completed:,} completed {many:7.4f} s   stats {stats['many']:.3f} s ({stats['none']:.3f} s)"
    )
    print(f"slower by                          {100 * (many / none - 1):6.1f} %, less than 20")


def _claim(database: Mongo, settings: Settings) -> float:
    queue = RepairQueue(database, settings)
    started = time.perf_counter()
    due = queue.due(CLAIMED)
    with claim(database, queue, "chat", due.aggregates["chat"], Holder("bench", "", 60)) as claimed:
        seconds = time.perf_counter() - started
        if queue.complete(claimed.ids, claimed.token) != CLAIMED:
            raise SystemExit("not every task was claimed")
    return seconds


def _damage(database: Mongo) -> None:
    database.chats_read_model.update_many({}, {"$set": {"title": "damaged"}})


def _queue(database: Mongo, ids: Sequence[str]) -> None:
    now = datetime.now(UTC)
    database.repair_queue.insert_many([task(aggregate_id, created_at=now) for aggregate_id in ids])


def _complete(database: Mongo, ids: Sequence[str], completed: int) -> None:
    """Tasks that were completed within the last ten days, of the same aggregates that are claimed next."""
    now = datetime.now(UTC)
    for start in range(0, completed, 10_000):
        batch = []
        for position in range(start, min(start + 10_000, completed)):
            ended = now - timedelta(seconds=position % 864_000)
            done = {"created_at": ended, "status": "completed", "completed_at": ended, "claimed_by": "a run"}
            batch.append(task(ids[position % len(ids)], **done))
        database.repair_queue.insert_many(batch, ordered=False)


if __name__ == "__main__":
    main()
