"""What a slow network costs: round trips and seconds of each verb with 0, 5 and 50 ms on the way. `make bench-more`.

20,000 events of 1,000 chats by default; one process. The goal is as many round trips at each distance, and at 5 ms at
most 1.5 times what it takes at 0 ms and the round trips' own. What is followed in the background counts apart.
"""

import argparse
import time
from collections.abc import Callable

from pydantic import SecretStr
from pymongo import monitoring

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.benchmarks.measuring import bench_server
from readmodel_pipelines_tests.benchmarks.reconcile import appended, empty, fill
from readmodel_pipelines_tests.support.round_trips import RoundTrips
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.servers.slow_line import slow_line

Verb = Callable[[Mongo, Settings], object]
VERBS: dict[str, Verb] = {
    "rebuild into empty": lambda at, settings: rebuild(at, settings, [], RebuildRequest()),
    "rebuild of healthy": lambda at, settings: rebuild(at, settings, [], RebuildRequest()),
    "shadow": lambda at, settings: rebuild(at, settings, [], RebuildRequest("shadow")),
    "verify": lambda at, settings: verify(at, settings, [], VerificationRequest()),
    "verify versions": lambda at, settings: verify(at, settings, [], VerificationRequest(tier="versions")),
    "verify one": lambda at, settings: ReadModelProjector(at, settings).verify_consistency(_one(at)),
    "100 repairs": lambda at, settings: RepairWorker(at, settings).work(),
}


def main() -> None:
    """Run the benchmark and print each figure as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=1_000)
    parser.add_argument("--distances", type=float, nargs="+", default=[0.0, 5.0, 50.0], help="milliseconds one way")
    arguments = parser.parse_args()
    listening = RoundTrips()
    monitoring.register(listening)
    with bench_server() as server:
        near = server.model_copy(update={"workers": 1})
        uri = near.mongodb_uri
        assert uri is not None
        with open_database(near) as database:
            fill(database, near, appended(arguments.chats))
        for distance in arguments.distances:
            with slow_line(uri.get_secret_value(), distance / 1000) as line:
                far = near.model_copy(update={"mongodb_uri": SecretStr(line.uri)})
                with open_database(near) as database:
                    empty(database, near)
                for what, verb in VERBS.items():
                    if what == "100 repairs":
                        _break(near)
                    _measured(f"{distance:4g} ms  {what:20}", verb, far, listening)


def _measured(what: str, verb: Verb, settings: Settings, listening: RoundTrips) -> None:
    started = time.perf_counter()
    with listening.counted(), open_database(settings) as database:
        verb(database, settings)
    seconds = time.perf_counter() - started
    print(f"{what} {listening.asked.total():4} round trips, {listening.beside.total():4} beside, {seconds:6.2f} s")


def _one(database: Mongo) -> str:
    return str((database.chats_read_model.find_one() or {})["chat_id"])


def _break(settings: Settings) -> None:
    with open_database(settings) as database:
        ids = [chat["chat_id"] for chat in database.chats_read_model.find({}, {"chat_id": 1}, limit=100)]
        database.chats_read_model.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken"}})
        RepairQueue(database, settings).add_many(ids, "chat", "")


if __name__ == "__main__":
    main()
