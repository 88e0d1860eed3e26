"""Collections with a collation of their own: texts sort otherwise than by their bytes, and different ones are equal."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
from pymongo import MongoClient, monitoring

from readmodel_pipelines import EventRepository, NewEvent, spread
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.doctor.examine import examine
from readmodel_pipelines.errors import OutOfOrder
from readmodel_pipelines.metrics.exporter import Exporter, text
from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import flaws
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.rebuild import roll_back
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import BOTH, FOREIGN, Mongo, Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow
from readmodel_pipelines_tests.support.verbs.repairing import put, repair, task
from readmodel_pipelines_tests.support.verbs.verifying import look

IDS = [f"{head:0<8}-0000-4000-8000-000000000000" for head in ("0f", "10a", "1a", "9b", "a0", "aa1", "ab", "b0", "f0")]
"""`aa` comes behind z in Danish, `10` behind 9 where numbers are numbers."""
CASELESS = {"locale": "en", "strength": 2}
DANISH = {"locale": "da"}
NUMBERS = {"locale": "en", "numericOrdering": True}
OURS = (names.LEASES, names.REBUILDS, names.FINDINGS, names.WATERMARKS, names.DEFERRED, names.TOUCHED, "repair_queue")
EVERYTHING = ("events", *BOTH, *OURS)


def collated(scene: Scene, collation: Mapping[str, Any], *collections: str, unique: bool = True) -> None:
    """Collections with a collation, and the application's unique indexes, which have the same."""
    for name in collections:
        scene.database.create_collection(name, collation=dict(collation))
    if unique:
        scene.index()


@pytest.fixture(
    params=[
        pytest.param((DANISH, ["events"]), id="Danish events"),
        pytest.param((DANISH, BOTH), id="Danish read models"),
        pytest.param((DANISH, EVERYTHING), id="Danish"),
        pytest.param((NUMBERS, EVERYTHING), id="numbers"),
        pytest.param((CASELESS, EVERYTHING), id="caseless"),
    ]
)
def folded(request: pytest.FixtureRequest, scene: Scene) -> Scene:
    """Right chats and tasks with foreign fields, in collections with a collation; the live ones keep it."""
    collation, places = request.param
    collated(scene, collation, *places)
    for chat_id in IDS:
        scene.chat(f"about {chat_id}", id=chat_id)
    scene.build()
    scene.make_foreign()
    return scene


@pytest.mark.each_once
def test_what_is_right_stays_and_what_is_wrong_is_mended(folded: Scene, strategy: Strategy) -> None:
    before = folded.dump()
    assert folded.verify().ok
    assert look(folded, tier="versions", remember=False).ok
    folded.chats.update_one({"chat_id": IDS[1]}, {"$set": {"title": "wrong"}})
    folded.tasks.delete_one({"task_id": IDS[5]})
    draft = "~draft"
    folded.chats.insert_one({"chat_id": draft, "title": "nobody's"})

    found = folded.verify()
    assert {(item.read_model, item.aggregate_id, item.outcome.value) for item in found.findings} == {
        ("chats_read_model", IDS[1], "different"),
        ("chats_read_model", draft, "orphan"),
        ("tasks_read_model", IDS[5], "missing"),
    }
    predicted, done = folded.rebuild(dry_run=True), folded.rebuild()
    written = [(counts.inserted, counts.replaced, counts.deleted) for counts in done.read_models.values()]
    assert written == [(0, 1, 1), (1, 0, 0)]
    assert predicted.read_models == done.read_models
    assert folded.verify().ok
    assert folded.dump()["chats_read_model"] == before["chats_read_model"]
    assert [item["not_ours"] for item in folded.tasks.find({"task_id": {"$ne": IDS[5]}})] == [FOREIGN["not_ours"]] * (
        len(IDS) - 1
    )
    assert folded.chats.options() == folded.tasks.options()


def test_one_by_one_and_repairs_mend_what_they_name_and_nothing_else(folded: Scene) -> None:
    before = folded.dump()
    folded.chats.update_many({}, {"$set": {"title": "wrong"}})
    shouted = IDS[5].upper()
    folded.chats.delete_one({"chat_id": IDS[5]})
    folded.chats.insert_one({"chat_id": shouted, "title": "another"})
    for chat_id in IDS[:3]:
        assert folded.rebuild_one(chat_id).ok
    put(folded, *(task(chat_id) for chat_id in IDS[3:5]), *(task(chat_id) for chat_id in IDS[6:]))
    done = repair(folded)

    assert (done.completed, done.parked) == (5, 0)
    right = {item: raw for item, raw in before["chats_read_model"].items() if IDS[5].encode() not in raw}
    assert right.items() <= folded.dump()["chats_read_model"].items()
    assert folded.chats.count_documents({"chat_id": shouted}) == 1


