"""What the tests of verification share: a way to look, what was found, and one damage of each kind."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.scene import Scene, found_in

SINCE_LAST = Coverage(since_last=True)
NIGHTLY = Coverage(bucket=Bucket(1, 7), since_last=True)
RENAMED = ("chat.renamed", {"new_title": "Renamed", "old_title": "", "renamed_by": "u"})


def look(scene: Scene, *read_models: str, coverage: Coverage | None = None, **options: Any) -> Summary:
    request = VerificationRequest(coverage or Coverage(), max_findings=100_000, **options)
    return verify(scene.database, scene.settings, read_models, request)


def found(summary: Summary) -> set[tuple[str, str, str]]:
    return {(item.read_model, str(item.aggregate_id), item.outcome.value) for item in summary.findings}


def just_now(scene: Scene, chat_id: str, *events: tuple[str, dict[str, Any]], seconds_ago: float = 0.0) -> None:
    """Append events as the application does at this moment."""
    if events:
        scene.append(chat_id, *events)
    last = found_in(scene.events, {"aggregate_id": chat_id}, sort=[("version", -1)])
    written = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    scene.events.update_one({"_id": last["_id"]}, {"$set": {"created_at": written}})


def damage(scene: Scene) -> set[tuple[str, str, str]]:
    """One of each outcome, in documents whose streams are old."""
    chats = sorted(document["chat_id"] for document in scene.chats.find({}, {"chat_id": 1}))
    tasks = sorted(document["task_id"] for document in scene.tasks.find({}, {"task_id": 1}))
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    scene.chats.delete_one({"chat_id": chats[1]})
    scene.tasks.update_one({"task_id": tasks[2]}, {"$set": {"version": 99}})
    orphan, gap = str(ObjectId()), chats[3]
    scene.tasks.insert_one({"task_id": orphan, "chat_id": orphan})
    scene.events.update_one({"aggregate_id": gap, "version": 1}, {"$set": {"version": 1_000}})
    return {
        ("chats_read_model", chats[0], "different"),
        ("chats_read_model", chats[1], "missing"),
        ("tasks_read_model", tasks[2], "different"),
        ("tasks_read_model", orphan, "orphan"),
        ("chats_read_model", gap, "malformed"),
        ("tasks_read_model", gap, "malformed"),
    }


def token_of_long_ago(scene: Scene) -> str:
    """That of an event which is there, but so long ago that the server knows nothing of it any more."""
    with scene.events.watch() as stream:
        scene.append(found_in(scene.chats, sort=[("chat_id", 1)])["chat_id"], RENAMED)
        token: str = stream.next()["_id"]["_data"]
    scene.rebuild()
    return token[:2] + "00000001" + token[10:]
