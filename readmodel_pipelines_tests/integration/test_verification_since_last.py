"""What a verification goes on from: events since the last one, and everything when it cannot know what changed."""

from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.changes import changes_since
from readmodel_pipelines.mongo.names import WATERMARKS
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines_tests.support.at_a_moment import At, each, raises
from readmodel_pipelines_tests.support.scene import Scene, event
from readmodel_pipelines_tests.support.verbs.verifying import NIGHTLY, RENAMED, SINCE_LAST, found, look


def test_the_first_incremental_look_is_at_everything_and_says_so(scene: Scene) -> None:
    scene.fill(12)
    first, second = look(scene, coverage=SINCE_LAST), look(scene, coverage=SINCE_LAST)
    assert "there was no verification with these settings to go on from" in first.warnings[0]
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


@pytest.mark.parametrize("method", ["delete_one", "update_one"])
def test_events_that_were_tampered_with_have_everything_verified(scene: Scene, method: str) -> None:
    chats = scene.fill(12)
    look(scene)
    extra = ({"$set": {"data.new_title": "x"}},) if method == "update_one" else ()
    getattr(scene.events, method)({"aggregate_id": chats[0], "version": 1}, *extra)
    summary = look(scene, coverage=SINCE_LAST)
    assert "events were changed or deleted" in summary.warnings[0]
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, coverage=SINCE_LAST).warnings == []


def test_a_lost_history_has_everything_verified_and_says_so(scene: Scene) -> None:
    chats = scene.fill(12)
    look(scene)
    with scene.events.watch() as stream:
        scene.append(chats[0], RENAMED)
        token = stream.next()["_id"]["_data"]
    scene.rebuild()
    # The same event a long time ago, of which the server knows nothing any more.
    long_ago = {"_data": token[:2] + "00000001" + token[10:]}
    scene.database[WATERMARKS].update_one({"_id": "chats_read_model"}, {"$set": {"token": long_ago}})
    summary = look(scene, "chat", coverage=SINCE_LAST)
    assert "does not reach back" in summary.warnings[0]
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, "chat", coverage=SINCE_LAST).warnings == []


def test_events_that_were_dropped_and_loaded_anew_have_everything_verified(scene: Scene) -> None:
    scene.fill(12)
    look(scene)
    events = list(scene.events.find())
    scene.events.drop()
    scene.index()
    scene.events.insert_many(events)
    summary = look(scene, coverage=SINCE_LAST)
    assert summary.ok
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, coverage=SINCE_LAST).read_models["chats_read_model"].checked == 0


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


@pytest.mark.parametrize("data", ["garbage", "8265000000"])
def test_a_token_that_no_server_knows_has_everything_verified_and_is_replaced(scene: Scene, data: str) -> None:
    scene.fill(12)
    look(scene, "chat")
    scene.database[WATERMARKS].update_one({}, {"$set": {"token": {"_data": data}}})
    assert "Everything was verified" in look(scene, "chat", coverage=SINCE_LAST).warnings[0]
    assert look(scene, "chat", coverage=SINCE_LAST).warnings == []


@pytest.mark.parametrize(
    "other",
    [{"task_source": "task"}, {"chats_collection": "chat_read_model"}, {"allow_malformed": frozenset({"version_gap"})}],
)
def test_other_settings_have_everything_verified(scene: Scene, other: dict[str, Any]) -> None:
    scene.fill(12)
    look(scene)
    scene.settings = scene.settings.model_copy(update=other)
    summary, full = look(scene, coverage=SINCE_LAST), look(scene, remember=False)
    assert "with these settings" in summary.warnings[0]
    assert found(summary) == found(full)


@pytest.mark.parametrize("coverage", [SINCE_LAST, Coverage(bucket=Bucket(1, 7)), NIGHTLY])
@pytest.mark.parametrize("odd", [7, None, "x" * 3_000])
def test_a_finding_under_an_odd_id_is_not_closed_while_it_is_there(scene: Scene, odd: Any, coverage: Coverage) -> None:
    scene.fill(12)
    scene.chats.insert_one({"chat_id": odd, "title": "broken"})
    look(scene, "chat")
    assert look(scene, "chat", coverage=coverage).about["closed"] == 0
    scene.chats.delete_one({"title": "broken"})
    assert look(scene, "chat").about["closed"] == 1


def test_a_night_sees_ids_that_are_no_strings_and_what_became_of_them(scene: Scene) -> None:
    scene.fill(12)
    look(scene)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    scene.tasks.insert_one({"task_id": 8})
    summary = look(scene, coverage=Coverage(bucket=Bucket(1, 7)))
    assert found(summary) == found(look(scene)) != set()
    scene.tasks.delete_one({"task_id": 8})
    assert look(scene, coverage=NIGHTLY).about["closed"] == 1


def test_a_new_event_with_an_odd_id_has_everything_verified(scene: Scene) -> None:
    scene.fill(12)
    look(scene)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    summary = look(scene, coverage=SINCE_LAST)
    assert "no text" in summary.warnings[0]
    assert found(summary) == found(look(scene, remember=False)) != set()


def test_a_new_event_whose_id_is_no_utf8_has_everything_verified(scene: Scene) -> None:
    scene.fill(12)
    look(scene)
    text = bson.encode(event("zzzzQ", "Chat", 1, "chat.created", {})).replace(b"zzzzQ", b"zzzz\xff")
    scene.raw("events").insert_one(RawBSONDocument(text))
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
    legacy_scene.database.command("profile", 2)
    look(legacy_scene, coverage=SINCE_LAST)
    legacy_scene.database.command("profile", 0)
    ran = legacy_scene.database["system.profile"].find({"ns": legacy_scene.events.full_name, "op": "command"})
    assert sum(item.get("docsExamined", 0) for item in ran) < 20 < legacy_scene.events.count_documents({})
