"""Rolling a rebuild in a shadow back: wherever it ends, its record says how far it is, and the same again goes on."""

from collections.abc import Callable

import pytest

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.errors import LeaseLost, ReadModelError, UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild import abort, roll_back
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.at_a_moment import At, each, killed_at, nth
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, in_shadow, leftovers
from readmodel_pipelines_tests.support.verbs.repairing import repair
from readmodel_pipelines_tests.support.verbs.verifying import found

CHATS, TASKS = "chats_read_model", "tasks_read_model"
BETWEEN_THE_SWAPS = (Moment.SWAP, 2)
BEFORE_THE_CATCH_UP = (Moment.SWAPPED, 2)


def stale(scene: Scene, *chat_ids: str) -> None:
    """The application appended and could not update its read models."""
    for chat_id in chat_ids:
        scene.append(chat_id, OTHER_TITLE)


@pytest.fixture
def chats(scene: Scene) -> list[str]:
    """Ten chats; the first was stale when the copies were made, the second is so since."""
    return scene.fill(10)


@pytest.fixture
def rebuilt(scene: Scene, chats: list[str]) -> str:
    stale(scene, chats[0])
    rebuild_id: str = in_shadow(scene).about["rebuild"]
    stale(scene, chats[1])
    return rebuild_id


def state_of(scene: Scene, rebuild_id: str) -> RebuildState:
    return Rebuilds(scene.database).get(rebuild_id).state


def back(scene: Scene, rebuild_id: str) -> Summary:
    return roll_back(scene.database, scene.settings, rebuild_id)


def titles(scene: Scene, chat_id: str) -> set[str]:
    return {found_in(collection, {"chat_id": chat_id})["title"] for collection in (scene.chats, scene.tasks)}


def test_what_comes_back_stale_is_told_and_queued_and_a_repair_mends_it(
    scene: Scene, chats: list[str], rebuilt: str
) -> None:
    summary = back(scene, rebuilt)
    assert found(summary) == {(CHATS, chats[0], "different"), (TASKS, chats[0], "different")}
    assert not summary.ok
    assert repair(scene).completed == 1, "both read models are made from one stream"
    assert scene.verify().ok
    assert leftovers(scene) == []


def test_what_may_be_of_another_schema_is_told_and_not_queued(scene: Scene, chats: list[str]) -> None:
    # No rebuild is on record that made what is there: only what an earlier version of its stream made is stale.
    scene.chats.update_one({"chat_id": chats[3]}, {"$set": {"title": "as another schema has it"}})
    stale(scene, chats[0])
    summary = back(scene, in_shadow(scene, "chat").about["rebuild"])
    assert found(summary) == {(CHATS, chats[0], "different"), (CHATS, chats[3], "different")}
    assert [task["aggregate_id"] for task in scene.database.repair_queue.find()] == [chats[0]]


def test_where_it_is_known_to_be_of_the_same_schema_whatever_is_wrong_is_queued(scene: Scene, chats: list[str]) -> None:
    assert in_shadow(scene, "chat").ok
    scene.chats.update_one({"chat_id": chats[3]}, {"$set": {"title": "damaged"}})
    scene.chats.delete_one({"chat_id": chats[4]})
    back(scene, in_shadow(scene, "chat").about["rebuild"])
    assert {task["aggregate_id"] for task in scene.database.repair_queue.find()} == {chats[3], chats[4]}
    assert repair(scene).ok
    assert scene.verify().ok


@pytest.mark.parametrize(("moment", "number"), [BETWEEN_THE_SWAPS, BEFORE_THE_CATCH_UP])
def test_a_rollback_that_is_killed_is_not_done_until_the_same_again_ends_it(
    scene: Scene, chats: list[str], rebuilt: str, moment: Moment, number: int
) -> None:
    with killed_at(moment, number):
        back(scene, rebuilt)
    assert state_of(scene, rebuilt) is RebuildState.ROLLING_BACK
    with pytest.raises(ReadModelError, match=rebuilt):
        scene.rebuild()
    with pytest.raises(ReadModelError, match=rebuilt):
        in_shadow(scene, "task")
    with pytest.raises(UsageError):
        abort(scene.database, scene.settings, rebuilt)

    summary = back(scene, rebuilt)
    assert state_of(scene, rebuilt) is RebuildState.ROLLED_BACK
    assert set(summary.read_models) == {CHATS, TASKS}
    assert found(summary) == {(CHATS, chats[0], "different"), (TASKS, chats[0], "different")}
    assert titles(scene, chats[1]) == {"Told meanwhile"}
    assert repair(scene).ok
    assert scene.verify().ok
    assert leftovers(scene) == []


def test_a_rollback_that_is_killed_while_it_looks_everything_over_tells_and_queues_when_it_goes_on(
    scene: Scene, chats: list[str], rebuilt: str
) -> None:
    with killed_at(Moment.COMPARISON_AGAIN):
        back(scene, rebuilt)
    assert state_of(scene, rebuilt) is RebuildState.ROLLING_BACK
    assert not scene.database.repair_queue.find_one()
    assert (CHATS, chats[0], "different") in found(back(scene, rebuilt))
    assert repair(scene).completed == 1


def test_a_rollback_that_loses_its_lease_says_what_is_back_and_what_is_not(
    scene: Scene, rebuilt: str, at: At, lose_leases: Callable[[], None]
) -> None:
    at(Moment.SWAPPED, nth(1, lose_leases))
    with pytest.raises(LeaseLost) as lost:
        back(scene, rebuilt)
    assert f"{CHATS}: restored" in lost.value.message
    assert f"{TASKS}: not restored" in lost.value.message
    assert f"readmodel rebuilds rollback {rebuilt}" in lost.value.hint


def test_a_rollback_is_done_only_when_nothing_is_left_to_be_done(scene: Scene, rebuilt: str, at: At) -> None:
    seen: list[RebuildState] = []
    for moment in (Moment.SWAP, Moment.SWAPPED, Moment.TOUCHED_GIVEN, Moment.COMPARISON_AGAIN):
        at(moment, each(lambda: seen.append(state_of(scene, rebuilt))))
    back(scene, rebuilt)
    assert set(seen) == {RebuildState.ROLLING_BACK}
    assert state_of(scene, rebuilt) is RebuildState.ROLLED_BACK
