"""The checks of the read models, the job that evaluates them, and the schedules that launch it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from dagster import DagsterEventType
from pymongo.collection import Collection

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.damage import damage_everything
from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings, load_settings
from readmodel_pipelines.verification.coverage import Bucket
from readmodel_pipelines_tests.support.at_a_moment import each, raises
from readmodel_pipelines_tests.support.scene import RAW, Mongo, make_right, taken_from
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    CHATS,
    SAMPLE,
    TASKS,
    Dagster,
    sentence,
    table,
    values,
    with_events,
)

MATCHES, INTACT, FRESH = "matches_events", "streams_intact", "is_fresh"
ALL = [(asset, check) for asset in (CHATS, TASKS) for check in (MATCHES, INTACT, FRESH)]


@pytest.fixture
def healthy(database: Mongo, settings: Settings, dagster: Dagster) -> Mongo:
    """Events and right read models, which the environment of the runs points at."""
    with_events(database, settings, SAMPLE)
    make_right(database, settings)
    return database


def metadata(evaluation: Any) -> dict[str, Any]:
    return values(evaluation.metadata)


def said_by(dagster: Dagster, result: Any) -> list[Any]:
    """What the checks of a run of the job said."""
    events = dagster.recorded(result, DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.asset_check_evaluation_data for event in events]


def rows(evaluation: Any) -> list[Mapping[str, Any]]:
    return table(metadata(evaluation))


def test_the_checks_of_healthy_read_models_pass_and_say_what_was_looked_at(healthy: Mongo, dagster: Dagster) -> None:
    found = dagster.evaluate(*ALL)
    assert set(found) == set(ALL)
    assert all(item.passed for item in found.values()), found
    numbers = metadata(found[CHATS, MATCHES])
    assert numbers["checked"] == numbers["same"] == 40
    plotted = {name for name, item in found[CHATS, MATCHES].metadata.items() if isinstance(item.value, int | float)}
    assert plotted == {"drift/everything"}, "one line for each kind of look, and nothing else"
    assert numbers["drift/everything"] == 0
    assert "every aggregate" in found[CHATS, MATCHES].description


def test_only_the_chosen_checks_are_evaluated(healthy: Mongo, dagster: Dagster) -> None:
    for chosen in ([(CHATS, MATCHES)], [(TASKS, FRESH)], [(TASKS, INTACT), (CHATS, FRESH)]):
        assert set(dagster.evaluate(*chosen)) == set(chosen)


def test_every_kind_of_damage_is_in_the_table_with_field_expected_and_actual(
    database: Mongo, settings: Settings, dagster: Dagster
) -> None:
    healthy = with_events(database, settings, list(chat_events(200, seed=7)))
    assert ReadModelProjector(database, settings).rebuild_all().ok
    discussions = [item["chat_id"] for item in healthy.chats_read_model.find({"type": "discussion"})]
    damages = damage_everything(healthy.chats_read_model, healthy.tasks_read_model, discussion_ids=discussions)
    found = dagster.evaluate((CHATS, MATCHES), (TASKS, MATCHES), max_findings=1_000)
    shown = {
        (asset, str(row["aggregate_id"]), row["outcome"], row["field"])
        for asset in (CHATS, TASKS)
        for row in rows(found[asset, MATCHES])
    }
    for damage in damages:
        asset = f"{damage.model}_read_model"
        if isinstance(damage.key, str):
            field = damage.field if damage.outcome == "different" else ""
            assert (asset, damage.key, damage.outcome, field) in shown, damage
    for asset in (CHATS, TASKS):
        evaluation = found[asset, MATCHES]
        assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
        different = [row for row in rows(evaluation) if row["field"]]
        assert [row for row in different if row["expected"] == row["actual"] or not row["age"]] == []
        numbers = metadata(evaluation)
        by_field = {row["field"] for row in different}
        assert {name.removeprefix("differs/") for name in numbers if name.startswith("differs/")} == by_field
        assert all(Path(str(numbers[f"report{suffix}"])).is_file() for suffix in (".html", ".parquet"))


def test_texts_that_are_no_utf_8_are_told_as_every_storage_takes_them(healthy: Mongo, dagster: Dagster) -> None:
    chats: Collection[Any] = healthy.get_collection(CHATS, codec_options=RAW)
    for name in ("chat_id", "title"):
        document = taken_from(chats, {name: {"$ne": ""}})
        broken = str(document[name]).encode()
        chats.insert_one(RawBSONDocument(document.raw.replace(broken, b"\xff" + broken[1:])))

    found = dagster.evaluate((CHATS, MATCHES))[CHATS, MATCHES]

    assert len(rows(found)) > 2
    assert "\\udcff" in str(rows(found))
    json.dumps(rows(found), ensure_ascii=False).encode()
    failed = dagster.run("verify_read_models", "chat", max_findings=5)
    sentence(failed).encode()


def test_malformed_streams_fail_their_own_check_alone_wherever_is_looked(healthy: Mongo, dagster: Dagster) -> None:
    event = healthy.events.find_one_and_update({"version": 1}, {"$set": {"event_type": "chat.exploded"}})
    assert event is not None
    found = dagster.evaluate(*ALL)
    assert {key for key, item in found.items() if not item.passed} == {(CHATS, INTACT), (TASKS, INTACT)}
    (row,) = rows(found[CHATS, INTACT])
    assert (row["aggregate_id"], row["outcome"]) == (event["aggregate_id"], "malformed")
    assert "chat.exploded" in row["reason"]
    assert metadata(found[CHATS, INTACT])["reason/unknown_event_type"] == 1
    outside = 2 if Bucket(1, 2).holds(event["aggregate_id"]) else 1
    elsewhere = dagster.evaluate(*ALL, bucket=f"{outside}/2")
    assert {key for key, item in elsewhere.items() if not item.passed} == {(CHATS, INTACT), (TASKS, INTACT)}


def test_what_nobody_projected_is_late(healthy: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = healthy.chats_read_model.find_one() or {}
    last = healthy.events.find_one({"aggregate_id": chat["chat_id"]}, sort=[("version", -1)]) or {}
    at = datetime.now(UTC) - timedelta(minutes=5)
    new = {"version": last["version"] + 1, "event_type": "chat.renamed", "data": {"new_title": "New"}}
    healthy.events.insert_one(
        {name: last[name] for name in ("aggregate_id", "aggregate_type", "metadata")}
        | {**new, "_id": ObjectId.from_datetime(at), "occurred_at": at, "created_at": at}
    )
    late = dagster.evaluate((CHATS, FRESH))[CHATS, FRESH]
    assert (late.passed, late.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert metadata(late)["checked"] == 1
    assert [row["aggregate_id"] for row in rows(late)] == [chat["chat_id"]]
    monkeypatch.setenv("READMODEL_FRESH_MINUTES", "3")
    assert dagster.evaluate((CHATS, FRESH))[CHATS, FRESH].passed


def test_what_was_not_looked_at_is_not_said_to_be_well(healthy: Mongo, dagster: Dagster) -> None:
    chat = healthy.chats_read_model.find_one() or {}
    healthy.chats_read_model.update_one({"_id": chat["_id"]}, {"$set": {"title": "broken"}})
    only = (CHATS, MATCHES)
    assert "no other field was compared" in dagster.evaluate(only, tier="versions")[only].description
    outside = 2 if Bucket(1, 2).holds(chat["chat_id"]) else 1
    unaware = dagster.evaluate(only, bucket=f"{outside}/2")[only]
    assert unaware.passed
    assert "very compared document" in unaware.description
    assert not dagster.evaluate(only)[only].passed
    for config in ({"bucket": f"{outside}/2"}, {"bucket": f"{outside}/2", "read_only": True}, {"tier": "versions"}):
        aware = dagster.evaluate(only, **config)[only]
        assert (aware.passed, aware.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert "1 earlier findings" in aware.description
        assert metadata(aware)["open_elsewhere"] == 1


def test_findings_that_are_gone_are_counted_for_their_own_read_model(healthy: Mongo, dagster: Dagster) -> None:
    healthy.tasks_read_model.update_one({}, {"$set": {"title": "broken"}})
    dagster.evaluate(*ALL)
    ReadModelProjector(healthy, load_settings()).rebuild_all()
    found = dagster.evaluate(*ALL)
    assert metadata(found[TASKS, MATCHES])["closed"] == 1
    assert "closed" not in metadata(found[CHATS, MATCHES])


def test_a_finding_warns_until_it_is_old(healthy: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy.chats_read_model.update_one({}, {"$set": {"title": "broken"}})
    monkeypatch.setenv("READMODEL_ALARM_AFTER_SECONDS", "3600")
    assert dagster.evaluate((CHATS, MATCHES))[CHATS, MATCHES].severity is dg.AssetCheckSeverity.WARN
    hours_ago = datetime.now(UTC) - timedelta(hours=2)
    healthy.readmodel_findings.update_many({}, {"$set": {"first_seen": hours_ago}})
    old = dagster.evaluate((CHATS, MATCHES))[CHATS, MATCHES]
    assert old.severity is dg.AssetCheckSeverity.ERROR
    assert rows(old)[0]["age"] == "2 h"


def test_the_job_evaluates_the_checks_of_its_read_model(healthy: Mongo, dagster: Dagster) -> None:
    healthy.tasks_read_model.update_one({}, {"$set": {"title": "broken"}})
    for partition, asset, passed in (("chat", CHATS, True), ("task", TASKS, False)):
        result = dagster.run("verify_read_models", partition)
        assert result.success is passed
        said = {item.check_name: item for item in said_by(dagster, result)}
        assert {name: item.passed for name, item in said.items()} == {MATCHES: passed, INTACT: True, FRESH: True}
        assert {item.asset_key.to_user_string() for item in said.values()} == {asset}


def test_the_job_tells_what_it_found_before_it_looks_at_what_is_fresh(healthy: Mongo, dagster: Dagster) -> None:
    with listening(Moment.LOOK_AT_FRESH, each(raises(RuntimeError("the server went away")))):
        result = dagster.run("verify_read_models", "chat")
    assert not result.success
    assert {item.check_name for item in said_by(dagster, result)} == {MATCHES, INTACT}


def test_what_contradicts_itself_or_is_no_bucket_is_refused_in_words(healthy: Mongo, dagster: Dagster) -> None:
    both = dagster.run("verify_read_models", "chat", read_only=True, enqueue_repairs=True)
    assert "cannot queue repairs" in sentence(both)
    assert "3/7" in sentence(dagster.run("verify_read_models", "chat", bucket="8/7"))


def test_the_job_looks_at_a_part_and_queues_repairs_when_it_is_told_to(healthy: Mongo, dagster: Dagster) -> None:
    assert dagster.run("verify_read_models", "chat", tier="versions").success
    assert dagster.run("verify_read_models", "chat", sample=5).success
    assert dagster.run("verify_read_models", "chat").success
    healthy.chats_read_model.update_many({}, {"$set": {"title": "broken"}})
    assert dagster.run("verify_read_models", "chat", since_last=True).success
    result = dagster.run("verify_read_models", "chat", bucket="1/2", enqueue_repairs=True)
    said = dagster.observed(result)[CHATS]
    assert 0 < said["queued"] == said["different"] == healthy.repair_queue.count_documents({}) < 40
    assert len({row["aggregate_id"] for row in table(said)}) == said["different"]


def test_a_job_that_only_reads_leaves_nothing_in_mongodb(healthy: Mongo, dagster: Dagster) -> None:
    before = set(healthy.list_collection_names())
    healthy.chats_read_model.update_one({}, {"$set": {"title": "broken"}})
    dagster.run("verify_read_models", "chat", read_only=True, write_reports=False)
    assert healthy.readmodel_findings.count_documents({}) == 0
    assert set(healthy.list_collection_names()) == before


# Schedules


def ticks(name: str, at: str) -> list[dg.RunRequest]:
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime.fromisoformat(at), repository_def=defs.get_repository_def()
    )
    return list(defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or [])


def config_of(request: dg.RunRequest) -> dict[str, Any]:
    (op,) = request.run_config["ops"].values()
    return dict(op["config"])


def test_schedules_are_off_and_in_the_time_zone_of_the_settings() -> None:
    schedules: dict[str, Any] = {item.name: item for item in defs.schedules or ()}
    assert set(schedules) == {"nightly_verification", "weekly_verification", "off_peak_rebuild", "weekly_purge"}
    for item in schedules.values():
        assert item.default_status is dg.DefaultScheduleStatus.STOPPED
        assert item.execution_timezone == "UTC"
        assert re.search(r"\bUTC\b", str(item.description))


def test_the_nights_of_a_week_look_at_every_bucket_and_at_what_changed() -> None:
    nights = [ticks("nightly_verification", f"2026-11-{day:02d}T02:00:00+00:00") for day in range(1, 8)]
    assert all([request.partition_key for request in night] == ["chat", "task"] for night in nights)
    assert {config_of(night[0])["bucket"] for night in nights} == {f"{number}/7" for number in range(1, 8)}
    assert all(config_of(request)["since_last"] for night in nights for request in night)
    keys = [request.run_key for night in nights for request in night]
    assert len(set(keys)) == 14


@pytest.mark.parametrize(
    ("coverage", "since_last", "bucket"),
    [
        ("changed", True, False),
        ("bucket", False, True),
        ("changed_and_bucket", True, True),
        ("everything", False, False),
    ],
)
def test_what_the_nightly_verification_looks_at_and_queues_is_a_setting(
    monkeypatch: pytest.MonkeyPatch, coverage: str, since_last: bool, bucket: bool
) -> None:
    monkeypatch.setenv("READMODEL_NIGHTLY_COVERAGE", coverage)
    monkeypatch.setenv("READMODEL_NIGHTLY_ENQUEUE_REPAIRS", "true")
    for request in ticks("nightly_verification", "2026-11-01T02:00:00+00:00"):
        (op,) = request.run_config["ops"].values()
        said = op["config"]
        assert (said["since_last"], bool(said["bucket"]), said["enqueue_repairs"]) == (since_last, bucket, True)


def test_a_scheduled_run_is_one_that_works(healthy: Mongo, dagster: Dagster) -> None:
    for name in ("nightly_verification", "weekly_verification"):
        for request in ticks(name, "2026-11-01T03:00:00+00:00"):
            assert dagster.run("verify_read_models", request.partition_key, **config_of(request)).success


def test_the_off_peak_schedule_launches_both_partitions_when_the_window_begins(sample: Mongo, dagster: Dagster) -> None:
    assert defs.resolve_schedule_def("off_peak_rebuild").cron_schedule == "0 22 * * *"
    requests = ticks("off_peak_rebuild", "2026-11-01T22:00:00+00:00")
    assert [request.partition_key for request in requests] == ["chat", "task"]
    config = config_of(requests[0])
    assert (config["off_peak"], config["resume"]) == (True, True)
    assert dagster.run("rebuild_read_models", "chat", **{**config, "off_peak": False}).success


def test_the_schedules_go_by_the_time_zone_of_the_settings() -> None:
    code = (
        "from readmodel_pipelines.orchestration.schedules import nightly_verification as it;"
        "print(it.execution_timezone)"
    )
    environment = {**os.environ, "READMODEL_TIMEZONE": "Europe/Vienna"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "Europe/Vienna"
