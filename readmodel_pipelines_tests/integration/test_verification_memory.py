"""What a verification remembers: findings with their age, when they close, and the numbers of each look."""

import time
from typing import Any

import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.bookkeeping.verifications import Findings, Verifications
from readmodel_pipelines.mongo.names import FINDINGS, VERIFICATIONS
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.verifying import RENAMED, damage, found, look


def age_of(finding: Finding) -> float:
    assert finding.age_seconds is not None
    return finding.age_seconds


def test_a_finding_grows_old_and_begins_anew_when_its_aggregate_changed(scene: Scene) -> None:
    chats = scene.fill(6)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    first = look(scene, "chat").findings[0]
    time.sleep(0.05)
    second = look(scene, "chat").findings[0]
    assert second.first_seen == first.first_seen
    assert age_of(second) >= 0.05 > age_of(first)
    assert second.as_json()["age_seconds"] == second.age_seconds
    scene.append(chats[0], RENAMED)
    third = look(scene, "chat").findings[0]
    assert third.first_seen != first.first_seen
    assert age_of(third) < age_of(second)


def test_findings_close_when_they_are_gone_and_open_anew_when_they_come_back(scene: Scene) -> None:
    scene.fill(60)
    wanted = damage(scene)
    assert look(scene).about["closed"] == 0
    assert Findings(scene.database).open_by_outcome("tasks_read_model") == {"different": 1, "malformed": 1, "orphan": 1}
    scene.rebuild()
    summary = look(scene)
    assert summary.about["closed"] == 4
    assert {item[2] for item in found(summary)} == {"malformed"}
    closed = found_in(scene.database[FINDINGS], {"state": "closed"})
    assert closed["closed_at"] >= closed["last_seen"] >= closed["first_seen"]
    _, chat_id, _ = next(item for item in wanted if item[::2] == ("chats_read_model", "different"))
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "broken"}})
    assert age_of(next(item for item in look(scene).findings if item.outcome == "different")) < 1
    again = found_in(scene.database[FINDINGS], {"_id": f"chats_read_model/{chat_id}"})
    assert (again["state"], "closed_at" in again) == ("open", False)


def test_a_partial_look_closes_only_what_it_looked_at(scene: Scene) -> None:
    scene.fill(60)
    wanted = damage(scene)
    look(scene)
    scene.rebuild()
    mended = {item for item in wanted if item[2] != "malformed"}
    for number in (1, 2):
        inside = {item for item in mended if Bucket(number, 2).holds(item[1])}
        assert look(scene, coverage=Coverage(bucket=Bucket(number, 2))).about["closed"] == len(inside)
    assert scene.database[FINDINGS].count_documents({"state": "open"}) == 2


@pytest.mark.parametrize("odd", [7, None, ObjectId(), {"$set": {"a": 1}}, "$title", "x" * 3_000])
def test_ids_of_any_type_are_remembered_and_close(scene: Scene, odd: Any) -> None:
    scene.fill(6)
    scene.chats.insert_one({"chat_id": odd, "title": "broken"})
    first, second = look(scene, "chat"), look(scene, "chat")
    assert len(first.findings) == 1
    assert second.findings[0].first_seen == first.findings[0].first_seen
    scene.chats.delete_one({"title": "broken"})
    assert look(scene, "chat").about["closed"] == 1


def test_a_number_and_a_text_that_looks_like_it_are_two_findings(scene: Scene) -> None:
    scene.fill(6)
    scene.chats.insert_many([{"chat_id": 7}, {"chat_id": "7"}])
    summary = look(scene, "chat")
    assert [item.age_seconds for item in summary.findings] == [0, 0]
    assert scene.database[FINDINGS].count_documents({}) == 2


def test_every_finding_on_an_aggregate_says_since_when(scene: Scene) -> None:
    chats = scene.fill(6)
    scene.chats.drop_indexes()
    document = found_in(scene.chats, {"chat_id": chats[0]}, {"_id": 0})
    scene.chats.insert_one(document)
    scene.chats.update_many({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    summary = look(scene, "chat")
    assert len(summary.findings) == 2
    assert all(item.first_seen for item in summary.findings)


def test_a_version_that_no_date_can_hold_is_remembered(scene: Scene) -> None:
    chats = scene.fill(6)
    scene.put((DatetimeMS(2**60), "chat.renamed", {}), aggregate_id=chats[0])
    assert found(look(scene, "chat")) == {("chats_read_model", chats[0], "malformed")}


def test_what_is_open_outside_of_what_was_looked_at_is_told(scene: Scene) -> None:
    chats = scene.fill(12)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    look(scene, "chat")
    inside, outside = (1, 2) if Bucket(1, 2).holds(chats[0]) else (2, 1)
    for remember in (True, False):
        elsewhere = look(scene, "chat", coverage=Coverage(bucket=Bucket(outside, 2)), remember=remember)
        assert (elsewhere.ok, elsewhere.about["open_elsewhere"]) == (True, 1)
        assert "1 findings of earlier verifications" in elsewhere.warnings[-1]
        assert look(scene, "chat", coverage=Coverage(bucket=Bucket(inside, 2))).about["open_elsewhere"] == 0
        assert look(scene, "chat", tier="versions", remember=remember).about["open_elsewhere"] == 1
    assert "open_elsewhere" not in look(scene, "chat").about


def test_findings_that_are_gone_are_counted_by_read_model(scene: Scene) -> None:
    scene.fill(12)
    scene.chats.update_many({}, {"$set": {"title": "broken"}})
    look(scene)
    scene.rebuild()
    summary = look(scene)
    assert summary.closed == {"chats_read_model": 12, "tasks_read_model": 0}
    assert summary.about["closed"] == 12


def test_every_verification_leaves_its_numbers(scene: Scene) -> None:
    scene.fill(30)
    damage(scene)
    look(scene)
    look(scene, "chat", coverage=Coverage(bucket=Bucket(1, 2)))
    history = Verifications(scene.database).history(["chats_read_model", "tasks_read_model"])
    assert [item["coverage"] for item in history] == ["every aggregate", "every aggregate", "bucket 1/2"]
    assert sorted(item["discrepancies"] for item in history[:2]) == [3, 3]
    assert found_in(scene.database[VERIFICATIONS])["counts"]["checked"] == 30
