"""What a verification remembers, findings with their age and its numbers, and what the next one goes on from."""

import time
from collections.abc import Callable
from typing import Any

import bson
import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, OperationFailure

from readmodel_pipelines.bookkeeping.verifications import Findings, Verifications
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.changes import changes_since
from readmodel_pipelines.mongo.names import FINDINGS, VERIFICATIONS, WATERMARKS
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.reconcile.finding import Finding
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines_tests.support.at_a_moment import At, each, raises
from readmodel_pipelines_tests.support.scene import Scene, event, found_in
from readmodel_pipelines_tests.support.verbs.verifying import (
    NIGHTLY,
    RENAMED,
    SINCE_LAST,
    damage,
    found,
    look,
    token_of_long_ago,
)


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
    assert (summary.about["closed"], sum(summary.closed.values())) == (4, 4)
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
def test_a_finding_under_an_odd_id_is_remembered_until_it_is_gone(scene: Scene, odd: Any) -> None:
    scene.fill(12)
    scene.chats.insert_one({"chat_id": odd, "title": "broken"})
    (first,) = look(scene, "chat").findings
    for coverage in (SINCE_LAST, Coverage(bucket=Bucket(1, 7)), NIGHTLY):
        assert look(scene, "chat", coverage=coverage).about["closed"] == 0
    (again,) = look(scene, "chat").findings
    assert again.first_seen == first.first_seen
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
        assert "1 earlier findings" in elsewhere.warnings[-1]
        assert look(scene, "chat", coverage=Coverage(bucket=Bucket(inside, 2))).about["open_elsewhere"] == 0
        assert look(scene, "chat", tier="versions", remember=remember).about["open_elsewhere"] == 1
    assert "open_elsewhere" not in look(scene, "chat").about


def test_findings_that_the_server_refuses_end_a_verification(scene: Scene) -> None:
    scene.fill(12)
    damage(scene)
    scene.database.create_collection(FINDINGS, validator={"outcome": {"$ne": "different"}})
    with pytest.raises(BulkWriteError):
        look(scene)


def test_what_was_found_before_an_error_is_recorded(scene: Scene, at: At) -> None:
    scene.fill(12)
    wanted = damage(scene)
    compared = 0

    def fails_at_the_third(ids: Any) -> None:
        nonlocal compared
        compared += 1
        # The first two are of the chats, what is held and what is not.
        if compared == 3:
            raise KeyError

    at(Moment.COMPARISON_AGAIN, fails_at_the_third)
    with pytest.raises(KeyError):
        look(scene)
    recorded = {(item["read_model"], item["aggregate_id"], item["outcome"]) for item in scene.database[FINDINGS].find()}
    assert set() < recorded < wanted


def test_every_verification_leaves_its_numbers(scene: Scene) -> None:
    scene.fill(30)
    damage(scene)
    look(scene)
    look(scene, "chat", coverage=Coverage(bucket=Bucket(1, 2)))
    history = Verifications(scene.database).history(["chats_read_model", "tasks_read_model"])
    assert [item["coverage"] for item in history] == ["every aggregate", "every aggregate", "bucket 1/2"]
    assert sorted(item["discrepancies"] for item in history[:2]) == [3, 3]
    assert found_in(scene.database[VERIFICATIONS])["counts"]["checked"] == 30


# Events since the last one, and everything when it cannot know what changed


def test_the_first_incremental_look_is_at_everything_and_says_so(scene: Scene) -> None:
    scene.fill(12)
    first, second = look(scene, coverage=SINCE_LAST), look(scene, coverage=SINCE_LAST)
    assert "there was no verification with these settings" in first.warnings[0]
    assert (first.about["coverage"], first.read_models["chats_read_model"].checked) == ("every aggregate", 12)
    assert (second.warnings, second.read_models["chats_read_model"].checked) == ([], 0)


def test_an_incremental_look_finds_what_failed_since_and_checks_nothing_else(scene: Scene) -> None:
    chats = scene.fill(30)
    look(scene)
    scene.append(chats[4], RENAMED)
    scene.append(chats[7], RENAMED)
    scene.rebuild_one(chats[7])
    summary = look(scene, coverage=SINCE_LAST)
    assert {item[1] for item in found(summary)} == {chats[4]}
    assert summary.read_models["chats_read_model"].checked == 2
    again = look(scene, coverage=SINCE_LAST)
    assert found(again) == found(summary), "an open finding is looked at until it is gone"
    scene.rebuild()
    mended = look(scene, coverage=SINCE_LAST)
    assert mended.ok
    assert mended.about["closed"] == len(found(summary))


def test_damage_without_an_event_is_what_the_bucket_is_for(scene: Scene) -> None:
    chats = scene.fill(12)
    look(scene)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    assert look(scene, coverage=SINCE_LAST).ok
    assert not look(scene, coverage=Coverage(bucket=Bucket(1, 1), since_last=True)).ok


def test_a_look_that_remembers_nothing_writes_nothing_and_moves_no_watermark(scene: Scene) -> None:
    chats = scene.fill(12)
    look(scene)
    scene.append(chats[4], RENAMED)
    before = scene.dump()
    for coverage in (SINCE_LAST, Coverage()):
        assert not look(scene, coverage=coverage, remember=False).ok
    assert scene.dump() == before
    assert not look(scene, coverage=SINCE_LAST).ok


def loaded_anew(scene: Scene) -> None:
    events = list(scene.events.find())
    scene.events.drop()
    scene.index()
    scene.events.insert_many(events)


