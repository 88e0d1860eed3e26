"""Slices of one full rebuild: they share its record, and the last one finishes it."""

from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.errors import ReadModelBusy
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild import Slice
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, each, nth, raises
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import STANDALONE, KilledAfter, full, leftovers, records


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_slices_share_one_rebuild_which_the_last_one_finishes(scene: Scene, strategy: Any) -> None:
    scene.fill(40)
    right = scene.everything()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    states = []
    for number in (3, 1, 4, 2):
        summary = full(scene, "chat", strategy=strategy, resume=True, slice=Slice(number, 4), campaign="night")
        states.append(summary.about["state"])
    assert states == ["building"] * 3 + ["done"]
    assert scene.everything() == right
    (record,) = records(scene)
    assert record["counts"]["chats_read_model"]["replaced"] == 40
    assert leftovers(scene) == []
    late = full(scene, "chat", strategy=strategy, resume=True, slice=Slice(1, 4), campaign="night")
    assert late.about["state"] == "done"
    assert len(records(scene)) == 1


def test_a_slice_that_failed_is_done_again_and_no_other(scene: Scene, killed_after: KilledAfter) -> None:
    scene.fill(40)
    scene.chats.delete_many({})
    assert full(scene, "chat", resume=True, slice=Slice(1, 2)).about["state"] == "building"
    killed_after(1)
    with pytest.raises(Killed):
        full(scene, "chat", resume=True, slice=Slice(2, 2))
    summary = full(scene, "chat", resume=True, slice=Slice(2, 2))
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert summary.read_models["chats_read_model"].inserted == 40
    assert scene.verify("chat").ok


def test_a_slice_does_not_begin_beside_a_rebuild_that_is_at_work(scene: Scene) -> None:
    scene.fill(4)
    with hold_leases(scene.database, ["chats_read_model"], 60, "somebody"), pytest.raises(ReadModelBusy):
        full(scene, "chat", resume=True, slice=Slice(1, 2))


def test_slices_without_aggregates_come_to_the_rebuild_that_is_done(scene: Scene) -> None:
    scene.chat("the only one")
    states = [full(scene, "chat", resume=True, slice=Slice(number, 4)).about["state"] for number in (1, 2, 3, 4)]
    assert states == ["done"] * 4
    assert len(records(scene)) == 1
    assert full(scene, "chat", resume=True, slice=Slice(1, 4)).about["state"] == "done"
    assert len(records(scene)) == 2, "the next round is another rebuild"


def test_the_slice_that_finishes_does_again_what_has_to_be(scene: Scene, at: At) -> None:
    scene.fill(20)
    at(Moment.HISTORY_ASKED_FOR, each(raises(STANDALONE)))
    states = [full(scene, "chat", resume=True, slice=Slice(number, 3)).about["state"] for number in (1, 2, 3)]
    assert states == ["building", "building", "done"]
    assert records(scene)[0]["passes"] == 2


def test_a_slice_that_waits_for_one_that_dies_in_its_second_look_does_that_itself(scene: Scene, at: At) -> None:
    scene.fill(10)
    rebuilds = Rebuilds(scene.database)
    # The leases of the plan, of the read model twice, and of the slice; then that of who finishes.
    at(Moment.LEASE_TAKEN, nth(5, lambda: rebuilds.again(rebuilds.unfinished(None)[0])))
    assert full(scene, "chat", resume=True, slice=Slice(1, 1)).about["state"] == "done"
    assert records(scene)[0]["passes"] == 2
    assert all(item["done"] for item in scene.database.readmodel_rebuilds.find({"of": records(scene)[0]["_id"]}))
