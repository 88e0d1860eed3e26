"""The demo's damage: one of everything, each on a document of its own, found as it says."""

from typing import Any

import pytest
from bson import Int64

from readmodel_pipelines.demo.damage import (
    CHATS,
    LEGACY_TASKS,
    TASKS,
    OwnedFields,
    Way,
    applies,
    break_field,
    damage_everything,
    remove_document,
    swap_chat_ids,
)
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines_tests.support.scene import Scene, found_in


def no_tasks(scene: Scene) -> list[str]:
    """Chats that should have no tasks document, and have none."""
    tasks = set(scene.tasks.distinct("task_id"))
    return [chat_id for chat_id in sorted(scene.chats.distinct("chat_id")) if chat_id not in tasks][:3]


def test_the_demo_s_damage_is_found_as_it_says_and_repaired(scene: Scene) -> None:
    scene.fill(300, seed=5)
    right = scene.everything()
    damages = damage_everything(scene.chats, scene.tasks, discussion_ids=no_tasks(scene), seed=5)
    for model in (CHATS, TASKS):
        mine = [damage for damage in damages if damage.model == model.name]
        every = {(field, way.name) for field, ways in model.fields.items() for way in ways}
        # The unique indexes allow either null or nothing once, not both.
        assert every - {("chat_id", "nulled"), ("task_id", "nulled")} <= {(one.field, one.kind) for one in mine}
        broken = [one.key for one in mine if one.outcome in ("missing", "different")]
        assert len(set(broken)) == len(broken)

    verified = scene.verify()
    wanted = sorted(
        (f"{item.model}_read_model", repr(item.key), item.outcome, item.field if item.outcome == "different" else "")
        for item in damages
    )
    got = sorted(
        (item.read_model, repr(item.aggregate_id), str(item.outcome), ",".join(item.fields))
        for item in verified.findings
    )
    assert got == wanted
    predicted, done = scene.rebuild(dry_run=True), scene.rebuild()
    assert [predicted.read_models[name] for name in predicted.read_models] == list(done.read_models.values())
    assert done.ok
    scene.make_foreign()
    assert scene.everything() == right


def test_the_same_seed_breaks_the_same_documents(scene: Scene) -> None:
    scene.fill(300, seed=5)
    broken = []
    for seed in (4, 4, 5):
        scene.chats.drop()
        scene.tasks.drop()
        scene.build()
        broken.append(damage_everything(scene.chats, scene.tasks, discussion_ids=no_tasks(scene), seed=seed))
    assert broken[0] == broken[1] != broken[2]


@pytest.mark.parametrize(("chats", "which"), [(20, "no tasks"), (300, "none"), (300, "a task")])
def test_what_cannot_all_be_damaged_is_refused_at_once(scene: Scene, chats: int, which: str) -> None:
    scene.fill(chats, seed=5)
    before = scene.dump()
    asked = {"no tasks": no_tasks(scene), "none": [], "a task": [found_in(scene.tasks)["task_id"]]}[which]
    with pytest.raises(UsageError):
        damage_everything(scene.chats, scene.tasks, discussion_ids=asked)
    assert scene.dump() == before


def way_of(field: str, name: str) -> Way:
    (way,) = (way for way in TASKS.fields[field] if way.name == name)
    return way


@pytest.mark.parametrize(
    ("field", "way", "where"),
    [("due_date", "nulled", {"due_date": None}), ("severity", "filled", {"severity": {"$ne": None}})],
)
def test_what_would_change_nothing_is_refused(scene: Scene, field: str, way: str, where: dict[str, Any]) -> None:
    scene.fill(40, seed=5)
    before = scene.dump()
    one = found_in(scene.tasks, where)["task_id"]
    for act in (
        lambda: break_field(scene.tasks, TASKS, one, field, way_of(field, way)),
        lambda: break_field(scene.tasks, TASKS, "nobody", "title", way_of("title", "changed")),
        lambda: remove_document(scene.tasks, TASKS, "nobody"),
        lambda: swap_chat_ids(scene.tasks, one, "nobody"),
    ):
        with pytest.raises(UsageError):
            act()
    assert scene.dump() == before


@pytest.mark.parametrize("model", [CHATS, TASKS, LEGACY_TASKS])
def test_every_field_can_be_changed_removed_nulled_and_mistyped(model: OwnedFields) -> None:
    for field, ways in model.fields.items():
        names = [way.name for way in ways]
        assert len(names) == len(set(names)), field
        assert {"changed", "removed", "nulled"} <= set(names), field
        assert any(name.startswith("as_") for name in names), field


def test_a_way_knows_the_values_that_it_leaves_alone() -> None:
    assert applies(way_of("version", "as_int64"), 3)
    assert not applies(way_of("version", "as_int64"), Int64(3))
    assert not applies(way_of("attachments", "reordered"), [{"file_id": "a"}, {"file_id": "a"}])
