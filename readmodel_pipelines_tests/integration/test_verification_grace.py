"""Verification beside writers that are a moment behind: what lags is no finding, and what stays behind is one."""

import threading
import time
from datetime import UTC, datetime
from functools import partialmethod
from typing import Any

import pytest
from bson import Decimal128

from readmodel_pipelines.bookkeeping.verifications import Findings
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.reconcile.confirm import Confirm
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Coverage
from readmodel_pipelines_tests.support.at_a_moment import At
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.trials.beside_writers import verify_beside_a_writer
from readmodel_pipelines_tests.support.verbs.verifying import RENAMED, SINCE_LAST, found, just_now, look


def test_a_document_that_its_writer_mends_within_the_grace_time_is_no_finding(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = scene.fill(12)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 60.0})
    waited: list[float] = []

    def mends(seconds: float) -> None:
        """In place of the wait, for no machine is too slow for that."""
        waited.append(seconds)
        scene.rebuild_one(chats[0])

    monkeypatch.setattr(Confirm, "__init__", partialmethod(Confirm.__init__, sleep=mends))
    just_now(scene, chats[0], RENAMED)
    summary = look(scene)
    assert summary.ok
    assert waited
    assert sum(counts.lagging for counts in summary.read_models.values()) == 0
    assert summary.read_models["chats_read_model"].same == 12
    assert scene.database[FINDINGS].count_documents({}) == 0


def test_an_old_damage_is_told_without_waiting(scene: Scene) -> None:
    chats = scene.fill(12)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 60.0})
    just_now(scene, chats[0], RENAMED, seconds_ago=61)
    started = time.monotonic()
    assert not look(scene).ok
    assert time.monotonic() - started < 50


@pytest.mark.parametrize(("projected", "outcome"), [(True, "lagging"), (False, "different")])
def test_a_document_that_is_always_a_moment_behind_lags_and_one_that_stands_still_is_wrong(
    scene: Scene, at: At, projected: bool, outcome: str
) -> None:
    chats = scene.fill(6)
    grace_for_a_look(scene)
    just_now(scene, chats[0], ("chat.renamed", {"new_title": "First", "old_title": "", "renamed_by": "u"}))
    going_on: list[bool] = []

    def grows(ids: Any) -> None:
        """At the very moments when the verification looks."""
        looks = ids is not None and chats[0] in ids and threading.current_thread() is threading.main_thread()
        if looks and not going_on:
            going_on.append(True)
            if projected:
                scene.rebuild_one(chats[0])
            just_now(scene, chats[0], RENAMED)
            going_on.clear()

    at(Moment.EVENTS, grows)
    counts = look(scene, "chat").read_models["chats_read_model"]
    assert getattr(counts, outcome) == 1
    assert counts.checked == 6 == counts.same + 1


def test_a_new_chat_that_is_not_projected_yet_lags(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 30.0})
    waited: list[float] = []
    monkeypatch.setattr(Confirm, "__init__", partialmethod(Confirm.__init__, sleep=waited.append))
    new = scene.chat("brand new")
    scene.events.update_many({"aggregate_id": new}, {"$set": {"created_at": datetime.now(UTC)}})
    assert look(scene, "chat").read_models["chats_read_model"].lagging == 1
    assert 29 < waited[0] <= 30


def test_a_damage_in_a_chat_that_is_written_right_now_is_found(scene: Scene) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.3})
    just_now(scene, chats[0], RENAMED)
    scene.rebuild_one(chats[0])
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"created_by": "somebody else"}})
    assert found(look(scene)) == {("chats_read_model", chats[0], "different")}


@pytest.mark.parametrize("version", [float("nan"), float("inf"), Decimal128("999")])
def test_a_young_event_with_a_version_that_is_none_is_malformed(scene: Scene, version: Any) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.1})
    (event_id,) = scene.put((version, "chat.renamed", {}), aggregate_id=chats[0])
    scene.events.update_one({"_id": event_id}, {"$set": {"created_at": datetime.now(UTC)}})
    assert found(look(scene, "chat")) == {("chats_read_model", chats[0], "malformed")}


def grace_for_a_look(scene: Scene) -> float:
    """Set so that a look fits in, however slow the machine is."""
    started = time.monotonic()
    look(scene)
    grace = 1.0 + 4 * (time.monotonic() - started)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": grace})
    return grace


@pytest.mark.parametrize("coverage", [SINCE_LAST, Coverage()])
def test_what_lags_is_looked_at_again_until_it_does_not(scene: Scene, coverage: Coverage) -> None:
    chats = scene.fill(6)
    grace = grace_for_a_look(scene)
    # Its writer's clock is ahead, and it died before it projected.
    just_now(scene, chats[0], RENAMED, seconds_ago=-grace)
    over = time.monotonic() + 2 * grace
    first = look(scene, "chat", coverage=SINCE_LAST)
    assert first.read_models["chats_read_model"].lagging == 1
    assert (first.ok, first.findings, first.differing["chats_read_model"]) == (True, [], {})
    assert Findings(scene.database).open_by_outcome("chats_read_model") == {}
    time.sleep(max(0.0, over - time.monotonic()))
    assert found(look(scene, "chat", coverage=coverage)) == {("chats_read_model", chats[0], "different")}


def test_what_lagged_and_was_projected_is_forgotten(scene: Scene) -> None:
    chats = scene.fill(6)
    just_now(scene, chats[0], RENAMED, seconds_ago=-grace_for_a_look(scene))
    assert look(scene, "chat").read_models["chats_read_model"].lagging == 1
    scene.rebuild_one(chats[0])
    last = look(scene, "chat", coverage=SINCE_LAST)
    assert (last.about["closed"], last.read_models["chats_read_model"].checked) == (0, 1)
    assert scene.database[FINDINGS].count_documents({}) == 0


# The long form of this is in `soak/`.
def test_a_live_writer_is_no_false_alarm_and_a_damage_made_meanwhile_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=4, rate=200, grace=1.5)
    assert seen.verifications >= 3
    assert seen.events > 0
