"""An application at work in a process of its own: appends events at a rate, and projects each a moment later.

Some of its projections may fail, which nobody mends, and it may write a field of its own into documents. Prints how
many events it appended, which chats it projected too late, what it wrote into its field, and when its last projection
failed, by chat.
"""

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo

_OPEN_STREAMS = 400
_LATEST = 0.3
_SEED = 77_000


def main() -> None:
    """Write as asked, then tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("database")
    parser.add_argument("--rate", type=int, default=500, help="events per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--too-late", type=float, default=1.0, help="seconds after the event")
    parser.add_argument("--batch", type=int, default=25, help="events, each of another aggregate, appended at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failing", type=float, default=0.0, help="share of projections that fail")
    parser.add_argument("--own-field", default="", help="a field that no projection owns, to be written all along")
    arguments = parser.parse_args()
    settings = Settings(mongodb_uri=arguments.uri, database=arguments.database)
    print(json.dumps(write(settings, arguments)))


def write(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Append and project until the time is over; what waits for its projection is projected at the end."""
    chance = random.Random(arguments.seed)
    waiting: deque[tuple[float, float, list[str]]] = deque()
    appended = 0
    late: set[str] = set()
    own: dict[str, int] = {}
    failed: dict[str, float] = {}
    with open_database(settings) as database:
        projector = ReadModelProjector(database, settings)
        batches = in_batches(arguments.batch, _SEED + arguments.seed, chance)
        started = time.monotonic()
        while (now := time.monotonic() - started) < arguments.seconds or waiting:
            if now < arguments.seconds and appended < now * arguments.rate:
                events = next(batches)
                at = datetime.now(UTC)
                database.events.insert_many([{**event, "created_at": at, "occurred_at": at} for event in events])
                appended += len(events)
                ids = [event["aggregate_id"] for event in events]
                waiting.append((now, now + chance.uniform(0, _LATEST), ids))
            elif waiting and waiting[0][1] <= now:
                since, _, ids = waiting.popleft()
                fails = {item for item in ids if chance.random() < arguments.failing}
                projector.rebuild_some([item for item in ids if item not in fails])
                failed |= dict.fromkeys(fails, time.time())
                if arguments.own_field:
                    write_own(database, arguments.own_field, chance.choice(ids), own)
                if time.monotonic() - started - since > arguments.too_late:
                    late.update(ids)
            else:
                time.sleep(0.001)
    return {"events": appended, "late": sorted(late), "own": own, "failed": failed}


def write_own(database: Mongo, field: str, chat_id: str, own: dict[str, int]) -> None:
    """Count up in a document, if it is there."""
    value = own.get(chat_id, 0) + 1
    wanted = {"$set": {f"{field}.count": value}, "$push": {f"{field}.all": value}}
    if database.chats_read_model.update_one({"chat_id": chat_id}, wanted).matched_count:
        own[chat_id] = value


def in_batches(size: int, seed: int, chance: random.Random) -> Iterator[list[dict[str, Any]]]:
    """The next events of some streams each time, all of different streams that grow side by side."""
    streams = groupby(chat_events(10**9, seed=seed, mean_events=12), key=itemgetter("aggregate_id"))
    unfinished = (list(events)[::-1] for _, events in streams)
    growing: list[list[dict[str, Any]]] = []
    while True:
        growing = [stream for stream in growing if stream]
        growing += islice(unfinished, _OPEN_STREAMS - len(growing))
        yield [stream.pop() for stream in chance.sample(growing, size)]


if __name__ == "__main__":
    main()
