"""The recorded corpus: what the real application wrote is what a rebuild makes, to the BSON type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines_tests.support.recorded import read_documents
from readmodel_pipelines_tests.support.scene import Scene, typed

NO_WRITES = {"inserted": 0, "replaced": 0, "deleted": 0, "superseded": 0, "failed": 0}
COUNTED_APART = {"task.updated", "task.custom_field_set", "task.deleted"}


@pytest.fixture(scope="session")
def recorded(corpus: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Reads a file of the corpus."""
    return lambda name: read_documents(corpus / f"{name}.jsonl.gz")


@pytest.fixture
def small(scene: Scene, recorded: Any) -> Scene:
    scene.index()
    scene.events.insert_many(recorded("small/events"))
    return scene


@pytest.fixture
def step(whole: bool) -> int:
    """Of the streams that are done one by one, how many of which one is enough but in the whole run."""
    return 1 if whole else 5


@pytest.fixture
def legacy(legacy_scene: Scene, recorded: Any) -> Scene:
    legacy_scene.index()
    legacy_scene.events.insert_many(recorded("legacy_tasks/events"))
    return legacy_scene


def by_key(scene: Scene, documents: list[dict[str, Any]], key: str) -> dict[str, list[Any]]:
    return {
        repr(document[key]): [typed({name: value for name, value in document.items() if name != "_id"})]
        for document in documents
    }


def assert_as_recorded(scene: Scene, recorded: Any, *ids: str) -> None:
    """Everything, or the documents with these ids and no others."""
    for name, key in (("chats_read_model", "chat_id"), ("tasks_read_model", "task_id")):
        wanted = [document for document in recorded(f"small/{name}") if not ids or document[key] in ids]
        assert scene.contents(name) == by_key(scene, wanted, key)


def written_to(scene: Scene) -> int:
    """Entries of the oplog about the read models of this database, those inside transactions included."""
    names = [f"{scene.database.name}.{name}" for name in ("chats_read_model", "tasks_read_model")]
    about = {"$or": [{"ns": {"$in": names}}, {"o.applyOps.ns": {"$in": names}}]}
    return int(scene.database.client.local["oplog.rs"].count_documents(about))


def test_a_rebuild_makes_what_the_application_wrote(small: Scene, recorded: Any) -> None:
    summary = small.rebuild()

    assert_as_recorded(small, recorded)
    assert summary.ok
    assert summary.events == len(recorded("small/events"))
    assert summary.warnings == []


def test_a_second_rebuild_writes_nothing_at_all(small: Scene) -> None:
    first = written_to(small)
    small.rebuild()
    once = written_to(small)
    before = small.dump()
    summary = small.rebuild()

    assert once > first
    assert written_to(small) == once
    assert small.dump() == before
    for counts in summary.read_models.values():
        assert {name: getattr(counts, name) for name in NO_WRITES} == NO_WRITES
        assert counts.same == counts.checked
    assert small.verify().ok


@pytest.mark.each_once
def test_each_id_alone_makes_the_same(small: Scene, recorded: Any, step: int) -> None:
    ids = sorted(small.events.distinct("aggregate_id"))[::step]
    for aggregate_id in ids:
        assert small.rebuild_one(aggregate_id).ok
        assert small.verify_one(aggregate_id).ok
    assert_as_recorded(small, recorded, *ids)
    before = written_to(small)
    for aggregate_id in ids:
        assert small.rebuild_one(aggregate_id).ok
    assert written_to(small) == before


def test_one_read_model_alone_makes_the_same_and_touches_no_other(small: Scene, recorded: Any) -> None:
    small.rebuild("task")
    assert small.contents("tasks_read_model") == by_key(small, recorded("small/tasks_read_model"), "task_id")
    assert small.contents("chats_read_model") == {}
    small.rebuild("chat")
    assert_as_recorded(small, recorded)


def test_legacy_tasks_are_what_the_repository_wrote(legacy: Scene, recorded: Any) -> None:
    assert legacy.rebuild("task").ok

    wanted = by_key(legacy, recorded("legacy_tasks/tasks_written_by_repository"), "task_id")
    rebuilt_by_old_tool = by_key(legacy, recorded("legacy_tasks/tasks_read_model"), "task_id")
    counted = {"aggregate_type": "Task", "event_type": {"$in": sorted(COUNTED_APART)}}
    apart = legacy.events.distinct("aggregate_id", counted)
    assert apart
    for key in apart:
        wanted[repr(key)][0]["version"] = rebuilt_by_old_tool[repr(key)][0]["version"]
    assert legacy.contents("tasks_read_model") == wanted
    assert legacy.verify("task").ok


@pytest.mark.each_once
def test_each_legacy_task_alone_is_the_same(legacy: Scene, step: int) -> None:
    legacy.rebuild("task")
    right = legacy.contents("tasks_read_model")
    ids = sorted(legacy.events.distinct("aggregate_id", {"aggregate_type": "Task"}))[::step]
    assert legacy.tasks.delete_many({"task_id": {"$in": ids}}).deleted_count == len(ids)
    for aggregate_id in ids:
        assert legacy.rebuild_one(aggregate_id, "task").ok
    assert legacy.contents("tasks_read_model") == right


def test_the_old_tool_s_wrong_creation_times_are_found_and_mended(legacy: Scene, recorded: Any) -> None:
    legacy.tasks.insert_many(recorded("legacy_tasks/tasks_read_model"))

    counts = legacy.verify("task").read_models["tasks_read_model"]
    assert (counts.checked, counts.different) == (100, 100)
    summary = legacy.rebuild("task")
    assert summary.read_models["tasks_read_model"].replaced == 100
    assert {field for item in summary.findings for field in item.fields} == {"created_at"}
    assert legacy.verify("task").ok
