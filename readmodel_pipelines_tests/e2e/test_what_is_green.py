"""What the catalog shows after a run: success alone materializes a read model, and its checks say what is known."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from dagster import DagsterEventType, ExecuteInProcessResult

from readmodel_pipelines.definitions import defs
from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.orchestration.verified import VERIFIED
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo, make_right
from readmodel_pipelines_tests.support.verbs.dagster_runs import (
    CHATS,
    SAMPLE,
    TASKS,
    Dagster,
    sentence,
    table,
    with_events,
)

MATCHES, INTACT, FRESH = "matches_events", "streams_intact", "is_fresh"

Ways = Callable[[Dagster], list[ExecuteInProcessResult]]


def _slices(dagster: Dagster) -> list[ExecuteInProcessResult]:
    partitions = defs.resolve_job_def("rebuild_slices").partitions_def
    assert partitions is not None
    keys = [key for key in partitions.get_partition_keys() if key.startswith("chat_")]
    return [dagster.run("rebuild_slices", key, tags={"dagster/backfill": "night one"}) for key in keys]


WAYS: dict[str, Ways] = {
    "the asset": lambda dagster: [dagster.materialize(CHATS)],
    "the asset in a shadow": lambda dagster: [dagster.materialize(CHATS, strategy="shadow")],
    "the job": lambda dagster: [dagster.run("rebuild_read_models", "chat")],
    "the job in a shadow": lambda dagster: [dagster.run("rebuild_read_models", "chat", strategy="shadow")],
    "slices": _slices,
}
WHOLE = [name for name in WAYS if name != "slices"]
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
whole = pytest.mark.parametrize("way", [WAYS[name] for name in WHOLE], ids=WHOLE)


def checks(dagster: Dagster, *results: ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    """What the checks said last, by asset and name; but for when somebody verified last."""
    said = [item for result in results for item in dagster.recorded(result, DagsterEventType.ASSET_CHECK_EVALUATION)]
    told = [event.asset_check_evaluation_data for event in said]
    said_of = {(item.asset_key.to_user_string(), item.check_name): item.passed for item in told}
    return {key: passed for key, passed in said_of.items() if key[1] != VERIFIED}


def all_of(*read_models: str, **said: bool) -> dict[tuple[str, str], bool]:
    return {(name, check): said[check] for name in read_models for check in (MATCHES, INTACT, FRESH)}


@whole
def test_a_run_that_succeeds_materializes_and_every_check_passes(sample: Mongo, dagster: Dagster, way: Ways) -> None:
    results = way(dagster)
    assert all(result.success for result in results)
    assert [set(dagster.materialized(item)) for item in results if dagster.materialized(item)] == [{CHATS}]
    assert checks(dagster, *results) == all_of(CHATS, matches_events=True, streams_intact=True, is_fresh=True)


@every_way
def test_a_run_that_fails_materializes_nothing_tells_what_it_did_and_which_check_is_red(
    sample: Mongo, dagster: Dagster, way: Ways
) -> None:
    broken = next(event for event in SAMPLE if event["version"] == 3)["aggregate_id"]
    sample.events.delete_one({"aggregate_id": broken, "version": 2})
    results = way(dagster)
    assert not results[-1].success
    assert [dagster.materialized(item) for item in results if dagster.materialized(item)] == []
    done = dagster.observed(results[-1])[CHATS]
    assert (done["inserted"], done["malformed"]) == (39, 1)
    assert checks(dagster, *results) == all_of(CHATS, matches_events=True, streams_intact=False, is_fresh=True)


@whole
def test_a_refusal_is_red_and_shows_what_it_refused(sample: Mongo, dagster: Dagster, way: Ways) -> None:
    sample[CHATS].insert_many([{"chat_id": str(uuid4())} for _ in range(9)])
    (result,) = way(dagster)
    assert not result.success
    assert not dagster.materialized(result)
    assert set(dagster.observed(result)) == {CHATS}
    assert checks(dagster, result)[CHATS, MATCHES] is False


def test_of_several_read_models_none_is_green_when_the_run_failed(
    database: Mongo, legacy_settings: Settings, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    with_events(database, legacy_settings, [*chat_events(5), *task_events(7)])
    database.events.update_one({"aggregate_type": "Task", "version": 1}, {"$set": {"version": 7_000}})

    both = dagster.materialize(CHATS, TASKS)
    assert not both.success
    assert not dagster.materialized(both)
    assert set(dagster.observed(both)) == {CHATS, TASKS}
    told = checks(dagster, both)
    assert {key for key, passed in told.items() if not passed} == {(TASKS, INTACT)}
    assert len(told) == 6
    # As a backfill launches them: a partition that fails takes no other with it.
    chats, tasks = (dagster.run("rebuild_read_models", partition) for partition in ("chat", "task"))
    assert (chats.success, tasks.success) == (True, False)
    assert (set(dagster.materialized(chats)), set(dagster.materialized(tasks))) == ({CHATS}, set())


def test_a_rebuild_that_is_paused_is_not_there_yet_and_says_nothing_of_the_checks(
    sample: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    later = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    monkeypatch.setenv("READMODEL_OFF_PEAK_WINDOW", later)
    for result in (
        dagster.run("rebuild_read_models", "chat", off_peak=True),
        dagster.materialize(TASKS, off_peak=True),
    ):
        assert result.success
        assert not dagster.materialized(result)
        assert [item["state"] for item in dagster.observed(result).values()] == ["paused"]
        assert checks(dagster, result) == {}


# Without a single event nobody can tell what is right


RUNS: dict[str, Callable[[Dagster], ExecuteInProcessResult]] = {
    "a verification": lambda dagster: dagster.run("verify_read_models", "chat"),
    "a part of one": lambda dagster: dagster.run("verify_read_models", "chat", bucket="1/7", since_last=True),
    "a rebuild": lambda dagster: dagster.run("rebuild_read_models", "chat"),
    "one in a shadow": lambda dagster: dagster.run("rebuild_read_models", "chat", strategy="shadow"),
    "a slice": lambda dagster: dagster.run("rebuild_slices", "chat_03_of_16"),
    "the asset": lambda dagster: dagster.materialize(CHATS),
}


def test_without_events_a_run_fails_changes_nothing_and_every_check_is_red(
    sample: Mongo, settings: Settings, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_right(sample, settings)
    before = list(sample[CHATS].find(sort=[("_id", 1)]))
    monkeypatch.setenv("READMODEL_EVENTS_COLLECTION", "evnets")
    for name, run in RUNS.items():
        result = run(dagster)
        assert "READMODEL_EVENTS_COLLECTION is evnets" in sentence(result), name
        assert (dagster.materialized(result), dagster.observed(result)) == ({}, {}), name
        red = all_of(CHATS, matches_events=False, streams_intact=False, is_fresh=False)
        assert checks(dagster, result) == red, name
        assert list(sample[CHATS].find(sort=[("_id", 1)])) == before, name


def test_the_checks_themselves_do_not_pass_without_events_and_those_of_others_go_on(
    database: Mongo, legacy_settings: Settings, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [(name, check) for name in (CHATS, TASKS) for check in (MATCHES, INTACT, FRESH)]
    nothing = dagster.evaluate(*keys)
    assert {key: item.passed for key, item in nothing.items()} == dict.fromkeys(keys, False)
    assert "READMODEL_DATABASE is" in nothing[CHATS, FRESH].description

    with_events(database, legacy_settings, list(chat_events(5)))
    assert dagster.materialize(CHATS, TASKS).success
    monkeypatch.setenv("READMODEL_TASK_SOURCE", "task")
    found = dagster.evaluate(*keys)
    assert {key: item.passed for key, item in found.items()} == {
        **all_of(CHATS, matches_events=True, streams_intact=True, is_fresh=True),
        **all_of(TASKS, matches_events=False, streams_intact=False, is_fresh=False),
    }


def test_who_means_it_says_so_in_the_config(sample: Mongo, dagster: Dagster) -> None:
    assert dagster.run("rebuild_read_models", "chat").success
    sample.events.drop()
    meant: dict[str, Any] = {"allow_no_events": True}
    looked = dagster.run("verify_read_models", "chat", **meant)
    assert dagster.observed(looked)[CHATS]["orphan"] == 40
    refused = dagster.observed(dagster.run("rebuild_read_models", "chat", **meant, max_findings=2))[CHATS]
    assert (refused["failed"], len(table(refused))) == (40, 2)
    assert dagster.run("rebuild_read_models", "chat", **meant, allow_deletions=True).success
    assert sample[CHATS].count_documents({}) == 0
