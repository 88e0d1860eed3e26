"""Failovers of a real replica set while verbs work and an application writes: no verb ends, and nothing is wrong."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.scene import Scene, event
from readmodel_pipelines_tests.support.servers.three_members import ThreeMembers
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers

Failover = Callable[[ThreeMembers], None]

FAILOVERS: Mapping[str, Failover] = {
    "stepdown": ThreeMembers.step_down,
    "freeze": lambda them: them.freeze(15.0),
    "kill": ThreeMembers.kill,
    "cut off": ThreeMembers.cut_off_primary,
}
_PROJECTED = 0.5
_QUEUED = 0.2
_LAST_WRITE = 60.0


@dataclass
class Application:
    """Appends to chats by majority, each event once, and leaves half of the documents as they were."""

    uri: str
    settings: Settings
    seed: int
    appended: int = 0
    last: dict[str, float] = field(default_factory=dict)
    """When a chat got its last event, by the clock of this process."""

    def write(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        chance = random.Random(self.seed)
        with MongoClient[Any](self.uri) as client:
            database = client[self.settings.database]
            events = database.get_collection("events", write_concern=WriteConcern("majority"))
            groups = events.aggregate([{"$group": {"_id": "$aggregate_id", "last": {"$max": "$version"}}}])
            versions: dict[str, int] = {group["_id"]: group["last"] for group in groups}
            chats = sorted(versions)
            projector = ReadModelProjector(database, self.settings)
            queue = RepairQueue(database, self.settings)
            while not stop.wait(0.005):
                chat = chance.choice(chats)
                versions[chat] += 1
                renamed = {"new_title": f"title {self.appended}", "old_title": "", "renamed_by": "u"}
                self._append(events, event(chat, "Chat", versions[chat], "chat.renamed", renamed))
                if chance.random() < _PROJECTED:
                    _tried(lambda chat=chat: projector.rebuild_some([chat]))  # type: ignore[misc]
                elif chance.random() < _QUEUED:
                    _tried(lambda chat=chat: queue.add(chat, "chat"))  # type: ignore[misc]

    def _append(self, events: Any, document: dict[str, Any]) -> None:
        while True:
            # Before it is there: whoever looks later than this has to see it.
            self.last[document["aggregate_id"]] = time.monotonic()
            try:
                events.insert_one(document)
            except DuplicateKeyError:
                # It was appended, and the reply was lost.
                assert events.find_one({"_id": document["_id"]})
            except PyMongoError:
                time.sleep(0.05)
                continue
            self.last[document["aggregate_id"]] = time.monotonic()
            self.appended += 1
            return


def _tried(do: Callable[[], object]) -> None:
    """What an application does once, and does not do again."""
    try:
        do()
    except PyMongoError:
        return


@dataclass
class Held:
    """What came of it."""

    verbs: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    events: int = 0


def outlasted(
    them: ThreeMembers,
    failovers: list[str],
    seed: int,
    *,
    chats: int,
    report: Callable[[str], object],
    workers: int = 1,
) -> Held:
    """Have these failovers, one after the other, while every verb works. Raises what a verb does not outlast."""
    held, chance = Held(), random.Random(seed)
    settings = Settings(
        mongodb_uri=them.uri,
        database=f"failovers_{ObjectId()}",
        workers=workers,
        catch_up_seconds=5,
        max_events_per_second=4_000,
    )
    with open_database(settings, tell=lambda line: held.waits.update([line.partition("(")[0]])) as database:
        ensure_indexes(database, settings)
        database.events.insert_many(list(chat_events(chats, seed=seed, mean_events=8)))
        assert ReadModelProjector(database, settings).rebuild_all(strategy="shadow").ok
        application = Application(them.uri, settings, seed)
        with _beside(application):
            thread = threading.Thread(target=_fail_over, args=(them, failovers, chance, report), daemon=True)
            thread.start()
            verbs = _verbs(database, settings, application, random.Random(seed))
            while thread.is_alive():
                held.verbs[next(verbs)] += 1
            thread.join()
        held.events = application.appended
        assert rebuild(database, settings, (), RebuildRequest()).ok
        assert ReadModelProjector(database, settings).verify_all().ok
        stored = database.events.count_documents({})
        assert stored == sum(1 for _ in chat_events(chats, seed=seed, mean_events=8)) + application.appended
        assert leftovers(Scene(database, settings)) == []
        database.client.drop_database(database.name)
    return held


def _fail_over(
    them: ThreeMembers, failovers: list[str], chance: random.Random, report: Callable[[str], object]
) -> None:
    for number, name in enumerate(failovers, 1):
        time.sleep(chance.uniform(0.1, 3.0))
        FAILOVERS[name](them)
        them.wait_until_whole()
        report(f"{number} {name}")


@contextmanager
def _beside(application: Application) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=application.write, args=[stop], daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LAST_WRITE)


def _verbs(database: Database, settings: Settings, application: Application, chance: random.Random) -> Iterator[str]:
    """Do one verb after the other; after a rebuild nothing is wrong that was appended before its last look."""
    looked = 0.0

    def look(**_: Any) -> None:
        nonlocal looked
        looked = time.monotonic()

    kinds = ["in_place", "shadow", "verify", "what changed", "repair"]
    chance.shuffle(kinds)
    while True:
        for kind in kinds:
            match kind:
                case "in_place" | "shadow" as strategy:
                    with listening(Moment.HISTORY_READ, look):
                        summary = rebuild(database, settings, (), RebuildRequest(strategy, resume=True))
                    assert summary.ok, (kind, summary.as_json())
                    found = ReadModelProjector(database, settings).verify_all().findings
                    wrong = [item for item in found if application.last.get(item.aggregate_id, 0.0) < looked]
                    assert not wrong, (kind, wrong)
                case "verify":
                    verify(database, settings, (), VerificationRequest())
                case "what changed":
                    verify(database, settings, (), VerificationRequest(Coverage(since_last=True)))
                case _:
                    repaired = RepairWorker(database, settings).work()
                    assert (repaired.parked, repaired.lost) == (0, 0), repaired
            yield kind
