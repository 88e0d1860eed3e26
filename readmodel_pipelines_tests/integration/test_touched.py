"""What is remembered of the time while a rebuild goes on, and what follows it in the background."""

import pytest

from readmodel_pipelines.bookkeeping.kept_keys import EVENTS, Owner, Touched
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.changes import token_of_now
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.rebuild.catch_up import Following
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines_tests.support.at_a_moment import killed_at, once, raises
from readmodel_pipelines_tests.support.scene import Scene

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
    assert list(touched.batches("chats_read_model")) == [[1, "text", {"a": 1}]]


def test_a_batch_of_one_kind_reads_nothing_of_another(scene: Scene) -> None:
    touched = Touched(scene.database, OWNER)
    touched.add("chats_read_model", [f"{n}" for n in range(1_000)])
    touched.add(EVENTS, ["x"])
    Touched(scene.database, Owner("chats_read_model", "0b")).add(EVENTS, ["of another rebuild"])
    scene.database.command("profile", 2)
    assert next(touched.batches(EVENTS)) == ["x"]
    scene.database.command("profile", 0)
    (look,) = scene.database["system.profile"].find({"command.find": "readmodel_touched"})
    assert look["docsExamined"] <= 1


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_look(scene: Scene) -> None:
    new = {"strategy": "in_place", "read_models": [CHATS.read_model], "token": token_of_now(scene.events)}
    rebuild = Rebuilds(scene.database).begin("a", new, [(1, EVERYTHING)])
    following = Following(Store(scene.database, scene.settings, [CHATS]), rebuild)
    with listening(Moment.HISTORY_READ, once(raises(ZeroDivisionError()))), following.in_background() as thread:
        thread.join(120)
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