def test_worker_processes_go_by_bytes_too(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.strategy = "shadow"
    monkeypatch.setattr(spread, "EVENTS_WORTH_A_PROCESS", 2)
    scene.settings = scene.settings.model_copy(update={"workers": 2})
    collated(scene, DANISH, *EVERYTHING)
    for chat_id in IDS:
        scene.chat("of many", id=chat_id)
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "wrong"}})
    assert scene.rebuild().read_models["chats_read_model"].replaced == len(IDS)
    assert scene.verify().ok


def test_an_empty_read_model_whose_unique_index_has_a_collation_is_rebuilt(scene: Scene, strategy: Strategy) -> None:
    collated(scene, CASELESS, *BOTH)
    for chat_id in IDS:
        scene.chat("new", id=chat_id)
    done = scene.rebuild()
    assert (done.ok, done.warnings) == (True, [])
    assert [counts.inserted for counts in done.read_models.values()] == [len(IDS)] * 2
    assert scene.verify().ok


@pytest.mark.parametrize("folded", [(DANISH, EVERYTHING)], indirect=True, ids=["Danish"])
def test_indexes_that_go_by_bytes_are_made_beside_those_with_a_collation(folded: Scene, strategy: Strategy) -> None:
    theirs = {name: folded.database[name].index_information() for name in ("events", *BOTH)}
    folded.ensure_indexes()
    assert flaws(folded.database, folded.settings) == []
    assert EventStore(folded.events).index
    for name, indexes in theirs.items():
        assert indexes.items() <= folded.database[name].index_information().items()
    folded.chats.update_one({"chat_id": IDS[0]}, {"$set": {"title": "wrong"}})
    shapes = [folded.database[name].index_information() for name in BOTH]
    assert folded.rebuild().ok
    assert [folded.database[name].index_information() for name in BOTH] == shapes


def test_two_keys_that_an_index_takes_for_one_are_a_conflict_that_names_it(scene: Scene) -> None:
    collated(scene, CASELESS, *BOTH)
    scene.chat("small", id=IDS[5])
    scene.chats.insert_one({"chat_id": IDS[5].upper(), "title": "large"})
    scene.append(IDS[5].upper(), ("chat.created", {}))  # malformed, so that its document stays

    predicted, done = scene.rebuild("chat", dry_run=True), scene.rebuild("chat")
    for summary in (predicted, done):
        (failed,) = [item for item in summary.findings if item.failed]
        assert (failed.aggregate_id, str(failed.reason)) == (IDS[5], "key_held")
        assert "chat_id" in failed.detail
    assert predicted.read_models == done.read_models


def test_foreign_fields_that_differ_by_case_alone_from_owned_ones_come_along(scene: Scene) -> None:
    collated(scene, CASELESS, *BOTH)
    chat_id = scene.chat("one", id=IDS[5])
    scene.build()
    foreign = {"Title": "theirs", "CHAT_ID": 7}
    scene.chats.update_one({"chat_id": chat_id}, {"$set": foreign})
    scene.tasks.delete_many({})
    assert in_shadow(scene).ok
    assert foreign.items() <= found_in(scene.chats, {"chat_id": chat_id}).items()


class Backwards(ReadModelCollection):
    """Gives its documents in an order of its own, as a collation would."""

    def read(self, *asked: Any) -> Iterator[Any]:
        return reversed(list(super().read(*asked)))

    def stored(self, *within: Any) -> Iterator[Any]:
        return reversed(list(super().stored(*within)))


