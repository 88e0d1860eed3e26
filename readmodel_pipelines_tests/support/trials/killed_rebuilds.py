"""Kills a rebuild again and again at random moments, resumes it each time, and holds its progress to its word."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.environment import uri_of
from readmodel_pipelines_tests.support.processes import rebuild
from readmodel_pipelines_tests.support.scene import Mongo, Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import leftovers

_LEASE = 0.5
_READ_AHEAD = 5_000


def kill_and_resume(
    database: Mongo, settings: Settings, *, chats: int, kills: int, seed: int, strategy: str, rate: float
) -> int:
    """Fill, break, kill so often, let one live; gives how many of the killed were at work on ranges."""
    chance = random.Random(seed)
    ensure_indexes(database, settings)
    database.events.insert_many(list(chat_events(chats, seed=seed, mean_events=8)))
    total = database.events.count_documents({})
    first = ReadModelProjector(database, settings).rebuild_all()
    assert first.ok
    database.chats_read_model.update_many({}, {"$set": {"title": "damaged", "likes": 3}})
    right = database.chats_read_model.count_documents({})
    at_work = 0
    before: dict[str, Any] = {}
    for _ in range(kills):
        process = _start(settings, strategy, rate)
        time.sleep(chance.uniform(0.3, 1.6))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = {item["_id"]: item for item in database[REBUILDS].find({"of": {"$exists": True}})}
        for key, item in before.items():
            assert now[key]["done"] >= item["done"], "a range was done and is not any more"
            assert (now[key]["cursor"] or "") >= (item["cursor"] or ""), "a range went back"
        at_work += any(not item["done"] for item in now.values())
        before = now
        # Its lease runs out by itself.
        time.sleep(_LEASE)
    last = _start(settings, strategy, None)
    output, _ = last.communicate(timeout=240)
    assert last.returncode == 0
    assert json.loads(output)["ok"], output
    assert ReadModelProjector(database, settings).verify_all().ok
    assert database.chats_read_model.count_documents({"likes": 3}) == right, "foreign fields are all there"
    records = list(database[REBUILDS].find({"kind": "rebuild", "_id": {"$ne": first.about["rebuild"]}}))
    assert [record["state"] for record in records] == ["done"], "it is one rebuild"
    read = sum(item["events"] for item in database[REBUILDS].find({"of": records[0]["_id"]}))
    assert read <= total + kills * _READ_AHEAD, "ranges were done again from their start"
    assert leftovers(Scene(database, settings)) == []
    return at_work


def _start(settings: Settings, strategy: str, rate: float | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", rebuild.__name__, uri_of(settings), settings.database]
    command += [f"--strategy={strategy}", f"--lease={_LEASE}"]
    command += [] if rate is None else [f"--events-per-second={rate}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
