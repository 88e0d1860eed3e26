"""What the tests of the engine share: a scene, that is one database with streams, read models and a way to look at it.

Tests reach everything through the `scene` fixture: a small database of their own, opened exactly as production opens
it, with helpers to write streams, to break documents and to compare whole dumps byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import bson
import pytest
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pydantic import SecretStr
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.scan import CODEC
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild.batches import Batches
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.pacing import BatchSize
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.integration.command_line import cli, damaged, env, known  # noqa: F401
from readmodel_pipelines_tests.integration.rebuilding import Killed

Document = dict[str, Any]

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
FOREIGN = {"not_ours": {"deep": [1, {"kept": "yes"}], "none": None}, "z_index": 7.0}
BOTH = ("chats_read_model", "tasks_read_model")
TIME = "2026-03-01T08:00:00.123999999Z"


class Scene:
    """One database of events and read models."""

    duplicate = DuplicateKeyError

    def __init__(self, database: Database[Document], settings: Settings) -> None:
        self.database = database
        self.settings = settings
        seen = database.with_options(codec_options=CODEC)
        self.events: Collection[Document] = seen[settings.events_collection]
        self.chats: Collection[Document] = seen[settings.chats_collection]
        self.tasks: Collection[Document] = seen[settings.tasks_collection]

    # The engine

    def projector(self, *read_models: str, max_findings: int = 100_000, **changed: Any) -> ReadModelProjector:
        settings = self.settings.model_copy(update=changed)
        return ReadModelProjector(self.database, settings, *read_models, max_findings=max_findings)

    def rebuild(self, *read_models: str, **options: Any) -> Summary:
        return readable(self.projector(*read_models).rebuild_all(**options))

    def rebuild_one(self, aggregate_id: str, *read_models: str, **options: Any) -> Summary:
        return readable(self.projector(*read_models).rebuild_one(aggregate_id, **options))

    def verify(self, *read_models: str) -> Summary:
        return readable(self.projector(*read_models).verify_all())

    def verify_one(self, aggregate_id: str, *read_models: str) -> Summary:
        return readable(self.projector(*read_models).verify_consistency(aggregate_id))

    # What lies in the database

    def index(self) -> None:
        """The unique indexes, which are all that the engine looks at."""
        self.events.create_index([("aggregate_id", 1), ("version", 1)], unique=True)
        self.chats.create_index("chat_id", unique=True)
        for field in ("task_id", "chat_id"):
            self.tasks.create_index(field, unique=True)

    def ensure_indexes(self) -> None:
        ensure_indexes(self.database, self.settings, projections_for(self.settings))

    def add(self, events: Iterable[Document]) -> None:
        self.events.insert_many([{"_id": ObjectId(), **event} for event in events])

    def fill(self, streams: int = 24, seed: int = 1) -> list[str]:
        """Streams of both generations' kind as the settings have it, both read models right, foreign fields added."""
        self.index()
        self.add(chat_events(streams, seed=seed, mean_events=8))
        if self.settings.task_source == "task":
            self.add(task_events(streams, seed=seed, mean_events=6))
        assert self.rebuild().ok
        self.make_foreign()
        return sorted(document["chat_id"] for document in self.chats.find())

    def make_foreign(self) -> None:
        for collection in (self.chats, self.tasks):
            collection.update_many({}, {"$set": FOREIGN})

    @staticmethod
    def typed(value: Any) -> Any:
        return typed(value)

    def dump(self) -> dict[str, dict[bytes, bytes]]:
        """Every byte of every collection but the leases and the events, by `_id`; the events' number."""
        names = set(self.database.list_collection_names()) - {"readmodel_leases", self.events.name}
        # Stays, and is empty when nothing is put off.
        names -= {"readmodel_deferred"} if self.database["readmodel_deferred"].find_one({}) is None else set()
        counted = {b"": str(self.events.count_documents({})).encode()}
        return {self.events.name: counted, **{name: self._bytes_of(name) for name in sorted(names)}}

    def _bytes_of(self, name: str) -> dict[bytes, bytes]:
        return {_id(document): document.raw for document in self.raw(name).find()}

    def raw(self, name: str) -> Collection[Any]:
        return self.database.get_collection(name, codec_options=RAW)

    def contents(self, name: str) -> dict[str, list[Document]]:
        """The documents by key without `_id`, fields in one order: what two right read models have in common."""
        key = "task_id" if name == self.settings.tasks_collection else "chat_id"
        found: dict[str, list[Document]] = {}
        for document in self.database.get_collection(name, codec_options=CODEC).find({}, {"_id": 0}):
            found.setdefault(repr(document.get(key)), []).append(typed(document))
        return found

    def everything(self) -> list[dict[str, list[Document]]]:
        return [self.contents(self.settings.chats_collection), self.contents(self.settings.tasks_collection)]

    # Streams by hand

    def chat(self, name: str, *more: tuple[str, Document], kind: str = "task", id: Any = None) -> str:  # noqa: A002
        """A chat stream: created, titled, and what comes on top."""
        chat_id = uuid(name) if id is None else id
        created = {"workspace_id": uuid("w"), "type": kind, "is_public": True, "created_by": uuid("u")}
        renamed = ("chat.renamed", {"new_title": name})
        self.stream(chat_id, "Chat", ("chat.created", {**created, "created_at": TIME}), renamed, *more)
        return str(chat_id)

    def task(self, name: str, chat_id: str | None, *more: tuple[str, Document]) -> str:
        """A legacy task stream that claims that chat id; None leaves it out."""
        created = {"Title": name, "EntityType": "task", "Status": "To Do", "Priority": "Low", "CreatedBy": uuid("u")}
        own = created if chat_id is None else {"ChatID": chat_id, **created}
        self.stream(uuid(name), "Task", ("task.created", own), *more)
        return uuid(name)

    def stream(self, aggregate_id: Any, aggregate_type: str, *events: tuple[str, Document], first: int = 1) -> None:
        self.add(
            event(aggregate_id, aggregate_type, version, event_type, data)
            for version, (event_type, data) in enumerate(events, first)
        )

    def append(self, chat_id: str, *events: tuple[str, Document]) -> None:
        """The application appends to a chat stream."""
        last = self.events.find_one({"aggregate_id": chat_id}, sort=[("version", -1)])
        self.stream(chat_id, "Chat", *events, first=1 if last is None else last["version"] + 1)

    def put(self, *events: tuple[Any, Any, Any], aggregate_id: Any) -> list[Any]:
        """Store (version, event type, data) as one stream, however odd; gives the `_id`s. `...` leaves a field out."""
        documents = [event(aggregate_id, "Chat", *parts) for parts in events]
        for document in documents:
            self.events.insert_one({name: value for name, value in document.items() if value is not ...})
        return [document["_id"] for document in documents]


