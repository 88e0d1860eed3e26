"""Shadows and copies have one name, whoever makes them: who comes too late must not take another's for its own."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from readmodel_pipelines.bookkeeping import leases
from readmodel_pipelines.cutover import definition
from readmodel_pipelines.cutover.built import built
from readmodel_pipelines.cutover.definition import Like, ShadowFailed, create_like
from readmodel_pipelines.cutover.shadow import copy_by_id
from readmodel_pipelines.docs.examples import chat_activity
from readmodel_pipelines.errors import LeaseLost, NoCopy, UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.fenced import FencedCollection
from readmodel_pipelines.mongo.names import copy_names, shadow_names
from readmodel_pipelines.rebuild import RebuildRequest, rebuild, roll_back
from readmodel_pipelines_tests.support.at_a_moment import At, killed_at, once
from readmodel_pipelines_tests.support.built import Alone, fenced
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow

CHATS = "chats_read_model"
SHADOW = "readmodel_shadow_chats_read_model"
PAST = datetime(2000, 1, 1, tzinfo=UTC)


def killed_in_the_middle(scene: Scene, *names: str) -> None:
    """A rebuild in a shadow that dies when all is written and nothing took a place."""
    with killed_at(Moment.RANGE_DONE):
        in_shadow(scene, *names)


def test_a_shadow_that_somebody_dropped_is_built_anew_with_its_validator(scene: Scene) -> None:
    scene.database.create_collection(CHATS, validator={"$jsonSchema": {"required": ["chat_id"]}})
    scene.fill(12)
    options = scene.chats.options()
    killed_in_the_middle(scene, "chat")
    scene.database.drop_collection(SHADOW)
    summary = in_shadow(scene, "chat", resume=True)
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert any("its shadow no longer exists" in warning for warning in summary.warnings)
    assert scene.chats.options() == options
    assert scene.verify().ok


def test_what_a_run_writes_too_late_into_a_shadow_that_was_swapped_is_refused(scene: Scene, at: At) -> None:
    scene.fill(12)
    known: list[FencedCollection] = []
    at(Moment.GATE, once(lambda: known.append(fenced(scene.database, SHADOW))))
    with killed_at(Moment.SWAPPED):
        in_shadow(scene)
    before = scene.dump()[CHATS]
    # A worker of the killed run, which had asked for its lease just before.
    with pytest.raises(LeaseLost):
        copy_by_id(scene.chats, known[0], [found_in(scene.chats)["_id"]])
    assert SHADOW not in scene.database.list_collection_names()
    assert in_shadow(scene, resume=True).about["state"] == "done"
    assert scene.dump()[CHATS] == before
    assert scene.verify().ok


@pytest.mark.parametrize("moment", [Moment.GATE_PASSED, Moment.COPY_MADE])
def test_a_run_that_lost_its_lease_takes_no_copy_from_whoever_took_over(
    scene: Scene, at: At, moment: Moment, lives_end: Callable[[], None]
) -> None:
    scene.fill(8)
    scene.chats.update_many({}, {"$set": {"title": "as it was"}})
    others: list[str] = []

    def overtaken() -> None:
        scene.database.readmodel_leases.update_many({}, {"$set": {"nonce": "lost", "expires_at": PAST}})
        others.append(rebuild(scene.database, scene.settings, ["chat"], RebuildRequest("shadow")).about["rebuild"])
        lives_end()

    at(moment, once(overtaken))
    with pytest.raises(LeaseLost):
        in_shadow(scene, "chat")
    roll_back(scene.database, scene.settings, others[0])
    assert {item["title"] for item in scene.chats.find()} == {"as it was"}


def test_who_lost_its_lease_at_the_last_look_swaps_nothing(
    scene: Scene, at: At, lose_leases: Callable[[], None]
) -> None:
    scene.fill(8)
    scene.chats.update_many({}, {"$set": {"title": "as it was"}})
    at(Moment.LAST_LOOK_DONE, once(lose_leases))
    with pytest.raises(LeaseLost):
        in_shadow(scene, "chat")
    assert {item["title"] for item in scene.chats.find()} == {"as it was"}
    assert SHADOW in scene.database.list_collection_names()


def test_a_worker_trusts_its_lease_no_longer_than_that_lasts(scene: Scene) -> None:
    now = [0.0]
    lease = {"_id": "rebuild:chats", "nonce": "n"}
    collection = scene.database.readmodel_leases
    collection.update_one(lease, [{"$set": {"expires_at": {"$add": ["$$NOW", 5_000]}}}], upsert=True)
    check = leases.check_held(scene.database, {lease["_id"]: "n"}, 60.0, clock=lambda: now[0])
    check()
    collection.update_one(lease, {"$set": {"expires_at": PAST}})
    now[0] = 6.0
    with pytest.raises(LeaseLost):
        check()


def test_a_rollback_beside_an_unfinished_rebuild_is_refused(scene: Scene) -> None:
    scene.fill(12)
    done = in_shadow(scene, "chat").about["rebuild"]
    killed_in_the_middle(scene)
    with pytest.raises(UsageError):
        roll_back(scene.database, scene.settings, done)
    assert copy_names(CHATS)[0] in scene.database.list_collection_names()


def test_a_rollback_says_which_read_model_has_no_copy_any_more(scene: Scene) -> None:
    scene.fill(6)
    both = in_shadow(scene).about["rebuild"]
    in_shadow(scene, "chat")
    summary = roll_back(scene.database, scene.settings, both)
    assert any("chats_read_model" in warning and "no copy" in warning for warning in summary.warnings)


def test_a_rollback_does_not_take_the_copy_of_a_rebuild_that_ended_while_it_began(scene: Scene, at: At) -> None:
    scene.fill(6)
    first = in_shadow(scene, "chat").about["rebuild"]
    at(Moment.LEASE_TAKEN, once(lambda: in_shadow(scene, "chat")))
    with pytest.raises(NoCopy):
        roll_back(scene.database, scene.settings, first)
    assert len(built(scene.database, copy_names(CHATS))) == 1


def test_a_rollback_of_a_read_model_that_is_not_in_force_any_more_is_refused(scene: Scene) -> None:
    scene.fill(6)
    settings = scene.settings
    scene.settings = settings.model_copy(update={"projections": (chat_activity.__file__,)})
    both = in_shadow(scene, "chat", "chat_activity").about["rebuild"]
    with pytest.raises(UsageError, match="made chat_activity"):
        roll_back(scene.database, settings, both)
    assert roll_back(scene.database, scene.settings, both).about["state"] == "rolled_back"


@pytest.mark.parametrize(("holds", "error"), [(False, LeaseLost), (True, ShadowFailed)], ids=["lost", "still held"])
def test_a_shadow_that_is_gone_once_its_maker_wakes_up_is_told_in_words(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, holds: bool, error: type[Exception]
) -> None:
    scene.fill(1)

    class Woken(Alone):
        def confirm(self) -> None:
            if not holds:
                raise LeaseLost("another process took over")

    def frozen_behind(create: Callable[[], None], _: object) -> None:
        create()
        scene.database.drop_collection(SHADOW)

    monkeypatch.setattr(definition, "patiently", frozen_behind)
    with pytest.raises(error):
        create_like(scene.database, [Like(CHATS, shadow_names(CHATS))], Woken())


def test_a_collection_whose_name_leaves_no_room_for_that_of_a_shadow_is_refused_in_words(scene: Scene) -> None:
    live = "c" * (250 - len(scene.database.name))
    with pytest.raises(ShadowFailed):
        create_like(scene.database, [Like(live, shadow_names(live))], Alone())
