"""Worker processes do what one process does, whatever they meet: every damage, finding and fault of a projection."""

import json
import re
import threading
from functools import partialmethod
from typing import Any

import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from readmodel_pipelines import spread
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.confirm import Confirm
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.workers import pool
from readmodel_pipelines_tests.support import faulty_read_models as faulty
from readmodel_pipelines_tests.support.at_a_moment import At
from readmodel_pipelines_tests.support.campaign.trial import Trial
from readmodel_pipelines_tests.support.scene import BOTH, Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import full, leftovers, records
from readmodel_pipelines_tests.support.verbs.verifying import RENAMED, just_now, look

STREAMS = 40
MANY = 10_000
ADDED = "added read models"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""As the server names collections and the making of indexes."""
# Titles, `...` for none.
ODD: list[Any] = [
    *(..., None, 1.5, Int64(1), True, [], {"a": 1}, b"x", Binary(b"x", 128), Decimal128("1"), ObjectId()),
    *(DatetimeMS(-(2**60)), DBRef("a", 1, "b", more=2), Code("x"), Code("x", {}), Regex("^a", "i")),
    *(Timestamp(1, 2), MinKey(), MaxKey()),
]


@pytest.fixture(params=["chats", "legacy tasks", ADDED])
def wrecked(request: pytest.FixtureRequest) -> Scene:
    """Streams and documents with everything wrong that there is."""
    legacy = request.param == "legacy tasks"
    scene: Scene = request.getfixturevalue("legacy_scene" if legacy else "scene")
    added = (faulty.__name__,) if request.param == ADDED else ()
    trial = Trial(scene.database, scene.settings, seed=int(legacy), number=STREAMS // 4 if added else STREAMS)
    trial.add_events()
    trial.break_everything()
    for collection in (scene.chats, scene.tasks):
        there = [document["_id"] for document in collection.find({"_id": {"$type": "objectId"}}, sort=[("_id", 1)])]
        for _id, value in zip(there, ODD, strict=False):
            # First of all without it: the server ends when a pipeline sets a field that stands twice.
            collection.update_one({"_id": _id}, {"$unset": {"title": ""}})
            if value is not ...:
                collection.update_one({"_id": _id}, [{"$set": {"title": {"$literal": value}}}])
    scene.settings = scene.settings.model_copy(update={"projections": added, "max_delete_share": 1.0})
    return scene


@pytest.fixture
def in_processes(wrecked: Scene, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From when it is called on: several ranges, and two processes; gives those that were started."""
    started: list[int] = []
    start = pool._start

    def counted() -> Any:
        connection, process = start()
        started.append(process.pid)
        return connection, process

    monkeypatch.setattr(pool, "_start", counted)
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 10)
    wrecked.settings = wrecked.settings.model_copy(update={"workers": 1})
    return started


def told(summary: Summary) -> dict[str, Any]:
    """All but times and names; of streams that want one key, how many get it, for that is who comes first."""
    number = summary.rebuild.id or "none"
    found = [item for item in summary.findings if item.read_model not in faulty.CLASHING]
    return {
        "counts": summary.read_models,
        "events": summary.events,
        "findings": sorted(json.dumps(item.as_json()) for item in found),
        "warnings": sorted(re.sub(f"{number}|{UUID}", "", warning) for warning in summary.warnings),
        "state": summary.rebuild.state,
    }


def test_a_verification_finds_the_same(wrecked: Scene, in_processes: list[int]) -> None:
    one = told(wrecked.projector(max_findings=MANY).verify_all())
    assert not in_processes
    # One of them is a thread.
    three = told(wrecked.projector(max_findings=MANY, workers=3).verify_all())

    assert len(in_processes) >= 2
    assert three == one


@pytest.fixture
def broken(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """All documents are wrong, and have been for long; two workers, one of which is a thread."""
    scene.fill(60)
    for collection in (scene.chats, scene.tasks):
        collection.update_many({}, {"$set": {"created_by": "nobody"}})
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 10)
    scene.settings = scene.settings.model_copy(update={"workers": 2})
    return scene


def alone(scene: Scene) -> None:
    scene.settings = scene.settings.model_copy(update={"workers": 1})


def test_findings_of_old_streams_are_confirmed_and_explained_where_they_are_found(broken: Scene, at: At) -> None:
    read_here: list[Any] = []

    def reads(ids: Any) -> None:
        if ids is not None and threading.current_thread() is threading.main_thread():
            read_here.append(ids)

    at(Moment.EVENTS, reads)
    several = told(look(broken))
    assert read_here == []
    assert all("cause" in json.loads(finding) for finding in several["findings"])
    alone(broken)
    # The second one knows them since the first.
    first_seen = re.compile(r', "first_seen": .*}$')
    one = told(look(broken))
    for each in (several, one):
        each["findings"] = [first_seen.sub("", finding) for finding in each["findings"]]
    assert several == one


@pytest.mark.parametrize("limit", [0, 7])
def test_the_limit_of_causes_is_one_for_all_workers(broken: Scene, limit: int) -> None:
    broken.settings = broken.settings.model_copy(update={"causes_limit": limit})
    summary = look(broken)
    for name in BOTH:
        found = [finding.cause for finding in summary.findings if finding.read_model == name]
        assert len(found) - found.count(None) == limit
        assert summary.without_cause[name] == len(found) - limit


def test_a_finding_of_a_young_stream_is_compared_again_after_the_grace_time(
    broken: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Confirm, "__init__", partialmethod(Confirm.__init__, sleep=waited.append))
    broken.settings = broken.settings.model_copy(update={"grace_seconds": 60.0})
    broken.build()
    chats = sorted(chat["chat_id"] for chat in broken.chats.find({}, {"chat_id": 1}))
    just_now(broken, chats[0], RENAMED)
    broken.chats.update_one({"chat_id": chats[1]}, {"$set": {"created_by": "nobody"}})
    counts = look(broken, "chat").read_models["chats_read_model"]
    assert (counts.lagging, counts.different, counts.same, counts.checked) == (1, 1, 58, 60)
    assert waited


# Forty collections more take their time to be made twice.
@pytest.mark.parametrize(
    ("wrecked", "strategy"),
    [
        *(("chats", "shadow"), ("legacy tasks", "in_place"), (ADDED, "in_place")),
        *(
            pytest.param(*turned, marks=pytest.mark.whole)
            for turned in [("chats", "in_place"), ("legacy tasks", "shadow")]
        ),
    ],
    indirect=["wrecked"],
)
def test_a_rebuild_does_the_same(wrecked: Scene, in_processes: list[int], strategy: Strategy) -> None:
    before = {name: (indexes_of(wrecked, name), list(wrecked.raw(name).find())) for name in BOTH}
    results = []
    for workers in (1, 2):
        wrecked.settings = wrecked.settings.model_copy(update={"workers": workers})
        summary = full(wrecked, strategy=strategy, max_findings=MANY)
        assert bool(in_processes) is (workers > 1)
        results.append((told(summary), wrecked.everything(), records(wrecked)[-1]["state"], leftovers(wrecked)))
        for name in wrecked.database.list_collection_names():
            if name.endswith("_read_model"):
                wrecked.database.drop_collection(name)
        for name, (indexes, documents) in before.items():
            wrecked.database.command("createIndexes", name, indexes=indexes)
            wrecked.raw(name).insert_many(documents)

    assert results[0] == results[1]


def indexes_of(scene: Scene, name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in item.items() if k != "v"} for item in scene.database[name].list_indexes()]
