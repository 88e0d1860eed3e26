"""What the tests of the repair queue and its worker share: tasks, a way to repair, leases of workers that died."""

from datetime import UTC, datetime, timedelta
from typing import Any

from readmodel_pipelines import RepairSummary, RepairWorker
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.scene import Scene


def task(aggregate_id: Any, **other: Any) -> dict[str, Any]:
    """A task as the application writes it."""
    return {
        "aggregate_id": aggregate_id,
        "aggregate_type": "chat",
        "task_type": "readmodel_sync",
        "error": "",
        "created_at": datetime.now(UTC),
        "retry_count": 0,
        "status": "pending",
        **other,
    }


def put(scene: Scene, *tasks: dict[str, Any]) -> None:
    scene.database.repair_queue.insert_many(tasks)


def stored(scene: Scene, **where: Any) -> list[dict[str, Any]]:
    return list(scene.database.repair_queue.find(where))


def longest(low: float, high: float) -> float:
    """A draw without luck: the longest wait."""
    return high


def repair(scene: Scene, **options: Any) -> RepairSummary:
    work = {name: options.pop(name) for name in ("limit", "task_ids") if name in options}
    return RepairWorker(scene.database, scene.settings, **options).work(**work)


def queue_of(scene: Scene) -> RepairQueue:
    return RepairQueue(scene.database, scene.settings)


def leases(scene: Scene) -> list[dict[str, Any]]:
    return list(scene.database[LEASES].find({"_id": {"$regex": "^repair:"}}))


def lost_lease(scene: Scene, aggregate_id: str, lost: int, *, expired: bool = True) -> None:
    """As `lost` workers in a row left it that died of this aggregate."""
    moment = datetime.now(UTC) + timedelta(hours=-1 if expired else 1)
    scene.database[LEASES].insert_one(
        {"_id": f"repair:chat:{aggregate_id}", "nonce": "dead", "owner": "dead", "token": lost, "lost": lost - 1}
        | {"expires_at": moment}
    )


def break_all(scene: Scene) -> None:
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    scene.tasks.update_many({}, {"$set": {"version": 99}})
