"""A scene: one small database with streams and read models, opened as production opens it, and a way to look at it.

It has helpers to write streams, to break documents and to compare whole dumps byte by byte.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

import bson
import pytest
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.database import Database

from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.mongo.driver import CODEC
from readmodel_pipelines.mongo.driver import Collection as ByBytes
from readmodel_pipelines.mongo.indexes import ensure_indexes
from readmodel_pipelines.mongo.names import DEFERRED, LEASES, REBUILDS, TOUCHED
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings

Document = dict[str, Any]
Mongo = Database[Document]
FindingOf = Callable[..., Finding]
"""The one finding about an aggregate; there must be exactly one."""
Found = TypeVar("Found", bound=Mapping[str, Any])

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
FOREIGN = {"not_ours": {"deep": [1, {"kept": "yes"}], "none": None}, "z_index": 7.0}
BOTH = ("chats_read_model", "tasks_read_model")
TIME = "2026-03-01T08:00:00.123999999Z"

in_place_alone = pytest.mark.parametrize("strategy", ["in_place"], indirect=True)
"""For a test of a file of both strategies that means something in place alone."""


def make_right(database: Mongo, settings: Settings) -> None:
    """Have every document as its events say, and no rebuild on record; a full one costs four times as much."""
    ids = ByBytes(database, settings.events_collection).distinct("aggregate_id")
    summary, unknown = ReadModelProjector(database, settings).rebuild_some(ids)
    assert (summary.ok, unknown) == (True, [])


class Scene:
    """One database of events and read models."""

    def __init__(self, database: Mongo, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.strategy: Strategy = "in_place"
        self.events = self.collection(settings.events_collection)
        self.chats = self.collection(settings.chats_collection)
        self.tasks = self.collection(settings.tasks_collection)

    # The engine

    def projector(self, *read_models: str, max_findings: int = 100_000, **changed: Any) -> ReadModelProjector:
        settings = self.settings.model_copy(update=changed)
        return ReadModelProjector(self.database, settings, *read_models, max_findings=max_findings)

    def rebuild(self, *read_models: str, **options: Any) -> Summary:
        if not options.get("dry_run"):
            options = {"strategy": self.strategy, **options}
        return readable(self.projector(*read_models).rebuild_all(**options))

    def rebuild_one(self, aggregate_id: str, *read_models: str, **options: Any) -> Summary:
        return readable(self.projector(*read_models).rebuild_one(aggregate_id, **options))

    def verify(self, *read_models: str) -> Summary:
        return readable(self.projector(*read_models).verify_all())

    def verify_one(self, aggregate_id: str, *read_models: str) -> Summary:
        return readable(self.projector(*read_models).verify_consistency(aggregate_id))

    # What lies in the database

    def collection(self, name: str) -> ByBytes:
        return ByBytes(self.database, name, codec_options=CODEC)

    def index(self) -> None:
        """The unique indexes as the application makes them, with the collation of the collection if it has one."""
        self.events.create_index([("aggregate_id", 1), ("version", 1)], unique=True, collation=None)
        self.chats.create_index("chat_id", unique=True, collation=None)
        for field in ("task_id", "chat_id"):
            self.tasks.create_index(field, unique=True, collation=None)

    def ensure_indexes(self) -> None:
        ensure_indexes(self.database, self.settings)

    def add(self, events: Iterable[Document]) -> None:
        self.events.insert_many([{"_id": ObjectId(), **event} for event in events])

    def fill(self, streams: int = 24, seed: int = 1) -> list[str]:
        """Streams of both generations' kind as the settings have it, both read models right, foreign fields added."""
        self.index()
        self.add(chat_events(streams, seed=seed, mean_events=8))
        if self.settings.task_source == "task":
            self.add(task_events(streams, seed=seed, mean_events=6))
        self.build()
        self.make_foreign()
        return sorted(document["chat_id"] for document in self.chats.find())

    def build(self) -> None:
        """Both read models right, as if they had always been."""
        make_right(self.database, self.settings)

    def make_foreign(self) -> None:
        for collection in (self.chats, self.tasks):
            collection.update_many({}, {"$set": FOREIGN})

    @contextmanager
    def profiled(self) -> Iterator[list[Document]]:
        """What the server does in the block, told when that is over."""
        work: list[Document] = []
        self.database.command("profile", 2)
        try:
            yield work
        finally:
            self.database.command("profile", 0)
        work += self.database["system.profile"].find()

    def dump(self) -> dict[str, dict[bytes, bytes]]:
        """Every byte of every collection but the events and what rebuilds keep of themselves, by `_id`.

        Of the events their number.
        """
        own = {LEASES, REBUILDS, DEFERRED, TOUCHED}
        names = set(self.database.list_collection_names()) - {*own, self.events.name}
        counted = {b"": str(self.events.count_documents({})).encode()}
        return {self.events.name: counted, **{name: self._bytes_of(name) for name in sorted(names)}}

    def _bytes_of(self, name: str) -> dict[bytes, bytes]:
        return {_id(document): document.raw for document in self.raw(name).find()}

    def raw(self, name: str) -> Collection[Any]:
        return self.database.get_collection(name, codec_options=RAW)

    def replace_bytes(self, name: str, where: Document, old: bytes, new: bytes) -> None:
        """Inside a document, as no driver would write them; it keeps its length, so that it is BSON still."""
        raw = taken_from(self.raw(name), where).raw
        assert old in raw
        assert len(old) == len(new)
        self.raw(name).insert_one(RawBSONDocument(raw.replace(old, new)))

    def contents(self, name: str) -> dict[str, list[Document]]:
        """The documents by key without `_id`, fields in one order: what two right read models have in common."""
        key = "task_id" if name == self.settings.tasks_collection else "chat_id"
        found: dict[str, list[Document]] = {}
        for document in self.collection(name).find({}, {"_id": 0}):
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

    def stream(self, aggregate_id: Any, aggregate_type: Any, *events: tuple[str, Document], first: int = 1) -> None:
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


def event(aggregate_id: Any, aggregate_type: Any, version: Any, event_type: Any, data: Any) -> Document:
    return {
        "_id": ObjectId(),
        "aggregate_id": aggregate_id,
        "aggregate_type": aggregate_type,
        "event_type": event_type,
        "version": version,
        "data": data,
        "metadata": {"correlation_id": ""},
    }


def found_in(collection: Collection[Found], *where: Any, **options: Any) -> Found:
    """The document that is there."""
    found = collection.find_one(*where, **options)
    assert found is not None, where
    return found


def taken_from(collection: Collection[Found], where: Document) -> Found:
    """The document, which is not there any more."""
    taken = collection.find_one_and_delete(where)
    assert taken is not None, where
    return taken


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
