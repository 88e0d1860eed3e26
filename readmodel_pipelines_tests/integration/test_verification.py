"""What a verification covers, that each way of looking tells what a full look would tell, and what it queues."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.doctor.check import Check, Health
from readmodel_pipelines.doctor.work import judge_indexes
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.event_store import spellings
from readmodel_pipelines.mongo.indexes import flaws
from readmodel_pipelines.mongo.names import FINDINGS, VERIFICATIONS
from readmodel_pipelines.mongo.stream_ends import first_events, last_versions
from readmodel_pipelines.pacing import RateLimit, Window
from readmodel_pipelines.projections.chat import CHAT_FOLD
from readmodel_pipelines.speed_limits import WindowClosed
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.verify import verify_fresh, verify_one
from readmodel_pipelines_tests.support.clock import Clock
from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.verbs.verifying import RENAMED, SINCE_LAST, damage, found, look

STREAMS = "aggregate_id_1_version_1"

# Coverage


def test_a_healthy_store_is_clean_in_every_way_of_looking(scene: Scene) -> None:
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


@pytest.fixture
def limited_by(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the limits."""
    clock = Clock()
    monkeypatch.setattr(
        "readmodel_pipelines.speed_limits.RateLimit", partial(RateLimit, clock=clock, sleep=clock.sleep)
    )
    return clock


@pytest.mark.parametrize("read_order", ["index", "scan"])
@pytest.mark.parametrize("way", [{}, {"coverage": Coverage(bucket=Bucket(1, 1))}], ids=["everything", "in batches"])
def test_a_verification_keeps_to_the_limit_of_events_from_the_first_ones_on_and_waits_once_for_each(
    scene: Scene, limited_by: Clock, tmp_path: Path, way: dict[str, Any], read_order: str
) -> None:
    chats = scene.fill(30)
    events = scene.events.count_documents({})
    scene.settings = scene.settings.model_copy(
        update={"max_events_per_second": float(events), "read_order": read_order, "spool_dir": tmp_path}
    )
    began = limited_by.now
    assert look(scene, **way).ok
    assert limited_by.now - began == pytest.approx(1.0)
    assert scene.verify_one(chats[0]).ok
    assert limited_by.now - began == pytest.approx(1.0), "one aggregate waits for nothing"


def test_the_tier_of_versions_keeps_to_the_limit_with_the_events_that_it_reads(scene: Scene, limited_by: Clock) -> None:
    chats = scene.fill(30)
    scene.ensure_indexes()
    read = len(chats) + scene.events.count_documents({"event_type": {"$in": ["chat.type_changed", "chat.deleted"]}})
    scene.settings = scene.settings.model_copy(update={"max_events_per_second": float(read)})
    began = limited_by.now
    assert look(scene, tier="versions").ok
    assert limited_by.now - began == pytest.approx(1.0)


@pytest.mark.parametrize("read_order", ["index", "scan"])
@pytest.mark.parametrize("tier", ["documents", "versions"])
def test_a_verification_that_keeps_to_a_window_ends_with_it_and_counts_as_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tier: Any, read_order: str
) -> None:
    scene.fill(30)
    scene.build()
    scene.ensure_indexes()
    scene.settings = scene.settings.model_copy(update={"read_order": read_order, "spool_dir": tmp_path})
    for number, still_open in enumerate([chain([True], repeat(False)), repeat(False), repeat(True)]):
        monkeypatch.setattr(Window, "is_open", lambda *_, answers=still_open: next(answers))
        with pytest.raises(WindowClosed) if number < 2 else nullcontext():
            assert look(scene, tier=tier, off_peak=True).ok
        # Another one takes no notice.
        assert look(scene, tier=tier).ok
    assert scene.database[VERIFICATIONS].count_documents({"read_model": "chats_read_model"}) == 3 + 1


def test_the_buckets_together_find_what_everything_finds_each_once(scene: Scene) -> None:
    scene.fill(60)
    wanted = damage(scene)
    parts = [look(scene, coverage=Coverage(bucket=Bucket(number, 4))) for number in range(1, 5)]
    assert sum(len(found(part)) for part in parts) == len(wanted)
    assert set().union(*map(found, parts)) == wanted
    whole = look(scene)
    assert found(whole) == wanted
    for name, counts in whole.read_models.items():
        assert sum(part.read_models[name].checked for part in parts) == counts.checked
    assert all(part.read_models["chats_read_model"].checked > 5 for part in parts)


