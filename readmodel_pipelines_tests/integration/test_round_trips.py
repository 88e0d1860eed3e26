"""How often verbs wait for the server, counted exactly: what a slow network multiplies. 20,000 events."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo import monitoring

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.verify import VerificationRequest, verify
from readmodel_pipelines_tests.support.round_trips import RoundTrips
from readmodel_pipelines_tests.support.scene import Mongo, Scene
from readmodel_pipelines_tests.support.servers.slow_line import slow_line

CHATS = 1_000


@pytest.fixture(scope="module")
def listening() -> Iterator[RoundTrips]:
    listener = RoundTrips()
    before = list(monitoring._LISTENERS.command_listeners)
    monitoring.register(listener)
    yield listener
    monitoring._LISTENERS.command_listeners[:] = before


Verb = Callable[[Mongo, Settings], Any]


def waits(settings: Settings, listening: RoundTrips, verb: Verb) -> int:
    with listening.counted(), open_database(settings) as database:
        assert verb(database, settings)
    return listening.asked.total()


def rebuilds(database: Mongo, settings: Settings) -> bool:
    return rebuild(database, settings, [], RebuildRequest()).ok


def builds_a_shadow(database: Mongo, settings: Settings) -> bool:
    return rebuild(database, settings, [], RebuildRequest("shadow")).ok


def verifies(database: Mongo, settings: Settings) -> bool:
    return verify(database, settings, [], VerificationRequest()).ok


def looks_at_versions(database: Mongo, settings: Settings) -> bool:
    return verify(database, settings, [], VerificationRequest(tier="versions")).ok


def empty(scene: Scene) -> None:
    scene.chats.delete_many({})
    scene.tasks.delete_many({})


def test_round_trips_are_few_and_do_not_grow_with_what_there_is_to_do(
    scene: Scene, listening: RoundTrips, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a machine that is busy more is done because so much time has passed: that is no matter of what there is to do.
    for seconds in ("rebuild.catch_up._NOTE_SECONDS", "mongo.kinds._REMEMBERED_SECONDS"):
        monkeypatch.setattr(f"readmodel_pipelines.{seconds}", 3_600.0)
    monkeypatch.setattr("readmodel_pipelines.speed_limits._LOOK_AGAIN", timedelta(hours=1))
    settings = scene.settings = scene.settings.model_copy(update={"workers": 1})
    scene.add(chat_events(CHATS))
    scene.ensure_indexes()
    counted = {"rebuild": waits(settings, listening, rebuilds)}
    counted["rebuild again"] = waits(settings, listening, rebuilds)
    counted["verify"] = waits(settings, listening, verifies)
    counted["versions"] = waits(settings, listening, looks_at_versions)
    ids = sorted(chat["chat_id"] for chat in scene.chats.find({}, limit=100))
    one = ids[0]
    counted["verify one"] = waits(settings, listening, lambda *it: ReadModelProjector(*it).verify_consistency(one).ok)
    counted["rebuild one"] = waits(settings, listening, lambda *it: ReadModelProjector(*it).rebuild_one(one).ok)
    scene.chats.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken"}})
    counted["mend one"] = waits(settings, listening, lambda *it: ReadModelProjector(*it).rebuild_one(one).ok)
    RepairQueue(scene.database, settings).add_many(ids, "chat", "")
    counted["100 repairs"] = waits(settings, listening, lambda *it: RepairWorker(*it).work().completed == 100)
    counted["shadow"] = waits(settings, listening, builds_a_shadow)
    assert {what: number for what, number in counted.items() if number > MOST[what]} == {}, counted
    # As many where each of them takes its time.
    with slow_line(mongodb_uri, 0.002) as line:
        far = settings.model_copy(update={"mongodb_uri": SecretStr(line.uri)})
        empty(scene)
        assert waits(far, listening, rebuilds) <= MOST["rebuild"], listening.asked
        assert waits(far, listening, verifies) <= MOST["verify"], listening.asked


MOST = {
    "rebuild": 57,
    "rebuild again": 52,
    # One of them asks for what is ignored.
    "verify": 26,
    "versions": 21,
    "verify one": 5,
    "rebuild one": 4,
    "mend one": 6,
    "100 repairs": 12,
    "shadow": 113,
}
