"""Verification as a product: what it covers, what it remembers, and that it tells what a full look would tell."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo import changes
from readmodel_pipelines.mongo.changes import changes_since
from readmodel_pipelines.mongo.event_store import EventStore, version_ranges_of
from readmodel_pipelines.mongo.findings import FINDINGS, VERIFICATIONS, WATERMARKS, Memory
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.reconcile.confirm import Confirm
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.verification import Bucket, Coverage, Request, verify, verify_fresh, verify_one
from readmodel_pipelines_tests.integration.conftest import event

SINCE_LAST = Coverage(since_last=True)
RENAMED = ("chat.renamed", {"new_title": "Renamed", "old_title": "", "renamed_by": "u"})


def look(scene: Any, *read_models: str, coverage: Coverage | None = None, **options: Any) -> Summary:
    request = Request(coverage or Coverage(), max_findings=100_000, **options)
    return verify(scene.database, scene.settings, read_models, request)


def found(summary: Summary) -> set[tuple[str, str, str]]:
    return {(item.read_model, str(item.aggregate_id), item.outcome.value) for item in summary.findings}


def just_now(scene: Any, chat_id: str, *events: tuple[str, dict[str, Any]], seconds_ago: float = 0.0) -> None:
    """Append events as the application does at this moment."""
    if events:
        scene.append(chat_id, *events)
    last = scene.events.find_one({"aggregate_id": chat_id}, sort=[("version", -1)])
    written = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    scene.events.update_one({"_id": last["_id"]}, {"$set": {"created_at": written}})


def damage(scene: Any) -> set[tuple[str, str, str]]:
    """One of each outcome, in documents whose streams are old."""
    chats = sorted(document["chat_id"] for document in scene.chats.find({}, {"chat_id": 1}))
    tasks = sorted(document["task_id"] for document in scene.tasks.find({}, {"task_id": 1}))
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    scene.chats.delete_one({"chat_id": chats[1]})
    scene.tasks.update_one({"task_id": tasks[2]}, {"$set": {"version": 99}})
    orphan, gap = str(ObjectId()), chats[3]
    scene.tasks.insert_one({"task_id": orphan, "chat_id": orphan})
    scene.events.update_one({"aggregate_id": gap, "version": 1}, {"$set": {"version": 1_000}})
    return {
        ("chats_read_model", chats[0], "different"),
        ("chats_read_model", chats[1], "missing"),
        ("tasks_read_model", tasks[2], "different"),
        ("tasks_read_model", orphan, "orphan"),
        ("chats_read_model", gap, "malformed"),
        ("tasks_read_model", gap, "malformed"),
    }


# Coverage


def test_a_healthy_store_is_clean_in_every_way_of_looking(scene: Any) -> None:
    scene.fill(60)
    ways: list[dict[str, Any]] = [
        {},
        {"coverage": SINCE_LAST},
        {"coverage": Coverage(sample=10)},
        {"coverage": Coverage(bucket=Bucket(1, 3))},
        {"tier": "versions"},
    ]
    for way in ways:
        summary = look(scene, **way)
        assert summary.ok
        assert found(summary) == set()
    assert scene.database[FINDINGS].count_documents({}) == 0


def test_the_buckets_together_find_what_everything_finds_each_once(scene: Any) -> None:
    scene.fill(60)
    wanted = damage(scene)
    parts = [look(scene, coverage=Coverage(bucket=Bucket(number, 4))) for number in range(1, 5)]
    assert [item for part in parts for item in sorted(found(part))].__len__() == len(wanted)
    assert set().union(*map(found, parts)) == wanted
    whole = look(scene)
    assert found(whole) == wanted
    for name, counts in whole.read_models.items():
        assert sum(part.read_models[name].checked for part in parts) == counts.checked
    assert all(part.read_models["chats_read_model"].checked > 5 for part in parts)


def test_a_sample_checks_so_many_and_finds_orphans_too(scene: Any) -> None:
    scene.fill(30)
    scene.tasks.insert_one({"task_id": "0" * 8, "chat_id": "x"})
    small, large = (look(scene, coverage=Coverage(sample=size)) for size in (5, 1_000))
    assert small.read_models["chats_read_model"].checked <= 5
    assert ("tasks_read_model", "0" * 8, "orphan") in found(large)


def test_an_id_that_is_no_utf8_does_not_stop_a_bucket(scene: Any) -> None:
    scene.fill(12)
    raw = RawBSONDocument(
        b"\x25\x00\x00\x00\x07_id\x00" + ObjectId().binary + b"\x02chat_id\x00\x02\x00\x00\x00\xff\x00\x00"
    )
    scene.chats.insert_one(raw)
    assert look(scene, coverage=Coverage(bucket=Bucket(1, 1))).ok
    assert not look(scene).ok


# What changed since the last time


def test_the_first_incremental_look_is_at_everything_and_says_so(scene: Any) -> None:
    scene.fill(12)
    first, second = look(scene, coverage=SINCE_LAST), look(scene, coverage=SINCE_LAST)
    assert "there was no verification with these settings to go on from" in first.warnings[0]
    assert (first.about["coverage"], first.read_models["chats_read_model"].checked) == ("every aggregate", 12)
    assert (second.warnings, second.read_models["chats_read_model"].checked) == ([], 0)


def test_an_incremental_look_finds_what_failed_since_and_checks_nothing_else(scene: Any) -> None:
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


def test_damage_without_an_event_is_what_the_bucket_is_for(scene: Any) -> None:
    chats = scene.fill(12)
    look(scene)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    assert look(scene, coverage=SINCE_LAST).ok
    assert not look(scene, coverage=Coverage(bucket=Bucket(1, 1), since_last=True)).ok


def test_a_look_that_remembers_nothing_writes_nothing_and_moves_no_watermark(scene: Any) -> None:
    chats = scene.fill(12)
    look(scene)
    scene.append(chats[4], RENAMED)
    before = scene.dump()
    for coverage in (SINCE_LAST, Coverage()):
        assert not look(scene, coverage=coverage, remember=False).ok
    assert scene.dump() == before
    assert not look(scene, coverage=SINCE_LAST).ok


@pytest.mark.parametrize("method", ["delete_one", "update_one"])
def test_events_that_were_tampered_with_have_everything_verified(scene: Any, method: str) -> None:
    chats = scene.fill(12)
    look(scene)
    extra = ({"$set": {"data.new_title": "x"}},) if method == "update_one" else ()
    getattr(scene.events, method)({"aggregate_id": chats[0], "version": 1}, *extra)
    summary = look(scene, coverage=SINCE_LAST)
    assert "events were changed or deleted" in summary.warnings[0]
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, coverage=SINCE_LAST).warnings == []


def test_a_lost_history_has_everything_verified_and_says_so(scene: Any) -> None:
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
    assert "no longer reaches back" in summary.warnings[0]
    assert summary.read_models["chats_read_model"].checked == 12
    assert look(scene, "chat", coverage=SINCE_LAST).warnings == []


def test_events_that_were_dropped_and_loaded_anew_have_everything_verified(scene: Any) -> None:
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


def test_too_many_changes_have_everything_verified(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chats = scene.fill(12)
    look(scene)
    monkeypatch.setattr("readmodel_pipelines.mongo.changes.MOST_IDS", 3)
    for chat_id in chats[:5]:
        scene.append(chat_id, RENAMED)
    summary = look(scene, coverage=SINCE_LAST)
    assert "more than 3 aggregates changed" in summary.warnings[0]
    assert {item[1] for item in found(summary)} == set(chats[:5])


def test_streams_of_other_types_are_no_change(scene: Any) -> None:
    scene.fill(3)
    token = changes_since(scene.events, CHAT_FOLD.stored_as, None).token
    scene.stream("a-user", "User", ("user.created", {}))
    scene.chat("new")
    assert len(changes_since(scene.events, CHAT_FOLD.stored_as, token).ids) == 1


@pytest.mark.parametrize("code", [13, 40573, 9])
def test_a_server_that_tells_no_changes_any_more_has_everything_verified(
    scene: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    scene.fill(12)
    look(scene)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OperationFailure("refused", code)

    monkeypatch.setattr(changes, "_watch", refuse)
    for _ in range(2):
        summary = look(scene, coverage=SINCE_LAST)
        assert "Everything was verified" in summary.warnings[0]
        assert summary.read_models["chats_read_model"].checked == 12


@pytest.mark.parametrize("data", ["garbage", "8265000000"])
def test_a_token_that_no_server_knows_has_everything_verified_and_is_replaced(scene: Any, data: str) -> None:
    scene.fill(12)
    look(scene, "chat")
    scene.database[WATERMARKS].update_one({}, {"$set": {"token": {"_data": data}}})
    assert "Everything was verified" in look(scene, "chat", coverage=SINCE_LAST).warnings[0]
    assert look(scene, "chat", coverage=SINCE_LAST).warnings == []


@pytest.mark.parametrize(
    "other",
    [
        {"task_source": "task"},
        {"chats_collection": "chat_read_model"},
        {"allow_malformed": frozenset({"version_gap"})},
    ],
)
def test_other_settings_have_everything_verified(scene: Any, other: dict[str, Any]) -> None:
    scene.fill(12)
    look(scene)
    scene.settings = scene.settings.model_copy(update=other)
    summary, full = look(scene, coverage=SINCE_LAST), look(scene, remember=False)
    assert "with these settings" in summary.warnings[0]
    assert found(summary) == found(full)


NIGHTLY = Coverage(bucket=Bucket(1, 7), since_last=True)


@pytest.mark.parametrize("coverage", [SINCE_LAST, Coverage(bucket=Bucket(1, 7)), NIGHTLY])
@pytest.mark.parametrize("odd", [7, None, "x" * 3_000])
def test_a_finding_under_an_odd_id_is_not_closed_while_it_is_there(scene: Any, odd: Any, coverage: Coverage) -> None:
    scene.fill(12)
    scene.chats.insert_one({"chat_id": odd, "title": "broken"})
    look(scene, "chat")
    assert look(scene, "chat", coverage=coverage).about["closed"] == 0
    scene.chats.delete_one({"title": "broken"})
    assert look(scene, "chat").about["closed"] == 1


def test_a_night_sees_ids_that_are_no_strings_and_what_became_of_them(scene: Any) -> None:
    scene.fill(12)
    look(scene)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    scene.tasks.insert_one({"task_id": 8})
    summary = look(scene, coverage=Coverage(bucket=Bucket(1, 7)))
    assert found(summary) == found(look(scene)) != set()
    scene.tasks.delete_one({"task_id": 8})
    assert look(scene, coverage=NIGHTLY).about["closed"] == 1


def test_a_new_event_with_an_odd_id_has_everything_verified(scene: Any) -> None:
    scene.fill(12)
    look(scene)
    scene.put((1, "chat.created", {}), aggregate_id=7)
    summary = look(scene, coverage=SINCE_LAST)
    assert "no text" in summary.warnings[0]
    assert found(summary) == found(look(scene, remember=False)) != set()


def test_a_new_event_whose_id_is_no_utf8_has_everything_verified(scene: Any) -> None:
    scene.fill(12)
    look(scene)
    text = bson.encode(event("zzzzQ", "Chat", 1, "chat.created", {})).replace(b"zzzzQ", b"zzzz\xff")
    scene.raw("events").insert_one(RawBSONDocument(text))
    assert found(look(scene, coverage=NIGHTLY)) == found(look(scene, remember=False)) != set()


def test_the_older_claim_of_a_key_is_looked_at_with_a_new_one(legacy_scene: Any) -> None:
    legacy_scene.index()
    legacy_scene.task("A", "chat-1")
    legacy_scene.rebuild()
    look(legacy_scene, "task")
    legacy_scene.task("B", "chat-1")
    summary = look(legacy_scene, "task", coverage=SINCE_LAST)
    assert found(summary) == found(look(legacy_scene, "task", remember=False))
    assert [item.reason for item in summary.findings] == ["key_conflict"] * 2


def test_an_incremental_look_reads_no_more_events_for_claims_that_did_not_change(legacy_scene: Any) -> None:
    legacy_scene.fill(60)
    look(legacy_scene)
    legacy_scene.chat("new")
    legacy_scene.rebuild()
    legacy_scene.database.command("profile", 2)
    look(legacy_scene, coverage=SINCE_LAST)
    legacy_scene.database.command("profile", 0)
    ran = legacy_scene.database["system.profile"].find({"ns": legacy_scene.events.full_name, "op": "command"})
    assert sum(item.get("docsExamined", 0) for item in ran) < 20 < legacy_scene.events.count_documents({})


# What makes no sense


@pytest.mark.parametrize(
    "options",
    [
        {"enqueue_repairs": True, "remember": False},
        {"tier": "versions", "coverage": SINCE_LAST},
        {"tier": "versions", "coverage": Coverage(bucket=Bucket(1, 7))},
    ],
)
def test_what_contradicts_itself_is_refused_and_writes_nothing(scene: Any, options: dict[str, Any]) -> None:
    chats = scene.fill(6)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    before = scene.dump()
    with pytest.raises(UsageError):
        look(scene, **options)
    assert scene.dump() == before


# A moment behind


def test_a_document_that_its_writer_mends_within_the_grace_time_is_no_finding(scene: Any) -> None:
    chats = scene.fill(12)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 1.0})
    just_now(scene, chats[0], RENAMED)
    writer = threading.Timer(0.4, lambda: scene.rebuild_one(chats[0]))
    writer.start()
    summary = look(scene)
    writer.join()
    assert summary.ok
    assert sum(counts.lagging for counts in summary.read_models.values()) == 0
    assert summary.read_models["chats_read_model"].same == 12
    assert scene.database[FINDINGS].count_documents({}) == 0


def test_a_document_that_nobody_mends_is_a_finding_after_the_grace_time(scene: Any) -> None:
    chats = scene.fill(12)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.5})
    just_now(scene, chats[0], RENAMED)
    started = time.monotonic()
    summary = look(scene, "chat")
    assert found(summary) == {("chats_read_model", chats[0], "different")}
    assert time.monotonic() - started >= 0.5


def test_an_old_damage_is_told_without_waiting(scene: Any) -> None:
    chats = scene.fill(12)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 60.0})
    just_now(scene, chats[0], RENAMED, seconds_ago=61)
    started = time.monotonic()
    assert not look(scene).ok
    assert time.monotonic() - started < 10


class Busy:
    """A chat that gets an event at the very moments when a verification looks, projected `late` events later."""

    def __init__(self, scene: Any, chat_id: str, projects: Callable[[], object]) -> None:
        self._scene, self._chat_id, self._projects = scene, chat_id, projects

    def go_on(self) -> None:
        self._projects()
        just_now(self._scene, self._chat_id, RENAMED)


@pytest.mark.parametrize(("projected", "outcome"), [(True, "lagging"), (False, "different")])
def test_a_document_that_is_always_a_moment_behind_lags_and_one_that_stands_still_is_wrong(
    scene: Any, monkeypatch: pytest.MonkeyPatch, projected: bool, outcome: str
) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.3})
    busy = Busy(scene, chats[0], lambda: scene.rebuild_one(chats[0]) if projected else None)
    just_now(scene, chats[0], ("chat.renamed", {"new_title": "First", "old_title": "", "renamed_by": "u"}))
    read = EventStore.read

    def read_while_it_grows(store: EventStore, fold: Any, ids: Any = None, *within: Any) -> Any:
        if ids is not None and chats[0] in ids and threading.current_thread() is threading.main_thread():
            monkeypatch.setattr(EventStore, "read", read)
            busy.go_on()
            monkeypatch.setattr(EventStore, "read", read_while_it_grows)
        return read(store, fold, ids, *within)

    monkeypatch.setattr(EventStore, "read", read_while_it_grows)
    counts = look(scene, "chat").read_models["chats_read_model"]
    assert getattr(counts, outcome) == 1
    assert counts.checked == 6 == counts.same + 1


def test_a_new_chat_that_is_not_projected_yet_lags(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 30.0})
    waited: list[float] = []
    monkeypatch.setattr(Confirm, "__init__", partialmethod(Confirm.__init__, sleep=waited.append))
    new = scene.chat("brand new")
    scene.events.update_many({"aggregate_id": new}, {"$set": {"created_at": datetime.now(UTC)}})
    assert look(scene, "chat").read_models["chats_read_model"].lagging == 1
    assert 29 < waited[0] <= 30


def test_a_damage_in_a_chat_that_is_written_right_now_is_found(scene: Any) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.3})
    just_now(scene, chats[0], RENAMED)
    scene.rebuild_one(chats[0])
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"created_by": "somebody else"}})
    assert found(look(scene)) == {("chats_read_model", chats[0], "different")}


@pytest.mark.parametrize("version", [float("nan"), float("inf"), Decimal128("999")])
def test_a_young_event_with_a_version_that_is_none_is_malformed(scene: Any, version: Any) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 0.1})
    (event_id,) = scene.put((version, "chat.renamed", {}), aggregate_id=chats[0])
    scene.events.update_one({"_id": event_id}, {"$set": {"created_at": datetime.now(UTC)}})
    assert found(look(scene, "chat")) == {("chats_read_model", chats[0], "malformed")}


@pytest.mark.parametrize("coverage", [SINCE_LAST, Coverage()])
def test_what_lags_is_looked_at_again_until_it_does_not(scene: Any, coverage: Coverage) -> None:
    chats = scene.fill(6)
    look(scene)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 1.0})
    # Its writer's clock is ahead, and it died before it projected.
    just_now(scene, chats[0], RENAMED, seconds_ago=-1.5)
    time.sleep(0.7)
    first = look(scene, "chat", coverage=SINCE_LAST)
    assert first.read_models["chats_read_model"].lagging == 1
    assert (first.ok, first.findings, first.differing["chats_read_model"]) == (True, [], {})
    assert Memory(scene.database).open_by_outcome("chats_read_model") == {}
    time.sleep(1.5)
    assert found(look(scene, "chat", coverage=coverage)) == {("chats_read_model", chats[0], "different")}


def test_what_lagged_and_was_projected_is_forgotten(scene: Any) -> None:
    chats = scene.fill(6)
    scene.settings = scene.settings.model_copy(update={"grace_seconds": 1.0})
    just_now(scene, chats[0], RENAMED, seconds_ago=-1.5)
    time.sleep(0.7)
    assert look(scene, "chat").read_models["chats_read_model"].lagging == 1
    scene.rebuild_one(chats[0])
    last = look(scene, "chat", coverage=SINCE_LAST)
    assert (last.about["closed"], last.read_models["chats_read_model"].checked) == (0, 1)
    assert scene.database[FINDINGS].count_documents({}) == 0


# What is fresh


def test_what_was_appended_lately_is_looked_at_however_long_ago_it_occurred(scene: Any) -> None:
    chats = scene.fill(6)
    long_ago = datetime.now(UTC) - timedelta(hours=20)
    scene.append(chats[0], RENAMED)
    scene.events.update_many({}, {"$set": {"occurred_at": long_ago}})
    summary = verify_fresh(scene.database, scene.settings, ["chat"])
    assert found(summary) == {("chats_read_model", chats[0], "different")}
    assert summary.read_models["chats_read_model"].checked == 1


def test_more_young_aggregates_than_are_looked_at_are_told(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.index()
    for number in range(12):
        scene.chat(f"chat {number}")
    module = sys.modules["readmodel_pipelines.verification.verify"]
    for most, warnings in ((12, 0), (3, 1)):
        monkeypatch.setattr(module, "_MOST_RECENT", most)
        summary = verify_fresh(scene.database, scene.settings, ["chat"])
        assert (summary.read_models["chats_read_model"].checked, len(summary.warnings)) == (most, warnings)
        assert ("not looked at" in summary.about["coverage"]) is bool(warnings)


# What is remembered


def test_a_finding_grows_old_and_begins_anew_when_its_aggregate_changed(scene: Any) -> None:
    chats = scene.fill(6)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    first = look(scene, "chat").findings[0]
    time.sleep(0.05)
    second = look(scene, "chat").findings[0]
    assert second.first_seen == first.first_seen
    assert second.age_seconds >= 0.05 > first.age_seconds
    assert second.as_json()["age_seconds"] == second.age_seconds
    scene.append(chats[0], RENAMED)
    third = look(scene, "chat").findings[0]
    assert third.first_seen > first.first_seen


def test_findings_close_when_they_are_gone_and_open_anew_when_they_come_back(scene: Any) -> None:
    scene.fill(60)
    wanted = damage(scene)
    assert look(scene).about["closed"] == 0
    assert Memory(scene.database).open_by_outcome("tasks_read_model") == {"different": 1, "malformed": 1, "orphan": 1}
    scene.rebuild()
    summary = look(scene)
    assert summary.about["closed"] == 4
    assert {item[2] for item in found(summary)} == {"malformed"}
    closed = scene.database[FINDINGS].find_one({"state": "closed"})
    assert closed["closed_at"] >= closed["last_seen"] >= closed["first_seen"]
    _, chat_id, _ = next(item for item in wanted if item[::2] == ("chats_read_model", "different"))
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "broken"}})
    assert next(item for item in look(scene).findings if item.outcome == "different").age_seconds < 1
    again = scene.database[FINDINGS].find_one({"_id": f"chats_read_model/{chat_id}"})
    assert (again["state"], "closed_at" in again) == ("open", False)


def test_a_partial_look_closes_only_what_it_looked_at(scene: Any) -> None:
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
def test_ids_of_any_type_are_remembered_and_close(scene: Any, odd: Any) -> None:
    scene.fill(6)
    scene.chats.insert_one({"chat_id": odd, "title": "broken"})
    first, second = look(scene, "chat"), look(scene, "chat")
    assert len(first.findings) == 1
    assert second.findings[0].first_seen == first.findings[0].first_seen
    scene.chats.delete_one({"title": "broken"})
    assert look(scene, "chat").about["closed"] == 1


def test_a_number_and_a_text_that_looks_like_it_are_two_findings(scene: Any) -> None:
    scene.fill(6)
    scene.chats.insert_many([{"chat_id": 7}, {"chat_id": "7"}])
    summary = look(scene, "chat")
    assert [item.age_seconds for item in summary.findings] == [0, 0]
    assert scene.database[FINDINGS].count_documents({}) == 2


def test_every_finding_on_an_aggregate_says_since_when(scene: Any) -> None:
    chats = scene.fill(6)
    scene.chats.drop_indexes()
    document = scene.chats.find_one({"chat_id": chats[0]}, {"_id": 0})
    scene.chats.insert_one(document)
    scene.chats.update_many({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    summary = look(scene, "chat")
    assert len(summary.findings) == 2
    assert all(item.first_seen for item in summary.findings)


def test_a_version_that_no_date_can_hold_is_remembered(scene: Any) -> None:
    chats = scene.fill(6)
    scene.put((DatetimeMS(2**60), "chat.renamed", {}), aggregate_id=chats[0])
    assert found(look(scene, "chat")) == {("chats_read_model", chats[0], "malformed")}


def test_what_is_open_outside_of_what_was_looked_at_is_told(scene: Any) -> None:
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


def test_findings_that_are_gone_are_counted_by_read_model(scene: Any) -> None:
    scene.fill(12)
    scene.chats.update_many({}, {"$set": {"title": "broken"}})
    look(scene)
    scene.rebuild()
    summary = look(scene)
    assert summary.closed == {"chats_read_model": 12, "tasks_read_model": 0}
    assert summary.about["closed"] == 12


def test_every_verification_leaves_its_numbers(scene: Any) -> None:
    scene.fill(30)
    damage(scene)
    look(scene)
    look(scene, "chat", coverage=Coverage(bucket=Bucket(1, 2)))
    history = Memory(scene.database).history(["chats_read_model", "tasks_read_model"])
    assert [item["coverage"] for item in history] == ["every aggregate", "every aggregate", "bucket 1/2"]
    assert sorted(item["discrepancies"] for item in history[:2]) == [3, 3]
    assert scene.database[VERIFICATIONS].find_one()["counts"]["checked"] == 30


# The tier of versions


def test_the_tier_of_versions_finds_presence_and_version_but_no_other_field(scene: Any) -> None:
    scene.fill(60)
    wanted = damage(scene)
    summary = look(scene, tier="versions")
    assert found(summary) == {item for item in wanted if item[::2] != ("chats_read_model", "different")}
    tasks = summary.read_models["tasks_read_model"]
    absent = scene.chats.count_documents({"type": "discussion"})
    assert 0 < absent <= tasks.undecided
    assert tasks.checked == tasks.same + tasks.undecided + tasks.discrepancies


@pytest.mark.parametrize("which", ["scene", "legacy_scene"])
def test_the_tier_of_versions_is_clean_on_healthy_read_models(request: pytest.FixtureRequest, which: str) -> None:
    scene = request.getfixturevalue(which)
    scene.fill(60)
    scene.ensure_indexes()
    summary = look(scene, tier="versions")
    assert (summary.ok, summary.warnings, summary.events) == (True, [], look(scene).events)


def test_a_look_at_versions_is_covered_by_its_index(scene: Any) -> None:
    scene.fill(30)
    assert "ensure-indexes" in look(scene, tier="versions").warnings[0]
    scene.ensure_indexes()
    store = EventStore(scene.database["events"])
    aggregate = {
        "aggregate": scene.events.name,
        "pipeline": version_ranges_of(CHAT_FOLD),
        "cursor": {},
        "hint": store.version_index,
    }
    plan = scene.database.command("explain", aggregate, verbosity="executionStats")
    assert examined(plan) == 0
    assert "'FETCH'" not in repr(plan)


def examined(plan: Any) -> int:
    if isinstance(plan, dict):
        own = plan.get("totalDocsExamined", 0)
        return own + sum(examined(part) for part in plan.values())
    return sum(map(examined, plan)) if isinstance(plan, list) else 0


def test_an_array_among_the_ids_is_told_and_does_not_stop_it(scene: Any) -> None:
    chats = scene.fill(12)
    scene.ensure_indexes()
    scene.put((1_000, "chat.created", {}), aggregate_id=[chats[0], "b"])
    summary = look(scene, tier="versions")
    assert "an array" in summary.warnings[0]
    assert {item[2] for item in found(summary)} == {"malformed"}
    assert summary.read_models["chats_read_model"].same == 12
    bucket = look(scene, coverage=Coverage(bucket=Bucket(1, 1)))
    assert found(bucket) == found(summary)
    assert bucket.read_models["chats_read_model"].same == 12


# Reports


def test_the_report_of_one_aggregate_says_how_to_mend_that_one(scene: Any, tmp_path: Path) -> None:
    chat_id = scene.fill(6)[0]
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "broken"}})
    file = tmp_path / "a.json"
    verify_one(scene.database, scene.settings, ["chat"], f" {chat_id.upper()} ", [file])
    commands = [item["command"] for item in json.loads(file.read_text())["mend"]]
    assert commands
    assert all(f"--type chat --id {chat_id}" in command and "--all" not in command for command in commands)


# The loop


def test_findings_go_into_the_queue_once_and_malformed_ones_do_not(scene: Any) -> None:
    chats = scene.fill(30)
    damage(scene)
    scene.tasks.update_one({"task_id": chats[0]}, {"$set": {"title": "broken"}})
    first = look(scene, enqueue_repairs=True)
    tasks = list(scene.database.repair_queue.find())
    wanted = {
        item.aggregate_id for item in first.findings if item.outcome != "malformed" and len(item.aggregate_id) == 36
    }
    assert {task["aggregate_id"] for task in tasks} == wanted
    assert len(tasks) == len(wanted) == first.about["queued"]
    assert {task["task_type"] for task in tasks} == {"readmodel_sync"}
    second = look(scene, enqueue_repairs=True)
    assert (second.about["queued"], scene.database.repair_queue.count_documents({})) == (0, len(wanted))
    assert second.about["pending_already"] >= len(wanted)


@pytest.mark.parametrize("limit", ["enqueue_limit", "repair_queue_limit"])
def test_no_more_than_the_limit_is_queued_and_the_rest_is_told(scene: Any, limit: str) -> None:
    scene.fill(30)
    scene.chats.delete_many({})
    scene.settings = scene.settings.model_copy(update={limit: 7})
    summary = look(scene, "chat", enqueue_repairs=True)
    assert scene.database.repair_queue.count_documents({}) == summary.about["queued"] == 7
    assert any("23 findings were not queued" in warning for warning in summary.warnings)


def test_what_waits_already_is_counted_as_such_in_a_full_queue(scene: Any) -> None:
    scene.fill(10)
    scene.chats.update_many({}, {"$set": {"title": "broken"}})
    scene.settings = scene.settings.model_copy(update={"repair_queue_limit": 10})
    look(scene, "chat", enqueue_repairs=True)
    again = look(scene, "chat", enqueue_repairs=True)
    assert (again.about["pending_already"], again.warnings) == (10, [])


@pytest.mark.parametrize("asked", [("chat",), ("chat", "task")])
def test_no_repair_deletes_more_from_a_read_model_than_a_rebuild_would_dare(scene: Any, asked: tuple[str, ...]) -> None:
    scene.fill(10)
    ids = [scene.chat(f"gone {number}") for number in range(120)]
    scene.rebuild()
    for chat_id in ids:
        scene.append(chat_id, ("chat.type_changed", {"new_type": "discussion", "old_type": "task"}))
    scene.rebuild("chat")
    scene.chats.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken"}})
    summary = look(scene, *asked, enqueue_repairs=True)
    assert summary.about["queued"] == 100
    assert "20 documents" in summary.warnings[0]
