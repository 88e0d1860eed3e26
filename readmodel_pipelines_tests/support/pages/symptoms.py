"""What a page's runbook begins with: a healthy database like that of `readmodel demo`, and one thing wrong in it.

The pages name chats of the demo, so that a reader can type the commands after `make demo`.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache

from bson import ObjectId

from readmodel_pipelines import RepairQueue, RepairWorker
from readmodel_pipelines.demo.run import DEFAULT_CHATS
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.driver import ours, server_time
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import LEASES as LEASES
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Document, Mongo

Change = Callable[[Mongo, Settings], object]

CHAT = "058d54c8-4bb2-4626-af84-652c580962b2"
"""A chat of the demo that is a task: it has a document in both read models."""


@cache
def _events() -> list[Document]:
    """Those of the demo."""
    return list(chat_events(DEFAULT_CHATS))


def healthy(database: Mongo, settings: Settings) -> None:
    """As a demo leaves it: made once on a server, and copied there whenever somebody begins anew."""
    made = ours(database.client["healthy"])
    if not made.list_collection_names():
        ensure_indexes(made, settings)
        made.events.insert_many(_events())
        assert ReadModelProjector(made, settings).rebuild_all().ok
    database.client.drop_database(database.name)
    ensure_indexes(database, settings)
    for name in made.list_collection_names():
        # Into a collection that is there, whose indexes stay.
        made[name].aggregate([{"$out": {"db": database.name, "coll": name}}])


def _stale(database: Mongo, _: Settings) -> None:
    """Updates of the read models failed, and nobody queued their repair."""
    database.chats_read_model.update_many({"chat_id": {"$gte": CHAT, "$lt": "1"}}, {"$set": {"title": "as it was"}})
    database.tasks_read_model.delete_one({"task_id": CHAT})


def _queued(database: Mongo, settings: Settings) -> None:
    _stale(database, settings)
    queue = RepairQueue(database, settings)
    for chat in database.chats_read_model.find({"title": "as it was"}):
        queue.add(chat["chat_id"], "chat", "no read model was updated")


def _dead_letter(database: Mongo, settings: Settings) -> None:
    """An event that no retry can mend: a release of the application wrote a title that is no text."""
    _stale(database, settings)
    database.events.update_one({"aggregate_id": CHAT, "version": 1}, {"$set": {"data.created_by": 7}})
    RepairQueue(database, settings).add(CHAT, "chat", "no read model was updated")
    assert RepairWorker(database, settings).work().parked == 1


def _malformed(database: Mongo, _: Settings) -> None:
    """A newer release of the application writes events that this one does not know."""
    last = next(event for event in reversed(_events()) if event["aggregate_id"] == CHAT)
    newer = {"_id": ObjectId(), "event_type": "chat.pinned", "version": last["version"] + 1, "data": {}}
    database.events.insert_one({**last, **newer})


def _events_mended(database: Mongo, _: Settings) -> None:
    for event in _events():
        if event["aggregate_id"] == CHAT:
            database.events.replace_one({"_id": event["_id"]}, event)


def _killed(database: Mongo, settings: Settings) -> None:
    """A rebuild in a shadow that is not at its end, and the lease that its holder left."""
    database.chats_read_model.update_many({"chat_id": {"$lt": "1"}}, {"$set": {"title": "as it was"}})
    now = server_time(database)
    night = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    stopped = settings.model_copy(update={"off_peak_window": night})
    assert rebuild(database, stopped, ["chat"], RebuildRequest("shadow", off_peak=True)).about["state"] == "paused"
    times = {"acquired_at": now - timedelta(minutes=9), "expires_at": now - timedelta(seconds=1)}
    lease = {"holder": "worker-7 process 4711", "owner": "", "nonce": "gone", "token": 1, **times}
    database[LEASES].replace_one({"_id": "rebuild:chats_read_model"}, lease, upsert=True)


def _changed(database: Mongo, _: Settings) -> None:
    """The documents have the form of an earlier projection, which had another name for a field."""
    database.chats_read_model.update_many({}, {"$rename": {"assigned_to": "assignee"}})


def _restored(database: Mongo, settings: Settings) -> None:
    """The events are those of the backup, the read models are younger."""
    queue = RepairQueue(database, settings)
    gone = [chat["chat_id"] for chat in database.chats_read_model.find().sort("chat_id", -1).limit(140)]
    database.events.delete_many({"aggregate_id": {"$in": gone}})
    database.events.delete_many({"version": {"$gt": 20}})
    queue.add(gone[0], "chat", "no read model was updated")


SYMPTOMS: Mapping[str, Change] = {
    "stale read models": _stale,
    "a long queue": _queued,
    "a dead letter": _dead_letter,
    "malformed streams": _malformed,
    "a rebuild that was killed": _killed,
    "a changed projection": _changed,
    "a restored backup": _restored,
}

CHANGES: Mapping[str, Change] = {"the events are mended": _events_mended}


def happen(mark: str, database: Mongo, settings: Settings) -> None:
    """What a mark `given: …` or `then: …` says."""
    kind, _, name = mark.partition(": ")
    if kind == "given":
        healthy(database, settings)
    (SYMPTOMS if kind == "given" else CHANGES)[name](database, settings)