def test_a_sample_checks_so_many_and_finds_orphans_too(scene: Scene) -> None:
    scene.fill(30)
    scene.tasks.insert_one({"task_id": "0" * 8, "chat_id": "x"})
    small, large = (look(scene, coverage=Coverage(sample=size)) for size in (5, 1_000))
    assert small.read_models["chats_read_model"].checked <= 5
    assert ("tasks_read_model", "0" * 8, "orphan") in found(large)


def test_an_id_that_is_no_utf8_does_not_stop_a_bucket(scene: Scene) -> None:
    scene.fill(12)
    raw = RawBSONDocument(
        b"\x25\x00\x00\x00\x07_id\x00" + ObjectId().binary + b"\x02chat_id\x00\x02\x00\x00\x00\xff\x00\x00"
    )
    scene.chats.insert_one(raw)
    assert look(scene, coverage=Coverage(bucket=Bucket(1, 1))).ok
    assert not look(scene).ok


# What makes no sense


@pytest.mark.parametrize(
    "options",
    [
        {"enqueue_repairs": True, "remember": False},
        {"tier": "versions", "coverage": SINCE_LAST},
        {"tier": "versions", "coverage": Coverage(bucket=Bucket(1, 7))},
    ],
)
def test_what_contradicts_itself_is_refused_and_writes_nothing(scene: Scene, options: dict[str, Any]) -> None:
    chats = scene.fill(6)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "broken"}})
    before = scene.dump()
    with pytest.raises(UsageError):
        look(scene, **options)
    assert scene.dump() == before


# What is fresh


def test_what_was_appended_lately_is_looked_at_however_long_ago_it_occurred(scene: Scene) -> None:
    chats = scene.fill(6)
    long_ago = datetime.now(UTC) - timedelta(hours=20)
    scene.append(chats[0], RENAMED)
    scene.events.update_many({}, {"$set": {"occurred_at": long_ago}})
    summary = verify_fresh(scene.database, scene.settings, ["chat"])
    assert found(summary) == {("chats_read_model", chats[0], "different")}
    assert summary.read_models["chats_read_model"].checked == 1


def test_a_look_at_some_young_ones_alone_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.index()
    for number in range(12):
        scene.chat(f"chat {number}")
    module = sys.modules["readmodel_pipelines.verification.verify"]
    for most, warnings in ((12, 0), (3, 1)):
        monkeypatch.setattr(module, "_MOST_RECENT", most)
        summary = verify_fresh(scene.database, scene.settings, ["chat"])
        assert (summary.read_models["chats_read_model"].checked, len(summary.warnings)) == (most, warnings)
        assert ("not compared" in summary.about["coverage"]) is bool(warnings)


# The tier of versions


def test_the_tier_of_versions_finds_presence_and_version_but_no_other_field(scene: Scene) -> None:
    scene.fill(60)
    wanted = damage(scene)
    summary = look(scene, tier="versions")
    assert found(summary) == {item for item in wanted if item[::2] != ("chats_read_model", "different")}
    tasks = summary.read_models["tasks_read_model"]
    assert tasks.checked == tasks.same + tasks.discrepancies


def deleted(scene: Scene) -> str:
    return scene.chat("gone", ("chat.deleted", {}))


def discussion(scene: Scene) -> str:
    return scene.chat("talk", kind="discussion")


def became_a_discussion(scene: Scene) -> str:
    return scene.chat("talked", ("chat.type_changed", {"new_type": "discussion", "title": "talked"}))


def became_a_task(scene: Scene) -> str:
    return scene.chat("agreed", ("chat.type_changed", {"new_type": "task", "title": "agreed"}), kind="discussion")


@pytest.mark.parametrize(("makes", "versions"), [(deleted, 3), (discussion, 2), (became_a_discussion, 3)])
def test_the_tier_of_versions_finds_a_document_at_the_right_version_that_nobody_wants(
    scene: Scene, makes: Callable[[Scene], str], versions: int
) -> None:
    scene.fill(6)
    chat_id = makes(scene)
    scene.build()
    assert look(scene, tier="versions").ok
    scene.tasks.insert_one({"task_id": chat_id, "chat_id": chat_id, "version": versions})
    assert found(look(scene, tier="versions")) == {("tasks_read_model", chat_id, "unexpected")}


