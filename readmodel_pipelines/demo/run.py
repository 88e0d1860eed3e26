"""The demo: sample events on the embedded server; read models are built, damaged in every way, verified and repaired.

Then an application keeps saving events through `EventRepository`; faults are injected into some of its updates. Failed
updates go to the repair queue, and their documents stay wrong until a repair.

The demo writes and damages data, so it works only on the embedded server, and drops only data of an earlier demo: it
first records each collection that it fills in `readmodel_demo`.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, groupby, islice
from operator import itemgetter

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.damage import LEGACY_TASKS, Damage, damage_everything
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.errors import ReadModelError, UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Collection, Database, Document, PyMongoError
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.repository import EventRepository, NewEvent
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings

DEFAULT_CHATS = 300

# Of the live traffic.
_FAULTS = 0.25
_SECONDS_BETWEEN = 1.0
# Another seed than that of the demo's own chats, because these chats start during the demo.
_SEED = 20_231
_CHATS = 100_000
_OPEN_CHATS = 12
_ENVELOPE = {"event_type", "aggregate_id", "aggregate_type", "occurred_at", "version", "metadata"}

# The collection with the names of a demo's collections, and the number of its events.
_MARKER = "readmodel_demo"

LEAST_CHATS = 150
"""With fewer chats some kind of damage finds no document."""
_BATCH = 1_000
_SAVES = 60
_UNWANTED_TASKS = 3
_SHOWN_FINDINGS = 20
_ANOTHER_DATABASE = "Give the demo a database of its own: READMODEL_DATABASE=flowra_demo readmodel demo"

Say = Callable[[str], None]
Show = Callable[[Summary, int], None]
"""Called with a summary and the number of its findings to show."""


def run_demo(settings: Settings, *, chats: int = DEFAULT_CHATS, say: Say, show: Show) -> bool:
    """Run the demo; True if all damage was found, and repaired both by rebuild and by repair.

    Raises:
        UsageError: a URI is set, the database holds other data, or there are too few chats.
    """
    if settings.mongodb_uri is not None:
        raise UsageError(
            "READMODEL_MONGODB_URI is set. The demo writes and damages data, so it runs only on the embedded server.",
            hint="Unset READMODEL_MONGODB_URI and start the demo again.",
        )
    if chats < LEAST_CHATS:
        raise UsageError(
            f"{chats:,} chats are too few to damage every field in every way. Nothing was dropped.",
            hint=f"Start the demo with --chats {LEAST_CHATS} or more.",
        )
    say("1. Start the embedded MongoDB server")
    with open_database(settings) as database:
        store = Store(database, settings, projections_for(settings))
        _make_room(store)
        projector = ReadModelProjector(database, settings)

        say(f"2. Fill database {settings.database!r} with the events of {chats:,} chats, and create the indexes")
        ensure_indexes(database, settings)
        say(f"   {_fill(store, chats):,} events")

        say("3. Build both read models from nothing")
        show(projector.rebuild_all(), 0)

        say("4. Damage documents in every way")
        damages = _break(database, settings)
        say(f"   {len(damages)} damages, of {len({(item.model, item.kind, item.field) for item in damages})} kinds")

        say("5. Verify: find every difference from the events")
        found = projector.verify_all()
        show(found, _SHOWN_FINDINGS)

        say("6. Dry run: predict the rebuild. No event was lost here, so it may delete without a limit")
        show(projector.rebuild_all(dry_run=True, allow_deletions=True), 0)

        say("7. Rebuild")
        show(projector.rebuild_all(allow_deletions=True), 0)

        say("8. Verify again")
        mended = projector.verify_all()
        show(mended, _SHOWN_FINDINGS)

        say(f"9. Let an application save {_SAVES} events; some updates of its read models fail, and queue their repair")
        traffic = _Traffic(database, settings)
        for _ in range(_SAVES):
            traffic.step()
        say(
            f"   {traffic.failed} updates failed; the repair queue holds {RepairQueue(database, settings).stats().open}"
        )
        stale = projector.verify_all()
        show(stale, _SHOWN_FINDINGS)

        say("10. Repair the tasks in the queue, as Dagster's sensor does and `readmodel repair-queue work`")
        repaired = RepairWorker(database, settings).work()
        say(f"   {repaired.completed} tasks completed in {repaired.seconds:.2f} s\n")

        say("11. Verify a last time")
        last = projector.verify_all()
        show(last, _SHOWN_FINDINGS)
    every_damage = sum(counts.discrepancies for counts in found.read_models.values()) == len(damages)
    return every_damage and mended.ok and not stale.ok and repaired.ok and last.ok


def _make_room(store: Store) -> None:
    """Drop the data of an earlier demo; refuse if there is any other data."""
    marker = Collection(store.database, _MARKER)
    made = {document["_id"]: document for document in marker.find()}
    read_models = [store.live(item) for item in store.projections]
    filled = [store.events, *read_models, store.repair_queue]
    for collection in filled:
        if collection.name not in made and collection.find_one({}, {"_id": 1}) is not None:
            raise UsageError(
                f"{collection.full_name} holds documents that no demo wrote, and the demo would damage them.",
                hint=_ANOTHER_DATABASE,
            )
    events = made.get(store.events.name, {}).get("events")
    stored = store.events.count_documents({})
    if events is not None and stored > events:
        raise UsageError(
            f"{store.events.full_name} holds {stored - events:,} more events than the demo wrote, and the demo would "
            "drop them.",
            hint=_ANOTHER_DATABASE,
        )
    for collection in filled:
        collection.drop()
        marker.replace_one({"_id": collection.name}, {"events": None}, upsert=True)


def _fill(store: Store, chats: int) -> int:
    """Insert the sample events and record their number: if a later demo finds more, others wrote them."""
    legacy = task_events(chats) if store.settings.task_source == "task" else ()
    events = 0
    for batch in batched(chain(chat_events(chats), legacy), _BATCH):
        store.events.insert_many(batch)
        events += len(batch)
    Collection(store.database, _MARKER).update_one({"_id": store.events.name}, {"$set": {"events": events}})
    return events


def _break(database: Database, settings: Settings) -> list[Damage]:
    chats, tasks = Collection(database, settings.chats_collection), Collection(database, settings.tasks_collection)
    if settings.task_source == "task":
        return damage_everything(chats, tasks, tasks_model=LEGACY_TASKS)
    discussions = chats.find({"type": "discussion"}).sort("chat_id").limit(_UNWANTED_TASKS)
    return damage_everything(chats, tasks, discussion_ids=[chat["chat_id"] for chat in discussions])


class _InjectedFault(Exception):
    """The error of an update here; in production a lost connection or a bug."""


class _Traffic:
    """Several chats at once, one event per `step`. One in four updates fails, some of them half done."""

    def __init__(self, database: Database, settings: Settings, *, seed: int = 0) -> None:
        self.failed = 0
        self._random = random.Random(seed)
        self._marker, self._events = Collection(database, _MARKER), settings.events_collection
        self._repository = EventRepository(database, settings, project=self._project)
        self._first, self._both = (ReadModelProjector(database, settings, *names) for names in (["chat"], []))
        self._chats = _interleaved(chat_events(_CHATS, seed=_SEED + seed, mean_events=12), _OPEN_CHATS, self._random)

    def step(self) -> None:
        """Save the next event and update its read models, or fail to."""
        event = next(self._chats)
        own = {name: value for name, value in event["data"].items() if name not in _ENVELOPE}
        self._marker.update_one({"_id": self._events}, {"$inc": {"events": 1}})
        new, after = [NewEvent(event["event_type"], own)], event["version"] - 1
        self.failed += not self._repository.save(event["aggregate_id"], "chat", new, expected_version=after).projected

    def _project(self, aggregate_id: str) -> None:
        if self._random.random() >= _FAULTS:
            self._both.rebuild_some([aggregate_id])
        elif self._random.random() < 0.5:
            raise _InjectedFault("no read model was updated")
        else:
            self._first.rebuild_some([aggregate_id])
            raise _InjectedFault("chats_read_model was updated, tasks_read_model was not")


@contextmanager
def traffic_in_background(settings: Settings) -> Iterator[None]:
    """Traffic of an application while the block runs."""
    stop = threading.Event()

    def go_on() -> None:
        # Until the server ends, which all other code that needs it reports.
        with suppress(ReadModelError, PyMongoError), open_database(settings) as database:
            traffic = _Traffic(database, settings, seed=1)
            while not stop.wait(_SECONDS_BETWEEN):
                traffic.step()

    thread = threading.Thread(target=go_on, name="live traffic", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _interleaved(events: Iterator[Document], streams: int, choice: random.Random) -> Iterator[Document]:
    """Events of several streams, mixed so that several streams grow at once, each in its own order."""
    rest = (list(stream)[::-1] for _, stream in groupby(events, key=itemgetter("aggregate_id")))
    growing: list[list[Document]] = []
    while True:
        growing += islice(rest, streams - len(growing))
        stream = choice.choice(growing)
        # The last event of the list is the next one.
        yield stream.pop()
        if not stream:
            growing.remove(stream)
