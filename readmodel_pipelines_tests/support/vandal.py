"""Whatever can be broken in read models and streams, at random."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

from bson import MinKey, ObjectId
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.demo.damage import CHATS, LEGACY_TASKS, TASKS, OwnedFields, break_field
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines_tests.support.scene import Scene, found_in


class Vandal:
    """Breaks a scene at random; some of what it tries the indexes refuse, which is well."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.rng = Random(seed)
        legacy = scene.settings.task_source == "task"
        self.models: list[tuple[Any, OwnedFields]] = [
            (scene.chats, CHATS),
            (scene.tasks, LEGACY_TASKS if legacy else TASKS),
        ]
        self.legacy = legacy

    def uuid(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128), version=4))

    def some(self, collection: Any, most: int) -> list[dict[str, Any]]:
        documents = sorted(collection.find(), key=lambda document: repr(document["_id"]))
        return self.rng.sample(documents, min(most, len(documents)))

    def fields(self) -> None:
        for collection, model in self.models:
            for document in self.some(collection, self.rng.randrange(6)):
                field = self.rng.choice(list(model.fields))
                way = self.rng.choice(model.fields[field])
                with suppress(UsageError, DuplicateKeyError):
                    break_field(collection, model, document[model.key], field, way)

    def removed(self) -> None:
        for collection, _ in self.models:
            for document in self.some(collection, self.rng.randrange(4)):
                collection.delete_one({"_id": document["_id"]})

    def odd_keys(self) -> None:
        for collection, model in self.models:
            odd = [None, 5, 5.0, ObjectId(), ["x", "y"], [], {"a": 1}, b"x", MinKey(), True, "no uuid", "\U0001f41b"]
            for document in self.some(collection, self.rng.randrange(4)):
                self.set(collection, document, {model.key: self.rng.choice(odd)})

    def orphans(self) -> None:
        for collection, model in self.models:
            for document in self.some(collection, self.rng.randrange(4)):
                clone = {**document, "_id": ObjectId(), "chat_id": self.uuid(), model.key: self.uuid()}
                self.insert(collection, clone)

    def duplicates(self) -> None:
        for collection, model in self.models:
            if self.rng.random() < 0.5:
                continue
            for index in (f"{model.key}_1", "chat_id_1"):
                if index in collection.index_information() and self.rng.random() < 0.7:
                    collection.drop_index(index)
                    if self.rng.random() < 0.5:
                        collection.create_index(index[:-2], name=f"plain {index}")
            for document in self.some(collection, 3):
                chat_id = self.rng.choice([self.uuid(), document.get("chat_id")])
                copy = {**document, "_id": ObjectId(), "chat_id": chat_id}
                if model is CHATS:
                    copy["chat_id"] = document["chat_id"]
                self.insert(collection, copy)

    def moved_keys(self) -> None:
        """Cycles and chains of chat_ids among the tasks."""
        tasks = self.scene.tasks
        chosen = self.some(tasks, self.rng.randrange(2, 7))
        chat_ids = [document.get("chat_id") for document in chosen]
        for document in chosen:
            self.set(tasks, document, {"chat_id": self.uuid()})
        shift = self.rng.choice([1, 2])
        for position, document in enumerate(chosen[: self.rng.randrange(1, len(chosen) + 1)] if chosen else []):
            self.set(tasks, document, {"chat_id": chat_ids[(position + shift) % len(chat_ids)]})

    def malformed(self) -> None:
        kinds = ["Chat", "Task"] if self.legacy else ["Chat"]
        for kind in kinds:
            ids = sorted(self.scene.events.distinct("aggregate_id", {"aggregate_type": kind}), key=repr)
            for aggregate_id in self.rng.sample(ids, min(len(ids), self.rng.randrange(3))):
                last = found_in(self.scene.events, {"aggregate_id": aggregate_id}, sort=[("version", -1)])
                first = last["version"] + 1 if isinstance(last.get("version"), int) else 1
                self.scene.stream(aggregate_id, kind, ("nobody.knows", {}), first=first)

    def contested(self) -> None:
        if self.legacy:
            for created in self.some(self.scene.events, 200):
                if created["event_type"] == "task.created" and self.rng.random() < 0.2:
                    self.scene.task(self.uuid(), self.rng.choice([created["data"].get("ChatID"), None, self.uuid()]))

    def unwanted(self) -> None:
        template = found_in(self.scene.tasks)
        for chat in self.some(self.scene.chats, 3):
            clone = {**template, "_id": ObjectId(), "task_id": chat.get("chat_id"), "chat_id": chat.get("chat_id")}
            self.insert(self.scene.tasks, clone)

    def set(self, collection: Any, document: dict[str, Any], change: dict[str, Any]) -> None:
        with suppress(DuplicateKeyError):
            collection.update_one({"_id": document["_id"]}, {"$set": change})

    def insert(self, collection: Any, document: dict[str, Any]) -> None:
        with suppress(DuplicateKeyError):
            collection.insert_one(document)

    def rampage(self, *, everything: bool = False) -> None:
        acts: list[Callable[[], None]] = [
            *(self.fields, self.removed, self.odd_keys, self.orphans, self.duplicates),
            *(self.moved_keys, self.malformed, self.contested, self.unwanted),
        ]
        for act in acts if everything else self.rng.sample(acts, self.rng.randrange(2, len(acts) + 1)):
            act()