def test_the_tier_of_versions_finds_a_task_that_is_missing(scene: Scene) -> None:
    scene.fill(6)
    chat_id = became_a_task(scene)
    scene.build()
    scene.tasks.delete_one({"task_id": chat_id})
    assert found(look(scene, tier="versions")) == {("tasks_read_model", chat_id, "missing")}


@pytest.mark.each_once
@pytest.mark.parametrize("which", ["scene", "legacy_scene"])
@pytest.mark.parametrize("skipped", ["audit.noted", "tasks.noted", "zzz", ""])
def test_the_tier_of_versions_leaves_out_events_that_are_skipped(
    request: pytest.FixtureRequest, which: str, skipped: str
) -> None:
    scene = request.getfixturevalue(which)
    scene.settings = scene.settings.model_copy(update={"allow_malformed": frozenset({"unknown_event_type"})})
    scene.fill(6)
    makes = scene.chat if which == "scene" else scene.task
    key = makes("noted", *([] if which == "scene" else ["c"]), (skipped, {}))
    scene.build()
    assert look(scene, tier="versions").ok
    scene.tasks.update_one({"task_id": key}, {"$inc": {"version": 1}})
    assert found(look(scene, tier="versions")) == {("tasks_read_model", key, "different")}


@pytest.mark.parametrize("which", ["scene", "legacy_scene"])
def test_the_tier_of_versions_is_clean_on_healthy_read_models(request: pytest.FixtureRequest, which: str) -> None:
    scene = request.getfixturevalue(which)
    scene.fill(60)
    scene.ensure_indexes()
    summary = look(scene, tier="versions")
    assert (summary.ok, summary.warnings, summary.events) == (True, [], look(scene).events)


def test_the_tier_of_versions_knows_claims_that_are_contested(legacy_scene: Scene) -> None:
    legacy_scene.index()
    tasks = sorted(legacy_scene.task(name, "c") for name in ("one", "two"))
    assert found(look(legacy_scene, "task", tier="versions")) == {
        ("tasks_read_model", key, "malformed") for key in tasks
    }


def test_a_look_at_versions_is_covered_by_its_index(scene: Scene) -> None:
    scene.fill(30)
    chats = scene.chats.count_documents({})
    assert examined(scene, last_versions()) == (chats, 0)
    firsts = first_events(spellings(CHAT_FOLD.stored_as), ["aggregate_type"], merged=False)
    assert examined(scene, firsts) == (chats, chats)
    with scene.profiled() as commands:
        assert look(scene, "chat", tier="versions").ok
    of_events = [command for command in commands if command["ns"].endswith(f".{scene.events.name}")]
    # Of the last versions the server gives the sum from keys alone, a key for each stream.
    assert max(command.get("keysExamined", 0) for command in of_events) == chats
    assert sum(command.get("docsExamined", 0) for command in of_events) <= chats + 1


def test_a_look_at_versions_reads_the_first_event_of_each_stream_and_later_ones_that_decide(scene: Scene) -> None:
    chats = scene.fill(30)
    scene.build()
    scene.ensure_indexes()
    later = scene.events.count_documents({"event_type": {"$in": ["chat.type_changed", "chat.deleted"]}})
    with scene.profiled() as commands:
        assert look(scene, tier="versions", remember=False).ok
    of_events = [command for command in commands if command["ns"].endswith(f".{scene.events.name}")]
    # One more to see that there are events at all.
    assert sum(command.get("docsExamined", 0) for command in of_events) <= len(chats) + later + 1