def event(aggregate_id: Any, aggregate_type: str, version: Any, event_type: Any, data: Any) -> Document:
    return {
        "_id": ObjectId(),
        "aggregate_id": aggregate_id,
        "aggregate_type": aggregate_type,
        "event_type": event_type,
        "version": version,
        "data": data,
        "metadata": {"correlation_id": ""},
    }


def uuid(name: object) -> str:
    return str(uuid5(NAMESPACE_URL, str(name)))


def _id(document: RawBSONDocument) -> bytes:
    return bson.encode({"_id": bson.decode(document.raw, CODEC)["_id"]})


def typed(value: Any) -> Any:
    """The value with its types beside it, so that 1, 1.0, true and int64 1 are unlike; fields in alphabetical order."""
    if isinstance(value, dict):
        return {name: typed(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, repr(value)


def readable(summary: Summary) -> Summary:
    """A summary must always be printable as JSON, and its counts must agree with one another."""
    json.dumps(summary.as_json())
    for name, counts in summary.read_models.items():
        parts = (counts.same, counts.discrepancies)
        assert counts.checked == sum(parts), name
        of_model = [finding for finding in summary.findings if finding.read_model == name]
        assert len(of_model) == counts.discrepancies, name
    return summary


class OtherWriter:
    """Runs another writer's change just before one of our writes reaches the server."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.times = 0

    def before(self, method: str, act: Callable[[list[Any]], object], *, when: Callable[[list[Any]], bool]) -> None:
        """`act` on the changes of every call of `method` (`write`, `swap`) for which `when` says so."""
        original = getattr(ReadModelCollection, method)

        def interrupted(model: ReadModelCollection, changes: Any) -> Any:
            if when(changes):
                self.times += 1
                act(changes)
            return original(model, changes)

        self._patch.setattr(ReadModelCollection, method, interrupted)

    def once_before(self, method: str, kind: str, act: Callable[[list[Any]], object]) -> None:
        """`act` before the first batch that holds a change of that kind: `insert`, `replace` or `delete`."""
        self.before(method, act, when=lambda changes: not self.times and any(kind_of(item) == kind for item in changes))


def kind_of(change: Any) -> str:
    if change.expected is None:
        return "delete"
    return "insert" if change.actual is None else "replace"


@pytest.fixture(scope="session")
def opened(mongodb_uri: str) -> Iterator[Database[Document]]:
    """A database as production opens it; its client and its concerns are those of every test."""
    with open_database(Settings(mongodb_uri=SecretStr(mongodb_uri))) as database:
        yield database


@pytest.fixture
def scene(opened: Database[Document], settings: Settings) -> Iterator[Scene]:
    """Tasks come from chat streams."""
    yield from _scene(opened, settings)


@pytest.fixture
def legacy_scene(opened: Database[Document], legacy_settings: Settings) -> Iterator[Scene]:
    """Tasks come from legacy task streams."""
    yield from _scene(opened, legacy_settings)


def _scene(opened: Database[Document], settings: Settings) -> Iterator[Scene]:
    yield Scene(_named(opened, settings.database), settings)
    # Whatever the server keeps makes each collection that comes later dearer: after hundreds of tests, three times.
    opened.client.drop_database(settings.database)


def _named(opened: Database[Document], name: str) -> Database[Document]:
    concerns = opened.read_preference, opened.write_concern, opened.read_concern
    return Database(opened.client, name, opened.codec_options, *concerns)


@pytest.fixture
def other_writer(monkeypatch: pytest.MonkeyPatch) -> OtherWriter:
    return OtherWriter(monkeypatch)


@pytest.fixture
def finding() -> Callable[[Summary, Any], Finding]:
    """The one finding about an aggregate; there must be exactly one."""

    def find(summary: Summary, aggregate_id: Any, read_model: str | None = None) -> Finding:
        (only,) = [
            item
            for item in summary.findings
            if typed(item.aggregate_id) == typed(aggregate_id) and read_model in (None, item.read_model)
        ]
        return only

    return find


@pytest.fixture
def neighbours(scene: Scene) -> list[str]:
    """Two right aggregates, whose documents are damaged."""
    scene.index()
    ids = [
        scene.chat("before", id="00000000-0000-4000-a000-000000000000"),
        scene.chat("behind", id="ffffffff-0000-4000-a000-000000000000"),
    ]
    assert scene.rebuild().ok
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
                    collection.insert_one({**collection.find_one({}, {"_id": 0}), **keyed})
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
        for summary in (scene.verify(), scene.rebuild(dry_run=True), scene.rebuild()):
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
    monkeypatch.setattr("readmodel_pipelines.rebuild.worker.BatchSize", lambda: small)


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch, small_batches: None) -> Any:
    """Lets a rebuild die after so many batches, at most once."""

    def after(batches: int) -> None:
        reached = Batches.reached
        left = [batches]

        def counting(self: Batches, aggregate_id: str) -> None:
            reached(self, aggregate_id)
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        monkeypatch.setattr(Batches, "reached", counting)

    return after


@pytest.fixture
def ids(scene: Any) -> list[str]:
    """Chats whose documents are right, in order."""
    scene.ensure_indexes()
    made = [scene.chat(f"chat {number}") for number in range(6)]
    assert scene.rebuild().ok
    scene.make_foreign()
    return sorted(made)