@pytest.fixture
def wrong_order(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene.index()
    for chat_id in IDS:
        scene.chat("right", id=chat_id)
    scene.build()
    monkeypatch.setattr("readmodel_pipelines.lanes.ReadModelCollection", Backwards)
    return scene


@pytest.mark.each_once
@pytest.mark.parametrize(
    "run",
    [
        lambda scene: scene.verify(),
        lambda scene: scene.rebuild(allow_deletions=True),
        lambda scene: scene.rebuild(dry_run=True),
        lambda scene: scene.projector().rebuild_some(IDS),
        lambda scene: repair(scene),
    ],
    ids=["verify", "rebuild", "dry run", "some", "repair"],
)
def test_a_read_model_in_another_order_ends_the_pass_before_anything_is_deleted(
    wrong_order: Scene, strategy: Strategy, run: Callable[[Scene], object]
) -> None:
    put(wrong_order, *map(task, IDS))
    before = {name: wrong_order.contents(name) for name in BOTH}
    with pytest.raises(OutOfOrder):
        run(wrong_order)
    assert {name: wrong_order.contents(name) for name in BOTH} == before


def test_streams_in_another_order_end_the_pass_too(scene: Scene, strategy: Strategy) -> None:
    # A spool is in order whatever the server gives.
    scene.settings = scene.settings.model_copy(update={"read_order": "index"})
    collated(scene, DANISH, *EVERYTHING, unique=False)
    for chat_id in IDS:
        scene.chat("right", id=chat_id)
    scene.build()
    for collection in (scene.chats, scene.tasks):
        # They go by bytes.
        collection.drop_indexes()
    before = {name: scene.contents(name) for name in BOTH}
    with mock.patch.dict("readmodel_pipelines.mongo.collection.BY_BYTES", DANISH), pytest.raises(OutOfOrder):
        scene.rebuild(allow_deletions=True)
    assert {name: scene.contents(name) for name in BOTH} == before


class Heard(monitoring.CommandListener):
    """The commands that say no collation, or another one."""

    def __init__(self) -> None:
        self.commands = 0
        self.wrong: list[Mapping[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        for part in _parts(event.command_name, event.command):
            self.commands += 1
            if dict(part.get("collation") or {}) != {"locale": "simple"}:
                self.wrong.append(event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


def _parts(name: str, command: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What of a command has a collation."""
    match name:
        case "find" | "distinct" | "findAndModify":
            return [command]
        case "explain":
            return [command["explain"]]
        case "update" | "delete" | "createIndexes":
            return list(command[{"update": "updates", "delete": "deletes", "createIndexes": "indexes"}[name]])
        case "count":
            return [command] if command.get("query") else []
        case "aggregate":
            stages = {stage for part in command["pipeline"] for stage in part}
            # A change stream has none but its own; `$merge` goes by the index on `_id`, which has the collection's.
            return [] if stages & {"$changeStream", "$merge"} else [command]
    return []


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    listener = Heard()

    def listened(*args: Any, **options: Any) -> MongoClient[Any]:
        return MongoClient(*args, **options, event_listeners=[listener])

    monkeypatch.setattr("readmodel_pipelines.mongo.client.MongoClient", listened)
    return listener


def test_every_verb_says_the_simple_collation(scene: Scene, settings: Settings, heard: Heard) -> None:
    scene.fill(12)
    ids = sorted(item["chat_id"] for item in scene.chats.find())

    def damaged() -> None:
        scene.chats.update_many({}, {"$set": {"title": "wrong"}})
        scene.tasks.delete_many({"task_id": {"$gt": ids[6]}})
        for key in ("orphan", 7):
            scene.chats.replace_one({"chat_id": key}, {"chat_id": key}, upsert=True)

    def queue(database: Mongo) -> None:
        tasks = RepairQueue(database, settings)
        tasks.add(ids[0], "chat")
        tasks.add_many(ids[1:3], "chat", "")
        list(tasks.tasks())
        tasks.stats()
        tasks.requeue(all_failed=True)
        tasks.purge("completed")

    with open_database(settings) as database:
        other = Scene(database, settings)
        for verb in (
            *(other.ensure_indexes, other.verify, lambda: look(other), lambda: look(other, tier="versions")),
            *(lambda: other.rebuild(dry_run=True), lambda: other.rebuild_one(ids[0]), other.rebuild),
            *(lambda: in_shadow(other), lambda: look(other), lambda: queue(database)),
            lambda: put(scene, *map(task, ids), task("no id"), task(ids[0], aggregate_type="unknown")),
            lambda: repair(other),
            lambda: examine(settings),
            lambda: EventRepository(database, settings).save(
                ids[0], "chat", [NewEvent("chat.renamed", {"new_title": "x"})], expected_version=_version(scene, ids[0])
            ),
        ):
            damaged()
            verb()
        (done,) = scene.database[names.REBUILDS].find({"strategy": "shadow"})
        roll_back(database, settings, done["_id"])
    with Exporter(settings, 20.0, lambda _: None) as exporter:
        text(exporter)
    assert heard.wrong == []
    assert heard.commands > 100


def _version(scene: Scene, chat_id: str) -> int:
    return int(found_in(scene.events, {"aggregate_id": chat_id}, sort=[("version", -1)])["version"])
