"""The long forms of the trials in `integration/`: live writers, rebuilds and workers that are killed."""

import random
from typing import Any

import bson
import pytest

from readmodel_pipelines import RepairQueue
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild import abort
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import killed_at
from readmodel_pipelines_tests.support.scene import Mongo, Scene, found_in, taken_from
from readmodel_pipelines_tests.support.trials.beside_writers import rebuild_beside_writers, verify_beside_a_writer
from readmodel_pipelines_tests.support.trials.definitions import MOMENTS, OPTIONS, change_everything
from readmodel_pipelines_tests.support.trials.killed_rebuilds import kill_and_resume
from readmodel_pipelines_tests.support.trials.killed_workers import broken, kill_at_random_moments, short_lived
from readmodel_pipelines_tests.support.trials.replaced import BEFORE_THE_SWAP, REPLACED, replace_at
from readmodel_pipelines_tests.support.verbs.rebuilding import in_shadow, records
from readmodel_pipelines_tests.support.verbs.repairing import stored

both_strategies = pytest.mark.parametrize("strategy", ["in_place", "shadow"])


def test_a_minute_of_live_writing_is_no_false_alarm_and_every_damage_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=60, rate=500)
    # How many there are in a minute is up to the machine.
    print(seen)
    assert seen.events


@both_strategies
@pytest.mark.parametrize("run", range(15))
def test_a_rebuild_beside_four_writers_leaves_nothing_wrong(settings: Settings, strategy: Any, run: int) -> None:
    seed = random.randrange(2**20)
    done = rebuild_beside_writers(
        settings, strategy=strategy, seconds=8, writers=4, rate=1_000, seed=seed, quiet_chats=5_000
    )
    print(f"{strategy}, seed {seed}: {done[0]:,} events, {done[1]:,} documents caught up with")


@both_strategies
def test_a_rebuild_that_is_killed_25_times_ends_right(database: Mongo, settings: Settings, strategy: str) -> None:
    seed = random.randrange(2**32)
    at_work = kill_and_resume(database, settings, chats=20_000, kills=25, seed=seed, strategy=strategy, rate=12_000)
    print(f"seed {seed}: {at_work} of 25 were killed in the middle of their ranges")


def test_workers_killed_at_fifty_random_moments_lose_nothing_and_leave_nothing_wrong(scene: Scene) -> None:
    seed = random.randrange(2**20)
    print(f"seed {seed}")
    kill_at_random_moments(scene, kills=50, seed=seed)


def test_a_task_that_kills_its_worker_every_time_is_parked_alone(scene: Scene) -> None:
    ids = broken(scene, 60, 60)
    told = short_lived(scene, deadly=ids[7], lease=300)

    assert told["killed"] == 20
    (parked,) = stored(scene, status="failed")
    assert (parked["aggregate_id"], parked["reason"]) == (ids[7], "crashes_worker")
    others = stored(scene, status="completed")
    assert len(others) == 59
    assert max(len(item.get("attempts", ())) for item in others) <= 3, "no more workers died with them than it takes"
    assert [finding.aggregate_id for finding in scene.verify("chat").findings] == [ids[7]]

    queue = RepairQueue(scene.database, scene.settings)
    assert queue.requeue(reason="crashes_worker") == 1
    short_lived(scene, kills=0)
    assert queue.stats().completed == 60
    assert scene.verify().ok


@pytest.mark.parametrize("rotation", range(len(MOMENTS) * len(OPTIONS)))
def test_every_change_of_a_definition_at_every_moment_comes_along(scene: Scene, rotation: int) -> None:
    change_everything(scene, rotation)


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.parametrize("moment", BEFORE_THE_SWAP, ids=lambda moment: moment.name)
def test_a_live_collection_that_is_another_one_is_not_replaced_at_any_moment(
    scene: Scene, moment: Moment, how: str
) -> None:
    replace_at(scene, moment, REPLACED[how])


def test_what_does_not_fit_at_the_swap_is_refused_and_blocks_nothing(scene: Scene) -> None:
    """What others wrote fills the document, and what the events make of it does not fit in any more."""
    scene.fill(5)
    with killed_at(Moment.SWAP):
        in_shadow(scene, "chat")
    chat: Any = scene.chats.find_one({"participants": {"$ne": []}}, {"_id": 1})
    small: Any = {"title": "", "participants": [], "z_index": ""}
    scene.chats.update_one(chat, {"$set": small})
    room = 16 * 2**20 - len(bson.encode(scene.chats.find(chat)[0]))
    # An insert, for the server's cache is small.
    filled = {**taken_from(scene.chats, chat), "z_index": room * "x"}
    scene.chats.insert_one(filled)
    summary = in_shadow(scene, "chat", resume=True)
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert found_in(scene.chats, chat)["title"] == ""
    abort(scene.database, scene.settings, records(scene)[0]["_id"])
    assert in_shadow(scene, "task").ok
