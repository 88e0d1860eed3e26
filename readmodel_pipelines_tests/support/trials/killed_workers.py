"""Repair workers that are killed: chats for them to repair, and processes of their own where they live short."""

import json
import subprocess
import sys
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.processes import short_lived_workers
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.repairing import put, stored, task


def broken(scene: Scene, aggregates: int, tasks: int) -> list[str]:
    """Chats whose documents are wrong in both read models, and so many tasks for them."""
    scene.ensure_indexes()
    scene.add(chat_events(aggregates, seed=9, mean_events=8))
    assert scene.rebuild().ok
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    scene.tasks.update_many({}, {"$set": {"version": 0}})
    ids = sorted(document["chat_id"] for document in scene.chats.find())
    put(scene, *(task(ids[number % aggregates]) for number in range(tasks)))
    return ids


def short_lived(scene: Scene, **options: Any) -> dict[str, int]:
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", short_lived_workers.__name__, uri_of(scene.settings), scene.database.name]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, int] = json.loads(ended.stdout)
    return told


def kill_at_random_moments(scene: Scene, kills: int, seed: int) -> None:
    """Workers that are killed so often lose nothing, and leave nothing wrong."""
    ids = broken(scene, 200, 200)
    told = short_lived(scene, kills=kills, seed=seed, batch=2, longest=0.1)

    assert told["at_work"] >= kills / 5, "they were killed in the middle of their work"
    tasks = stored(scene)
    assert {item["status"] for item in tasks} == {"completed"}
    assert len(tasks) == 200
    assert {item["retry_count"] for item in tasks} == {0}, "no attempt was spent on a dead worker"
    assert scene.verify().ok
    # Who died between completing and giving back its leases left them to run out; they hinder nobody.
    put(scene, *(task(chat_id) for chat_id in ids))
    short_lived(scene, kills=0)
    assert len(stored(scene, status="completed")) == 400
    assert scene.database[LEASES].count_documents({"_id": {"$regex": "^repair:"}}) == 0