def with_token(data: Callable[[Scene], str]) -> Callable[[Scene], object]:
    return lambda scene: scene.database[WATERMARKS].update_many({}, {"$set": {"token": {"_data": data(scene)}}})


HARMS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "an event is deleted": (
        lambda scene: scene.events.delete_one({"aggregate_id": found_in(scene.chats)["chat_id"], "version": 1}),
        "events were changed or deleted",
    ),
    "an event is changed": (
        lambda scene: scene.events.update_one({"version": 1}, {"$set": {"data.new_title": "x"}}),
        "events were changed or deleted",
    ),
    "all are dropped and loaded anew": (loaded_anew, "Everything was verified"),
    "the history does not reach back": (with_token(token_of_long_ago), "does not reach back"),
    "no server knows the token": (with_token(lambda _: "8265000000"), "Everything was verified"),
    "the token is none": (with_token(lambda _: "garbage"), "Everything was verified"),
}


@pytest.mark.parametrize(("harm", "said"), HARMS.values(), ids=HARMS)
def test_where_changes_are_not_known_all_is_verified(scene: Scene, harm: Callable[[Scene], object], said: str) -> None:
    scene.fill(12)
    look(scene)
    harm(scene)
    summary = look(scene, coverage=SINCE_LAST)
    assert said in summary.warnings[0]
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, coverage=SINCE_LAST).warnings == []


def test_too_many_changes_have_everything_verified(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = scene.fill(12)
    look(scene)
    monkeypatch.setattr("readmodel_pipelines.mongo.changes.MOST_IDS", 3)
    for chat_id in chats[:5]:
        scene.append(chat_id, RENAMED)
    summary = look(scene, coverage=SINCE_LAST)
    assert "more than 3 aggregates changed" in summary.warnings[0]
    assert {item[1] for item in found(summary)} == set(chats[:5])


def test_streams_of_other_types_are_no_change(scene: Scene) -> None:
    scene.fill(3)
    token = changes_since(scene.events, CHAT_FOLD.stored_as, None).token
    scene.stream("a-user", "User", ("user.created", {}))
    scene.chat("new")
    assert len(changes_since(scene.events, CHAT_FOLD.stored_as, token).ids) == 1


@pytest.mark.parametrize("code", [13, 40573, 9])
def test_a_server_that_tells_no_changes_any_more_has_everything_verified(scene: Scene, at: At, code: int) -> None:
    scene.fill(12)
    look(scene)
    at(Moment.HISTORY_ASKED_FOR, each(raises(OperationFailure("refused", code))))
    for _ in range(2):
        summary = look(scene, coverage=SINCE_LAST)
        assert "Everything was verified" in summary.warnings[0]
        assert summary.read_models["chats_read_model"].checked == 12


@pytest.mark.parametrize(
    "other",
    [{"task_source": "task"}, {"chats_collection": "chat_read_model"}, {"allow_malformed": frozenset({"version_gap"})}],
)
def test_other_settings_have_everything_verified(scene: Scene, other: dict[str, Any]) -> None:
    scene.fill(12)
    scene.task("one of the earlier generation", None)
    look(scene)
    scene.settings = scene.settings.model_copy(update=other)
    summary, full = look(scene, coverage=SINCE_LAST), look(scene, remember=False)
    assert summary.about["coverage"] == full.about["coverage"] == "every aggregate"
    assert found(summary) == found(full)


def test_a_night_sees_ids_that_are_no_strings_and_what_became_of_them(scene: Scene) -> None:
    scene.fill(12)
    look(scene)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    scene.tasks.insert_one({"task_id": 8})
    summary = look(scene, coverage=Coverage(bucket=Bucket(1, 7)))
    assert found(summary) == found(look(scene)) != set()
    scene.tasks.delete_one({"task_id": 8})
    assert look(scene, coverage=NIGHTLY).about["closed"] == 1


@pytest.mark.parametrize("utf8", [True, False], ids=["no text", "no UTF-8"])
def test_a_new_event_with_an_odd_id_has_everything_verified(scene: Scene, utf8: bool) -> None:
    scene.fill(12)
    look(scene)
    text = bson.encode(event("zzzzQ", "Chat", 1, "chat.created", {})).replace(b"zzzzQ", b"zzzz\xff")
    scene.raw("events").insert_one(event(7, "Chat", 1, "chat.created", {}) if utf8 else RawBSONDocument(text))
    assert found(look(scene, coverage=NIGHTLY)) == found(look(scene, remember=False)) != set()


def test_the_older_claim_of_a_key_is_looked_at_with_a_new_one(legacy_scene: Scene) -> None:
    legacy_scene.index()
    legacy_scene.task("A", "chat-1")
    legacy_scene.rebuild()
    look(legacy_scene, "task")
    legacy_scene.task("B", "chat-1")
    summary = look(legacy_scene, "task", coverage=SINCE_LAST)
    assert found(summary) == found(look(legacy_scene, "task", remember=False))
    assert [item.reason for item in summary.findings] == ["key_conflict"] * 2


def test_an_incremental_look_reads_no_more_events_for_claims_that_did_not_change(legacy_scene: Scene) -> None:
    legacy_scene.fill(60)
    look(legacy_scene)
    legacy_scene.chat("new")
    legacy_scene.rebuild()
    with legacy_scene.profiled() as work:
        look(legacy_scene, coverage=SINCE_LAST)
    ran = [item for item in work if (item["ns"], item["op"]) == (legacy_scene.events.full_name, "command")]
    assert sum(item.get("docsExamined", 0) for item in ran) < 20 < legacy_scene.events.count_documents({})