def examined(scene: Scene, pipeline: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    aggregate = {"aggregate": scene.events.name, "pipeline": pipeline, "cursor": {}, "hint": STREAMS}
    plan = scene.database.command("explain", aggregate, verbosity="executionStats")
    stats = plan["stages"][0]["$cursor"]["executionStats"]
    return stats["totalKeysExamined"], stats["totalDocsExamined"]


def test_without_the_index_a_look_at_versions_reads_every_event_and_says_so(scene: Scene) -> None:
    scene.fill(30)
    wanted = damage(scene)
    scene.events.drop_index(STREAMS)
    summary = look(scene, tier="versions")
    assert "ensure-indexes" in summary.warnings[0]
    assert found(summary) == {item for item in wanted if item[::2] != ("chats_read_model", "different")}


@pytest.mark.parametrize("versions", [(1, 2, 4), (0, 1, 2), (2, 3), (1, 1.5, 2), (1, 2, float("nan")), (1, None)])
def test_a_version_that_is_wrong_inside_of_a_stream_is_seen_by_the_number_of_events(
    scene: Scene, versions: tuple[Any, ...]
) -> None:
    scene.fill(6)
    chat_id = scene.chat("wrong")
    scene.build()
    scene.events.delete_many({"aggregate_id": chat_id})
    kinds = [("chat.created", {}), *[RENAMED] * (len(versions) - 1)]
    scene.put(*[(version, *kind) for version, kind in zip(versions, kinds, strict=True)], aggregate_id=chat_id)
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"version": versions[-1]}})
    scene.tasks.update_one({"task_id": chat_id}, {"$set": {"version": versions[-1]}})
    assert ("tasks_read_model", chat_id, "malformed") in found(look(scene, tier="versions"))


@pytest.mark.parametrize("odd", [7, None, ["x"]])
def test_events_with_an_odd_id_do_not_hide_a_gap(scene: Scene, odd: Any) -> None:
    chats = scene.fill(6)
    gap = chats[0]
    scene.events.update_one({"aggregate_id": gap, "version": 1}, {"$set": {"version": 1_000}})
    scene.put((1, "chat.created", {}), (5, *RENAMED), aggregate_id=odd)
    assert ("chats_read_model", gap, "malformed") in found(look(scene, tier="versions"))


def test_an_index_of_old_for_the_tier_of_versions_does_no_harm(scene: Scene) -> None:
    scene.fill(12)
    scene.events.create_index([("aggregate_type", 1), ("aggregate_id", 1), ("version", 1)])
    wanted = {item for item in damage(scene) if item[::2] != ("chats_read_model", "different")}
    assert found(look(scene, tier="versions")) == wanted
    assert doctor_of_indexes(scene).state is Health.OK


def doctor_of_indexes(scene: Scene) -> Check:
    scene.ensure_indexes()
    there = scene.database.list_collection_names()
    return judge_indexes(flaws(scene.database, scene.settings), there)


def test_an_array_among_the_ids_is_told_and_does_not_stop_it(scene: Scene) -> None:
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


def test_the_report_of_one_aggregate_says_how_to_mend_that_one(scene: Scene, tmp_path: Path) -> None:
    chat_id = scene.fill(6)[0]
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "broken"}})
    file = tmp_path / "a.json"
    verify_one(scene.database, scene.settings, ["chat"], f" {chat_id.upper()} ", [file])
    commands = [item["command"] for item in json.loads(file.read_text())["mend"]]
    assert commands
    assert all(f"--type chat --id {chat_id}" in command and "--all" not in command for command in commands)


# Findings that go into the repair queue: once each, and no more deletions than a rebuild would dare


def test_findings_go_into_the_queue_once_and_malformed_ones_do_not(scene: Scene) -> None:
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
def test_no_more_than_the_limit_is_queued_and_the_rest_is_told(scene: Scene, limit: str) -> None:
    scene.fill(30)
    scene.chats.delete_many({})
    scene.settings = scene.settings.model_copy(update={limit: 7})
    summary = look(scene, "chat", enqueue_repairs=True)
    assert scene.database.repair_queue.count_documents({}) == summary.about["queued"] == 7
    assert any("23 findings were not queued" in warning for warning in summary.warnings)


@pytest.mark.parametrize("asked", [("chat",), ("chat", "task")])
def test_no_repair_deletes_more_of_a_read_model_than_a_rebuild_would(scene: Scene, asked: tuple[str, ...]) -> None:
    scene.fill(10)
    ids = [scene.chat(f"gone {number}") for number in range(120)]
    scene.build()
    for chat_id in ids:
        scene.append(chat_id, ("chat.type_changed", {"new_type": "discussion", "old_type": "task"}))
    scene.rebuild("chat")
    scene.chats.update_many({"chat_id": {"$in": ids}}, {"$set": {"title": "broken"}})
    summary = look(scene, *asked, enqueue_repairs=True)
    # Five in a hundred of 130 documents.
    assert summary.about["queued"] == 6
    assert "114 documents" in summary.warnings[0]
