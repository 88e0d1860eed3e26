"""A shadow that was killed at any moment is gone on with, whatever the application did to its documents meanwhile."""

from typing import Any

import pytest

from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild import Slice
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Scene, found_in, taken_from
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, in_shadow, leftovers, records

pytestmark = pytest.mark.usefixtures("small_batches")


def written_meanwhile(scene: Scene, chats: list[str]) -> dict[str, Any]:
    """What an application does to documents; gives the `_id`s that it left."""
    for number in (0, -1):
        scene.chats.delete_one({"chat_id": chats[number]})
    for number in (1, -2):
        chat = taken_from(scene.chats, {"chat_id": chats[number]})
        scene.chats.insert_one({**chat, "_id": f"anew {number}", "z_index": "anew"})
    for number in (2, -3):
        chat = found_in(scene.chats, {"chat_id": chats[number]})
        scene.chats.replace_one({"_id": chat["_id"]}, {**chat, "z_index": "replaced"})
    for number in (3, -4):
        scene.append(chats[number], OTHER_TITLE, ("chat.deleted", {"deleted_by": "u", "deleted_at": None}))
        scene.rebuild_one(chats[number])
    scene.rebuild_one(scene.chat("new"))
    scene.chats.delete_many({"chat_id": 7})
    scene.chats.insert_one({"_id": "odd anew", "chat_id": 7})
    return ids_and_foreign(scene)


def ids_and_foreign(scene: Scene) -> dict[str, Any]:
    """Of each document, if it is there once; but that of the odd key, which nobody follows."""
    found = [(chat["chat_id"], (chat["_id"], chat.get("z_index"))) for chat in scene.chats.find()]
    assert len(dict(found)) == len(found)
    return {key: value for key, value in found if key != 7}


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((Moment.SHADOW_COPY, number) for number in (1, 4)),
        *((Moment.BATCH_WRITTEN, number) for number in (1, 2, 4)),
        (Moment.BATCH_SAVED, 2),
        *((moment, 1) for moment in (Moment.RANGE_DONE, Moment.FINISH, Moment.SHADOW_INDEXES, Moment.GATE)),
        *((moment, 1) for moment in (Moment.GATE_PASSED, Moment.COPY_MADE, Moment.LAST_LOOK_DONE, Moment.SWAP)),
    ],
    ids=str,
)
def test_a_shadow_killed_at_any_moment_ends_right(scene: Scene, moment: Moment, number: int) -> None:
    chats = scene.fill(12)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    scene.chats.insert_one({"_id": "odd", "chat_id": 7})
    with killed_at(moment, number):
        in_shadow(scene)
    there = written_meanwhile(scene, chats)
    ended_right(scene, in_shadow(scene, resume=True), there)


@pytest.mark.parametrize("killed", [1, 2])
def test_a_slice_that_is_killed_writes_its_own_part_anew_and_no_other(scene: Scene, killed: int) -> None:
    chats = scene.fill(12)
    parts = [Slice(killed, 2), Slice(3 - killed, 2)]
    assert in_shadow(scene, slice=parts[1]).about["state"] == "building"
    with killed_at(Moment.BATCH_WRITTEN):
        in_shadow(scene, slice=parts[0])
    there = written_meanwhile(scene, chats)
    ended_right(scene, in_shadow(scene, slice=parts[0]), there)


def ended_right(scene: Scene, summary: Summary, there: dict[str, Any]) -> None:
    assert summary.about["state"] == "done"
    assert [record["state"] for record in records(scene)] == ["done"], "it is one rebuild"
    assert summary.read_models["chats_read_model"].failed == 0
    now = ids_and_foreign(scene)
    assert {key: value for key, value in now.items() if key in there} == there
    assert len(now) == len(there) + 2, "those that were deleted, too"
    found = scene.verify()
    assert [(item.aggregate_id, item.outcome) for item in found.findings if item.outcome != "malformed"] == []
    assert leftovers(scene) == []
