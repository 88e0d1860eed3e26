"""The fixtures of the engine's tests: a scene, whatever else writes to it, and streams that are damaged."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from pydantic import SecretStr
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.pacing import BatchSize
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, dying, nth, raises
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import BOTH, FindingOf, Mongo, Scene, found_in, typed
from readmodel_pipelines_tests.support.verbs.command_line import cli, damaged, env, known  # noqa: F401
from readmodel_pipelines_tests.support.verbs.rebuilding import KilledAfter, full, taken_over


@pytest.fixture(scope="session")
def opened(mongodb_uri: str) -> Iterator[Mongo]:
    """A database as production opens it; its client and its concerns are those of every test."""
    with open_database(Settings(mongodb_uri=SecretStr(mongodb_uri))) as database:
        yield database


@pytest.fixture
def scene(opened: Mongo, settings: Settings) -> Iterator[Scene]:
    """Tasks come from chat streams."""
    yield from scene_of(opened, settings)


@pytest.fixture
def legacy_scene(opened: Mongo, legacy_settings: Settings) -> Iterator[Scene]:
    """Tasks come from legacy task streams."""
    yield from scene_of(opened, legacy_settings)


def scene_of(opened: Mongo, settings: Settings) -> Iterator[Scene]:
    """A scene in the database of these settings, which is dropped behind it."""
    yield Scene(_named(opened, settings.database), settings)
    # Whatever the server keeps makes each collection that comes later dearer: after hundreds of tests, three times.
    opened.client.drop_database(settings.database)


def _named(opened: Mongo, name: str) -> Mongo:
    concerns = opened.read_preference, opened.write_concern, opened.read_concern
    return Database(opened.client, name, opened.codec_options, *concerns)


@pytest.fixture
def at() -> Iterator[At]:
    with ExitStack() as listeners:
        yield lambda moment, act: listeners.enter_context(listening(moment, act))


@pytest.fixture
def lives_end(at: At) -> Callable[[], None]:
    """The life of every lease is over, as far as its holder knows: it asks the server before it writes again."""
    doubts: list[Callable[[], None]] = []
    for moment in (Moment.LEASE_TAKEN, Moment.LEASE_ASKED_FOR):
        at(moment, lambda doubt: doubts.append(doubt))

    def end() -> None:
        for doubt in doubts:
            doubt()

    return end


@pytest.fixture
def lose_leases(scene: Scene, lives_end: Callable[[], None]) -> Callable[[], None]:
    """Somebody takes over all leases once their lives are over."""

    def lose() -> None:
        taken_over(scene)
        lives_end()

    return lose


@pytest.fixture
def other_writer(at: At) -> OtherWriter:
    return OtherWriter(at)


@pytest.fixture
def finding() -> FindingOf:
    """The one finding about an aggregate; there must be exactly one."""

    def find(summary: Summary, aggregate_id: Any, read_model: str | None = None) -> Finding:
        (only,) = [
            item
            for item in summary.findings
            if typed(item.aggregate_id) == typed(aggregate_id) and read_model in (None, item.read_model)
        ]
        return only

    return find


@pytest.fixture(params=["in_place", "shadow"])
def strategy(request: pytest.FixtureRequest, scene: Scene) -> Strategy:
    """A full rebuild of the scene is done in each."""
    scene.strategy = request.param
    return scene.strategy


@pytest.fixture
def neighbours(scene: Scene) -> list[str]:
    """Two right aggregates, whose documents are damaged."""
    scene.index()
    ids = [
        scene.chat("before", id="00000000-0000-4000-a000-000000000000"),
        scene.chat("behind", id="ffffffff-0000-4000-a000-000000000000"),
    ]
    scene.build()
    for collection in (scene.chats, scene.tasks):
        collection.update_many({}, {"$set": {"title": "damaged"}})
    return ids


@pytest.fixture
def old(scene: Scene, neighbours: list[str]) -> Callable[..., dict[str, Any]]:
    """Gives streams documents from better times, or tells what became of these."""

    def documents(*keys: Any) -> dict[str, Any]:
        for key in keys:
            keyed = {"chat_id": key, "task_id": key, "old": True}
            for collection in (scene.chats, scene.tasks):
                with suppress(DuplicateKeyError):  # The array of a neighbour's id, for one.
                    collection.insert_one({**found_in(collection, {}, {"_id": 0}), **keyed})
        return {name: [doc.raw for doc in scene.raw(name).find({"old": True}).sort("_id")] for name in BOTH}

    return documents


@pytest.fixture
def found_malformed(scene: Scene, neighbours: list[str], old: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Every verb finds these streams malformed for both read models, leaves documents and mends the neighbours.

    `wanted` has a tuple for each: aggregate id, reason, `_id` and version of the first offending event.
    """

    def check(*wanted: tuple[Any, str, Any, Any]) -> None:
        before = old(*[want[0] for want in wanted])
        everything = sorted(
            (name, repr(key), reason, event_id, repr(n)) for key, reason, event_id, n in wanted for name in BOTH
        )
        # Only a rebuild has a strategy.
        looks = [scene.verify(), scene.rebuild(dry_run=True)] if scene.strategy == "in_place" else []
        for summary in (*looks, scene.rebuild()):
            malformed = [item for item in summary.findings if item.outcome == "malformed"]
            assert everything == sorted(
                (item.read_model, repr(item.aggregate_id), str(item.reason), item.event_id, repr(item.version))
                for item in malformed
            )
            assert all(item.detail for item in malformed)
            assert not summary.ok
            assert [counts.malformed for counts in summary.read_models.values()] == [len(wanted)] * 2
            assert [counts.failed for counts in summary.read_models.values()] == [0, 0]
        assert old() == before
        for key in neighbours:
            assert scene.verify_one(key).ok

    return check


@pytest.fixture
def plain_index(scene: Scene, neighbours: list[str]) -> None:
    """The events' index without being unique, for streams that the application could not have written."""
    scene.events.drop_indexes()
    scene.events.create_index([("aggregate_id", 1), ("version", 1)])


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is over after three streams."""
    small = BatchSize(first=3, least=3, most=3)
    monkeypatch.setattr("readmodel_pipelines.rebuild.worker.BatchSize", lambda **_: small)


@pytest.fixture
def killed_after(scene: Scene, at: At, small_batches: None) -> KilledAfter:
    def rebuild(batches: int, *names: str, **options: Any) -> None:
        at(Moment.BATCH_SAVED, nth(batches, raises(Killed())))
        with dying():
            full(scene, *names, **options)

    return rebuild


@pytest.fixture
def ids(scene: Scene) -> list[str]:
    """Chats whose documents are right, in order."""
    scene.index()
    made = [scene.chat(f"chat {number}") for number in range(6)]
    scene.build()
    scene.make_foreign()
    return sorted(made)
