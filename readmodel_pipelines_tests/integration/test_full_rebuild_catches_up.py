"""What is written while a full rebuild is at work is caught up with, by the history of changes or without one."""

from __future__ import annotations

from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.mongo import changes
from readmodel_pipelines.rebuild.batches import Batches
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, Killed, full, leftovers, records


def test_an_event_that_nobody_projects_meanwhile_is_caught_up_with(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, small_batches: None
) -> None:
    chats = scene.fill(20)
    reached = Batches.reached
    told: list[str] = []

    def appending(self: Batches, aggregate_id: str) -> None:
        reached(self, aggregate_id)
        if not told:
            told.append(chats[0])
            scene.append(chats[0], OTHER_TITLE)

    monkeypatch.setattr(Batches, "reached", appending)
    summary = full(scene)
    assert told
    assert summary.about["caught_up"] >= 1
    assert scene.verify().ok


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_history_that_is_lost_has_everything_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    chats = scene.fill(20)
    foreign = found_in(scene.chats, {"chat_id": chats[1]})["not_ours"]
    with scene.events.watch() as stream:
        scene.append(chats[0], OTHER_TITLE)
        token = stream.next()["_id"]["_data"]
    # The same event a long time ago, of which the server knows nothing any more.
    of_long_ago = {"_data": token[:2] + "00000001" + token[10:]}
    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", lambda _: of_long_ago)
    summary = full(scene, strategy=strategy)
    assert any("looked at again" in warning for warning in summary.warnings)
    assert summary.ok
    assert scene.verify().ok
    assert found_in(scene.chats, {"chat_id": chats[1]})["not_ours"] == foreign
    assert leftovers(scene) == []
    assert summary.read_models["chats_read_model"].checked == 20


def test_a_server_without_history_has_everything_looked_at_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(10)

    def none(_: Any) -> Any:
        raise changes.NoHistory("a standalone server keeps no history of changes")

    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", none)
    summary = full(scene)
    assert any("standalone" in warning for warning in summary.warnings)
    assert records(scene)[0]["passes"] == 2
    assert summary.ok
    with pytest.raises(ReadModelError, match="A shadow needs to follow"):
        full(scene, strategy="shadow")


def test_a_run_killed_before_the_second_look_does_it_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = scene.fill(10)

    def none(_: Any) -> Any:
        raise changes.NoHistory("a standalone server keeps no history of changes")

    def dying(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr("readmodel_pipelines.rebuild.begin.token_of_now", none)
    with monkeypatch.context() as patch:
        again = Rebuilds.again
        patch.setattr(Rebuilds, "again", lambda self, record: (again(self, record), dying()))
        with pytest.raises(Killed):
            full(scene)
    scene.append(chats[0], OTHER_TITLE)
    assert full(scene, resume=True).about["state"] == "done"
    assert records(scene)[0]["passes"] == 2
    assert scene.verify().ok


def test_a_history_that_is_lost_while_it_catches_up_has_everything_looked_at_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = scene.fill(10)
    drain, calls = changes.Follower.drain, [0]

    def losing(self: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            scene.append(chats[0], OTHER_TITLE)
            raise changes.HistoryLost("it is too short")
        return drain(self)

    monkeypatch.setattr(changes.Follower, "drain", losing)
    summary = full(scene)
    assert any("it is too short" in warning for warning in summary.warnings)
    assert scene.verify().ok
