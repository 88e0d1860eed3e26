"""Findings go into the repair queue: once each, within its limits, no more deletions than a rebuild would dare."""

import pytest

from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.verifying import damage, look


def test_findings_go_into_the_queue_once_and_malformed_ones_do_not(scene: Scene) -> None:
    chats = scene.fill(30)
    damage(scene)
    scene.tasks.update_one({"task_id": chats[0]}, {"$set": {"title": "broken"}})
    first = look(scene, enqueue_repairs=True)
    tasks = list(scene.database.repair_queue.find())
    wanted = {
        item.aggregate_id for item in first.findings if item.outcome != "malformed" and len(item.aggregate_id) == 36
    }
    assert {task["aggregate_id"] for task in tasks} == wanted
    assert len(tasks) == len(wanted) == first.about["queued"]
    assert {task["task_type"] for task in tasks} == {"readmodel_sync"}
    second = look(scene, enqueue_repairs=True)
    assert (second.about["queued"], scene.database.repair_queue.count_documents({})) == (0, len(wanted))
    assert second.about["pending_already"] >= len(wanted)


@pytest.mark.parametrize("limit", ["enqueue_limit", "repair_queue_limit"])
def test_no_more_than_the_limit_is_queued_and_the_rest_is_told(scene: Scene, limit: str) -> None:
    scene.fill(30)
    scene.chats.delete_many({})
    scene.settings = scene.settings.model_copy(update={limit: 7})
    summary = look(scene, "chat", enqueue_repairs=True)
    assert scene.database.repair_queue.count_documents({}) == summary.about["queued"] == 7
    assert any("23 findings were not queued" in warning for warning in summary.warnings)


def test_what_waits_already_is_counted_as_such_in_a_full_queue(scene: Scene) -> None:
    scene.fill(10)
    scene.chats.update_many({}, {"$set": {"title": "broken"}})
    scene.settings = scene.settings.model_copy(update={"repair_queue_limit": 10})
    look(scene, "chat", enqueue_repairs=True)
    again = look(scene, "chat", enqueue_repairs=True)
    assert (again.about["pending_already"], again.warnings) == (10, [])


@pytest.mark.parametrize("asked", [("chat",), ("chat", "task")])
def test_no_repair_deletes_more_from_a_read_model_than_a_rebuild_would_dare(
    scene: Scene, asked: tuple[str, ...]
) -> None:
    scene.fill(10)
    ids = [scene.chat(f"gone {number}") for number in range(120)]
    scene.rebuild()
    for chat_id in ids:
        scene.append(chat_id, ("chat.type_changed", {"new_type": "discussion", "old_type": "task"}))
    scene.rebuild("chat")
    scene.chats.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken"}})
    summary = look(scene, *asked, enqueue_repairs=True)
    assert summary.about["queued"] == 100
    assert "20 documents" in summary.warnings[0]
