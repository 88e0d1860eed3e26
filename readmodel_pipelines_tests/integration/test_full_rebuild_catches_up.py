"""What is written while a full rebuild is at work is remembered and caught up with, by the history or without one."""

from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, Owner, Touched
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.changes import HistoryLost, token_of_now
from readmodel_pipelines.mongo.names import REBUILDS
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.rebuild.catch_up import Following
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, dying, each, killed_at, once, raises
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.trials.beside_writers import rebuild_beside_writers
from readmodel_pipelines_tests.support.verbs.rebuilding import BOTH, OTHER_TITLE, STANDALONE, full, leftovers, records


def test_an_event_that_nobody_projects_meanwhile_is_caught_up_with(scene: Scene, at: At, small_batches: None) -> None:
    chats = scene.fill(20)
    at(Moment.BATCH_SAVED, once(lambda: scene.append(chats[0], OTHER_TITLE)))
    summary = full(scene)
    assert summary.about["caught_up"] >= 1
    assert scene.verify().ok


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_history_that_is_lost_has_everything_looked_at_again(scene: Scene, strategy: Any) -> None:
    chats = scene.fill(20)
    foreign = found_in(scene.chats, {"chat_id": chats[1]})["not_ours"]
    with scene.events.watch() as stream:
        scene.append(chats[0], OTHER_TITLE)
        token = stream.next()["_id"]["_data"]
    # The same event a long time ago, of which the server knows nothing any more.
    of_long_ago = {"_data": token[:2] + "00000001" + token[10:]}
    with killed_at(Moment.REBUILD_BEGUN):
        full(scene, strategy=strategy)
    tokens = {"token": of_long_ago} | {f"live_tokens.{name}": of_long_ago for name in BOTH if strategy == "shadow"}
    scene.database[REBUILDS].update_one({"kind": "rebuild"}, {"$set": tokens})
    summary = full(scene, strategy=strategy, resume=True)
    assert any("compared again" in warning for warning in summary.warnings)
    assert summary.ok
    assert scene.verify().ok
    assert found_in(scene.chats, {"chat_id": chats[1]})["not_ours"] == foreign
    assert leftovers(scene) == []
    assert summary.read_models["chats_read_model"].checked == 20


def test_a_server_without_history_has_everything_looked_at_twice(scene: Scene, at: At) -> None:
    scene.fill(10)
    at(Moment.HISTORY_ASKED_FOR, each(raises(STANDALONE)))
    summary = full(scene)
    assert any("standalone" in warning for warning in summary.warnings)
    assert records(scene)[0]["passes"] == 2
    assert summary.ok
    with pytest.raises(ReadModelError, match="shadow needs change streams"):
        full(scene, strategy="shadow")


def test_a_run_killed_before_the_second_look_does_it_all_the_same(scene: Scene, at: At) -> None:
    chats = scene.fill(10)
    at(Moment.HISTORY_ASKED_FOR, each(raises(STANDALONE)))
    with killed_at(Moment.SECOND_PASS_BEGUN):
        full(scene)
    scene.append(chats[0], OTHER_TITLE)
    assert full(scene, resume=True).about["state"] == "done"
    assert records(scene)[0]["passes"] == 2
    assert scene.verify().ok


def test_a_history_that_is_lost_while_it_catches_up_has_everything_looked_at_again(scene: Scene, at: At) -> None:
    chats = scene.fill(10)

    def losing() -> None:
        scene.append(chats[0], OTHER_TITLE)
        raise HistoryLost("it is too short")

    at(Moment.FINISH, once(lambda: at(Moment.HISTORY_READ, once(losing))))
    summary = full(scene)
    assert any("it is too short" in warning for warning in summary.warnings)
    assert scene.verify().ok


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_what_was_touched_is_not_forgotten_by_a_run_that_is_killed_while_it_catches_up(
    scene: Scene, at: At, small_batches: None, strategy: Any
) -> None:
    chats = scene.fill(20)
    at(Moment.BATCH_SAVED, once(lambda: scene.append(chats[0], OTHER_TITLE)))
    at(Moment.TOUCHED_GIVEN, once(lambda: at(Moment.LEASE_ASKED_FOR, once(raises(Killed())))))
    with dying():
        full(scene, strategy=strategy)
    assert full(scene, strategy=strategy, resume=True).about["state"] == "done"
    assert scene.verify().ok


# The long form of this is in `soak/`.
@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_rebuild_beside_writers_that_fail_or_are_late_leaves_nothing_wrong(settings: Settings, strategy: Any) -> None:
    events, _ = rebuild_beside_writers(
        settings, strategy=strategy, seconds=2, writers=2, rate=300, seed=1, quiet_chats=300
    )
    assert events > 0


# What is remembered meanwhile


OWNER = Owner("chats_read_model", "0a")


def test_what_was_touched_is_given_once_by_kind_and_then_forgotten(scene: Scene) -> None:
    touched = Touched(scene.database, OWNER)
    for _ in range(2):
        touched.add(EVENTS, [f"{n}" for n in range(1_500)])
        touched.add("chats_read_model", [1, "text", {"a": 1}])
    batches = list(touched.batches(EVENTS))
    assert [len(batch) for batch in batches] == [1_000, 500]
    assert sorted(int(item) for batch in batches for item in batch) == list(range(1_500))
    assert list(touched.batches(EVENTS)) == []
    (batch,) = touched.batches("chats_read_model")
    assert sorted(batch, key=str) == [1, "text", {"a": 1}]


def test_a_batch_of_one_kind_reads_nothing_of_another(scene: Scene) -> None:
    touched = Touched(scene.database, OWNER)
    touched.add("chats_read_model", [f"{n}" for n in range(1_000)])
    touched.add(EVENTS, ["x"])
    Touched(scene.database, Owner("chats_read_model", "0b")).add(EVENTS, ["of another rebuild"])
    with scene.profiled() as work:
        assert next(touched.batches(EVENTS)) == ["x"]
    (look,) = [entry for entry in work if entry["command"].get("find") == "readmodel_touched"]
    assert look["docsExamined"] <= 1


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_look(scene: Scene) -> None:
    new = {"strategy": "in_place", "read_models": [CHATS.read_model], "token": token_of_now(scene.events)}
    rebuild = Rebuilds(scene.database).begin("a", new, [(1, EVERYTHING)])
    following = Following(Store(scene.database, scene.settings, [CHATS]), rebuild)
    with listening(Moment.HISTORY_READ, once(raises(ZeroDivisionError()))), following.in_background() as thread:
        thread.join(240)
    with pytest.raises(ZeroDivisionError):
        following.drain(())
    following.close()


def test_what_was_not_worked_off_is_given_again_to_who_comes_after_a_kill(scene: Scene) -> None:
    touched = Touched(scene.database, OWNER)
    touched.add(EVENTS, ["x"])
    assert next(touched.batches(EVENTS)) == ["x"]
    with killed_at(Moment.TOUCHED_WORKED_OFF):
        list(touched.batches(EVENTS))
    assert list(Touched(scene.database, OWNER).batches(EVENTS)) == [["x"]]
    assert list(touched.batches(EVENTS)) == []
