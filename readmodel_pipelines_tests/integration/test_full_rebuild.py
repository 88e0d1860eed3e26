"""A full rebuild makes what the projector makes, deletes no more than it may, runs alone, in slices, and is paced."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.errors import ReadModelBusy
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.pacing import RateLimit
from readmodel_pipelines.rebuild import Slice
from readmodel_pipelines_tests.support.at_a_moment import At, each, nth, once, raises
from readmodel_pipelines_tests.support.clock import Clock
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.rebuilding import BOTH, STANDALONE, KilledAfter, full, leftovers, records


def test_a_full_rebuild_makes_what_the_projector_makes_and_leaves_nothing_behind(scene: Scene) -> None:
    scene.fill(40)
    right = scene.everything()
    for collection in (scene.chats, scene.tasks):
        collection.update_many({}, {"$set": {"title": "damaged"}})
    summary = full(scene)
    assert summary.ok
    assert scene.everything() == right
    assert [counts.replaced for counts in summary.read_models.values()] == [40, scene.tasks.count_documents({})]
    assert leftovers(scene) == []
    (record,) = records(scene)
    assert (record["state"], record["schema_versions"]) == ("done", dict.fromkeys(BOTH, 1))
    again = full(scene)
    assert [(item.same, item.replaced) for item in again.read_models.values()] == [(40, 0), (40, 0)]


# Deletions


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_too_many_deletions_are_refused_before_any_and_allowed_by_resuming(scene: Scene, strategy: Any) -> None:
    scene.fill(10)
    scene.chats.insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(101)])
    summary = full(scene, strategy=strategy)
    assert not summary.ok
    assert any("101 of about 111 documents" in warning for warning in summary.warnings)
    assert scene.chats.count_documents({}) == 111
    assert summary.about["state"] == "refused"
    done = full(scene, strategy=strategy, resume=True, allow_deletions=True)
    assert (done.ok, done.about["state"]) == (True, "done")
    assert scene.chats.count_documents({}) == 10
    assert len(records(scene)) == 1
    assert leftovers(scene) == []


def test_events_that_vanish_while_a_shadow_is_built_do_not_empty_the_read_model(scene: Scene, at: At) -> None:
    scene.fill(150)
    at(Moment.RANGE_DONE, each(lambda: scene.events.delete_many({})))
    summary = full(scene, "chat", strategy="shadow")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert scene.chats.count_documents({}) == 150


def test_deletions_that_became_too_many_while_a_copy_was_made_are_refused(scene: Scene, at: At) -> None:
    right = scene.fill(200)
    scene.chats.insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(150)])
    scene.settings = scene.settings.model_copy(update={"max_delete_share": 0.5})
    at(Moment.COPY_MADE, once(lambda: scene.chats.delete_many({"chat_id": {"$in": right}})))
    summary = full(scene, "chat", strategy="shadow")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert scene.chats.count_documents({}) == 150


def test_a_read_model_that_is_refused_is_not_hidden_by_one_that_is_done(legacy_scene: Scene) -> None:
    scene = legacy_scene
    scene.fill(10)
    scene.chats.insert_many([{"chat_id": f"{n:08d}-0000-4000-8000-000000000000"} for n in range(101)])
    summary = full(scene, strategy="shadow")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert summary.read_models["chats_read_model"].deleted == 0
    assert {record["state"] for record in records(scene)} == {"refused", "done"}


# Pace


def test_outside_of_its_window_a_rebuild_stops_cleanly_and_goes_on_in_it(scene: Scene) -> None:
    scene.fill(10)
    scene.chats.delete_many({})
    now = datetime.now(UTC)
    closed = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    open_ = f"{now - timedelta(hours=2):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    scene.settings = scene.settings.model_copy(update={"off_peak_window": closed})
    paused = full(scene, off_peak=True)
    assert (paused.ok, paused.about["state"]) == (True, "paused")
    assert scene.chats.count_documents({}) == 0
    scene.settings = scene.settings.model_copy(update={"off_peak_window": open_})
    done = full(scene, off_peak=True, resume=True)
    assert (done.ok, done.about["state"], done.about["rebuild"]) == (True, "done", paused.about["rebuild"])
    assert scene.verify().ok


@pytest.mark.parametrize(
    ("limit", "strategy"), [("max_events_per_second", "in_place"), ("max_documents_per_second", "shadow")]
)
def test_a_limit_is_held_of_the_events_read_and_of_the_documents_that_a_shadow_copies(
    scene: Scene, small_batches: None, monkeypatch: pytest.MonkeyPatch, limit: str, strategy: Any
) -> None:
    chats = scene.fill(30)
    clock = Clock()
    limited = partial(RateLimit, clock=clock, sleep=clock.sleep)
    monkeypatch.setattr("readmodel_pipelines.speed_limits.RateLimit", limited)
    number = scene.events.count_documents({}) if limit == "max_events_per_second" else len(chats)
    scene.settings = scene.settings.model_copy(update={limit: float(number)})
    full(scene, "chat", strategy=strategy)
    # Nobody pays for the last batch.
    assert clock.now - 100 > 0.85


# Slices: they share the record of one rebuild, and the last one finishes it


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
    killed_after(1, "chat", resume=True, slice=Slice(2, 2))
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

    def dies() -> None:
        (record,) = rebuilds.unfinished(None)
        rebuilds.again(record, str(rebuilds.ranges(record)[0].by))

    at(Moment.LEASE_TAKEN, nth(5, dies))
    assert full(scene, "chat", resume=True, slice=Slice(1, 1)).about["state"] == "done"
    assert records(scene)[0]["passes"] == 2
    assert all(item["done"] for item in scene.database.readmodel_rebuilds.find({"of": records(scene)[0]["_id"]}))
