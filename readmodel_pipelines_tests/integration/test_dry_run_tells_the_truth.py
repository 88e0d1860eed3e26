"""A dry run says exactly what the rebuild then does, whatever is broken at once: seeded random damage."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import pytest
from bson import MinKey, ObjectId
from pymongo.errors import DuplicateKeyError

from readmodel_pipelines.demo.damage import CHATS, LEGACY_TASKS, TASKS, OwnedFields, break_field
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines_tests.support.scene import Scene, found_in

WRITES = ("inserted", "replaced", "deleted", "failed")


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
                self.scene.stream(aggregate_id, kind, ("nobody.knows", {}), first=last["version"] + 1)

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

    def rampage(self) -> None:
        acts: list[Callable[[], None]] = [
            *(self.fields, self.removed, self.odd_keys, self.orphans, self.duplicates),
            *(self.moved_keys, self.malformed, self.contested, self.unwanted),
        ]
        for act in self.rng.sample(acts, self.rng.randrange(2, len(acts) + 1)):
            act()


def writes(summary: Any) -> dict[str, dict[str, int]]:
    return {name: {write: getattr(counts, write) for write in WRITES} for name, counts in summary.read_models.items()}


def told(summary: Any) -> list[tuple[Any, ...]]:
    """What each finding says; a failed one has its reason there."""
    return sorted(
        (item.read_model, repr(item.aggregate_id), item.outcome, str(item.reason)) for item in summary.findings
    )


@pytest.fixture(params=["chat", "task"])
def any_scene(request: pytest.FixtureRequest) -> Scene:
    scene: Scene = request.getfixturevalue("scene" if request.param == "chat" else "legacy_scene")
    return scene


@pytest.mark.parametrize("seed", range(9))
def test_a_dry_run_predicts_a_full_rebuild(any_scene: Scene, seed: int) -> None:
    any_scene.fill(24, seed)
    Vandal(any_scene, seed).rampage()
    before = any_scene.dump()

    predicted = any_scene.rebuild(dry_run=True)
    assert any_scene.dump() == before, f"seed {seed}: the dry run wrote"
    done = any_scene.rebuild()

    assert writes(predicted) == writes(done), f"seed {seed}"
    assert told(predicted) == told(done), f"seed {seed}"
    assert all(counts.superseded == 0 for counts in done.read_models.values()), f"seed {seed}: nobody else wrote"
    again = any_scene.rebuild()
    assert [counts["inserted"] + counts["replaced"] + counts["deleted"] for counts in writes(again).values()] == [0, 0]
    left = any_scene.verify()
    unhealed = sum(counts.failed for counts in done.read_models.values())
    malformed = sum(counts.malformed for counts in done.read_models.values())
    assert sum(counts.discrepancies for counts in left.read_models.values()) == malformed + unhealed, f"seed {seed}"


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_dry_run_predicts_the_rebuild_of_each_one(any_scene: Scene, seed: int) -> None:
    any_scene.fill(10, seed)
    Vandal(any_scene, seed).rampage()
    ids = sorted(any_scene.events.distinct("aggregate_id"))
    Random(seed).shuffle(ids)

    for aggregate_id in ids:
        before = any_scene.dump()
        predicted = any_scene.rebuild_one(aggregate_id, dry_run=True)
        assert any_scene.dump() == before, f"seed {seed}, {aggregate_id}: the dry run wrote"
        done = any_scene.rebuild_one(aggregate_id)
        assert writes(predicted) == writes(done), f"seed {seed}, {aggregate_id}"
        assert told(predicted) == told(done), f"seed {seed}, {aggregate_id}"
        verified = any_scene.verify_one(aggregate_id)
        assert verified.ok == done.ok, f"seed {seed}, {aggregate_id}"
