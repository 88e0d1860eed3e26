"""The demo: sample events on the embedded server; read models built, broken in every way, found out and mended.

Then an application goes on saving events while some of its updates fail, and their repairs come out of the queue.

It writes and breaks data, so it works on the embedded server alone, and there it drops only what a demo made: each
collection that it is going to fill is noted in `readmodel_demo` first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from readmodel_pipelines.batched import batched
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.damage import LEGACY_TASKS, Damage, damage_everything
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.demo.traffic import MARKER, Traffic
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings

DEFAULT_CHATS = 300

_BATCH = 1_000
_SAVES = 60
_UNWANTED_TASKS = 3
_SHOWN_FINDINGS = 20
_ANOTHER_DATABASE = "Give the demo a database of its own: READMODEL_DATABASE=flowra_demo readmodel demo"

Say = Callable[[str], None]
Show = Callable[[Summary, int], None]
"""Takes a summary and how many of its findings to show."""


def run_demo(settings: Settings, *, chats: int = DEFAULT_CHATS, say: Say, show: Show) -> bool:
    """Play it through; True when every damage was found and both mended, by rebuild and by repair.

    Raises:
        UsageError: a URI is set, the database holds other data, or there are too few chats to break.
    """
    if settings.mongodb_uri is not None:
        raise UsageError(
            "READMODEL_MONGODB_URI is set, and the demo writes and breaks data: it runs on the embedded server only.",
            hint="Unset READMODEL_MONGODB_URI and start the demo again.",
        )
    say("1. Start the embedded MongoDB server")
    with open_database(settings) as database:
        store = Store(database, settings, projections_for(settings))
        _make_room(store)
        projector = ReadModelProjector(database, settings)

        say(f"2. Fill database {settings.database!r} with the events of {chats:,} chats, and make the indexes")
        ensure_indexes(database, settings)
        say(f"   {_fill(store, chats):,} events")

        say("3. Build both read models from nothing")
        show(projector.rebuild_all(), 0)

        say("4. Break documents in every way")
        damages = _break(database, settings)
        say(f"   {len(damages)} damages, of {len({(item.model, item.kind, item.field) for item in damages})} kinds")

        say("5. Verify: what does not agree with the events?")
        found = projector.verify_all()
        show(found, _SHOWN_FINDINGS)

        say("6. Dry run: what would a rebuild do?")
        show(projector.rebuild_all(dry_run=True), 0)

        say("7. Rebuild")
        show(projector.rebuild_all(), 0)

        say("8. Verify again")
        mended = projector.verify_all()
        show(mended, _SHOWN_FINDINGS)

        say(f"9. Let an application save {_SAVES} events; some updates of its read models fail, and queue their repair")
        traffic = Traffic(database, settings)
        for _ in range(_SAVES):
            traffic.step()
        say(
            f"   {traffic.failed} updates failed; the repair queue holds {RepairQueue(database, settings).stats().open}"
        )
        stale = projector.verify_all()
        show(stale, _SHOWN_FINDINGS)

        say("10. Repair what is in the queue, as Dagster's sensor does and `readmodel repair-queue work`")
        repaired = RepairWorker(database, settings).work()
        say(f"   {repaired.completed} tasks completed in {repaired.seconds:.2f} s\n")

        say("11. Verify a last time")
        last = projector.verify_all()
        show(last, _SHOWN_FINDINGS)
    every_damage = sum(counts.discrepancies for counts in found.read_models.values()) == len(damages)
    return every_damage and mended.ok and not stale.ok and repaired.ok and last.ok


def _make_room(store: Store) -> None:
    """Drop what an earlier demo left; refuse when there is anything else."""
    marker = store.database[MARKER]
    made = {document["_id"]: document for document in marker.find()}
    read_models = [store.live(item) for item in store.projections]
    filled = [store.events, *read_models, store.database[store.settings.repair_queue_collection]]
    for collection in filled:
        if collection.name not in made and collection.find_one({}, {"_id": 1}) is not None:
            raise UsageError(
                f"{collection.full_name} holds documents that no demo put there, and the demo would break them.",
                hint=_ANOTHER_DATABASE,
            )
    events = made.get(store.events.name, {}).get("events")
    stored = store.events.count_documents({})
    if events is not None and stored > events:
        raise UsageError(
            f"{store.events.full_name} holds {stored - events:,} events more than the demo put there, and the demo "
            "would drop them.",
            hint=_ANOTHER_DATABASE,
        )
    for collection in filled:
        collection.drop()
        marker.replace_one({"_id": collection.name}, {"events": None}, upsert=True)


def _fill(store: Store, chats: int) -> int:
    """Insert the sample events and note how many they are: more in a later demo means somebody else's."""
    legacy = task_events(chats) if store.settings.task_source == "task" else ()
    events = 0
    for batch in batched(chain(chat_events(chats), legacy), _BATCH):
        store.events.insert_many(batch)
        events += len(batch)
    store.database[MARKER].update_one({"_id": store.events.name}, {"$set": {"events": events}})
    return events


def _break(database: Database, settings: Settings) -> list[Damage]:
    chats, tasks = database[settings.chats_collection], database[settings.tasks_collection]
    if settings.task_source == "task":
        return damage_everything(chats, tasks, tasks_model=LEGACY_TASKS)
    discussions = chats.find({"type": "discussion"}).sort("chat_id").limit(_UNWANTED_TASKS)
    return damage_everything(chats, tasks, discussion_ids=[chat["chat_id"] for chat in discussions])
