"""What Dagster's pages put first, and what a person can do from them without a shell."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.mongo.names import VERIFICATIONS
from readmodel_pipelines.orchestration import SETTINGS_AT_LOAD, metadata
from readmodel_pipelines.orchestration.resources import MongoResource
from readmodel_pipelines.orchestration.verified import whether_verified
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, SAMPLE, TASKS, Dagster, sentence

NOW = datetime(2026, 11, 29, 12)  # noqa: DTZ001 - as dates come back from the server


@pytest.fixture
def damaged(sample: Mongo, dagster: Dagster) -> Mongo:
    assert dagster.materialize(CHATS, TASKS).success
    sample[CHATS].update_one({}, {"$set": {"title": "x" * 5_000}})
    return sample


def test_a_sentence_and_the_findings_come_first_and_no_value_is_wide(damaged: Mongo, dagster: Dagster) -> None:
    result = dagster.run("verify_read_models", "chat")
    (failed,) = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_FAILURE]
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    said = told.metadata
    assert list(said)[:2] == ["result", "findings"] or list(said)[:3] == ["result", "why", "findings"]
    (evaluated,) = [
        item.asset_check_evaluation_data
        for item in dagster.recorded(result, DagsterEventType.ASSET_CHECK_EVALUATION)
        if item.asset_check_evaluation_data.check_name == "matches_events"
    ]
    # Dagster shows those of a check in alphabetical order.
    tables = [name for name, item in sorted(evaluated.metadata.items()) if isinstance(item, dg.TableMetadataValue)]
    assert tables[0] == "findings"
    for row in evaluated.metadata["findings"].records:
        assert max(len(str(value)) for value in row.data.values()) <= 120


def test_an_asset_s_page_has_no_finding_that_is_mended_and_leads_to_the_newest_verification(
    damaged: Mongo, dagster: Dagster
) -> None:
    made = dagster.materialized(dagster.materialize(CHATS))[CHATS]
    assert "findings" not in made
    assert made["written"] == 1
    assert made["newest_verification"].startswith(f"/assets/{CHATS}?")


def test_a_report_is_a_link_where_somebody_serves_it(
    damaged: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = SETTINGS_AT_LOAD.model_copy(update={"reports_url": "http://reports:9465/"})
    seen = dagster.observed(dagster.run("verify_read_models", "chat"))[CHATS]
    assert "readmodel reports" in seen["open_report"]
    monkeypatch.setattr(metadata, "SETTINGS_AT_LOAD", served)
    seen = dagster.observed(dagster.run("verify_read_models", "chat"))[CHATS]
    assert seen["report.html"].startswith("http://reports:9465/verification-")
    assert "open_report" not in seen


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (dg.DagsterExecutionInterruptedError(), "This run was terminated."),
        (ZeroDivisionError("oh"), "ZeroDivisionError"),
    ],
)
def test_a_run_that_is_terminated_or_fails_unforeseen_says_what_to_do_before_the_stack_trace(
    sample: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str
) -> None:
    def ends(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("readmodel_pipelines.orchestration.resources.verify", ends)
    run_id = ""
    try:
        run_id = dagster.run("verify_read_models", "chat").run_id
    except dg.DagsterExecutionInterruptedError:
        run_id = dagster.instance.get_runs(limit=1)[0].run_id
    entries = list(dagster.instance.all_logs(run_id))
    told = next(place for place, entry in enumerate(entries) if said in (entry.user_message or ""))
    failures = [
        place
        for place, entry in enumerate(entries)
        if entry.dagster_event_type in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE)
    ]
    assert "Launch it again" in entries[told].user_message
    assert all(told < place for place in failures)


def test_no_line_of_a_run_s_log_is_told_twice(damaged: Mongo, dagster: Dagster) -> None:
    # Whoever looks warns of it.
    damaged[CHATS].create_index("created_at", expireAfterSeconds=10**9)
    for job in ("verify_read_models", "rebuild_read_models"):
        result = dagster.run(job, "chat")
        entries = dagster.instance.all_logs(result.run_id)
        lines = [entry.user_message for entry in entries if not entry.is_dagster_event]
        assert any("expire" in line for line in lines)
        assert sorted(lines) == sorted(set(lines))


# Dead letters


def test_dead_letters_are_brought_back_from_the_launchpad_and_nothing_by_what_it_begins_with(
    sample: Mongo, settings: Settings, dagster: Dagster
) -> None:
    queue = RepairQueue(sample, settings)
    for number, reason in enumerate(("bad_aggregate_id", "aggregate_not_found", "aggregate_not_found")):
        queue.add(SAMPLE[number * 60]["aggregate_id"], "chat", "connection reset")
        sample.repair_queue.update_many({"status": "pending"}, {"$set": {"status": "failed", "reason": reason}})
    assert "nothing was done" in sentence(dagster.run("requeue_dead_letters"))
    assert queue.stats().failed == 3

    result = dagster.run("requeue_dead_letters", reason="aggregate_not_found")
    assert result.success
    assert (queue.stats().failed, queue.stats().pending) == (1, 2)
    (told,) = dagster.recorded(result, DagsterEventType.ASSET_CHECK_EVALUATION)
    (row,) = told.asset_check_evaluation_data.metadata["table_of_dead_letters"].records
    assert row.data["error"] == "connection reset"

    (left,) = sample.repair_queue.find({"status": "failed"})
    assert dagster.run("requeue_dead_letters", task_ids=[str(left["_id"])]).success
    assert queue.stats().failed == 0


# Whether somebody still verifies


@pytest.mark.parametrize(
    ("last", "within", "passed"),
    [
        (NOW - timedelta(hours=35), 36.0, True),
        (NOW - timedelta(hours=37), 36.0, False),
        (None, 36.0, False),
        (None, 0.0, True),
        # By a clock that stood ahead.
        (NOW + timedelta(hours=1), 36.0, True),
    ],
)
def test_a_read_model_that_nobody_verified_for_too_long_is_a_warning(
    last: datetime | None, within: float, passed: bool
) -> None:
    said = whether_verified(CHATS, last, NOW, Settings(verified_within_hours=within))
    assert (said["passed"], said["severity"]) == (passed, dg.AssetCheckSeverity.WARN)


def test_the_sensor_evaluates_it_when_the_answer_changes_and_not_otherwise(
    sample: Mongo, settings: Settings, dagster: Dagster
) -> None:
    sensor = defs.resolve_sensor_def("watch_verifications")
    cursor: str | None = None

    def tick() -> dict[str, bool]:
        nonlocal cursor
        resources = {"mongo": MongoResource()}
        with dg.build_sensor_context(instance=dagster.instance, cursor=cursor, resources=resources) as context:
            ticked = sensor.evaluate_tick(context)
        cursor = ticked.cursor
        told: list[Any] = list(ticked.asset_events)
        return {item.asset_key.to_user_string(): item.passed for item in told}

    assert tick() == {CHATS: False, TASKS: False}
    assert tick() == {}
    assert ReadModelProjector(sample, settings).rebuild_all().ok
    assert dagster.run("verify_read_models", "chat").success
    assert tick() == {CHATS: True}
    assert tick() == {}
    hours = 37 * 60 * 60 * 1_000
    sample[VERIFICATIONS].update_many({}, [{"$set": {"started_at": {"$subtract": ["$started_at", hours]}}}])
    assert tick() == {CHATS: False}


# Dagster's own history


def others_run(dagster: Dagster, job: str) -> str:
    """The id of a run of another code location that shares this Dagster."""
    code = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(executable_path="python"), "others")
    origin = RemoteRepositoryOrigin(code, "__repository__").get_job_origin(job)
    run = dg.DagsterRun(job, status=dg.DagsterRunStatus.SUCCESS, remote_job_origin=origin)
    return dagster.instance.add_run(run).run_id


def test_old_runs_are_forgotten_but_for_those_that_pages_show(
    sample: Mongo, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = dagster.materialize(CHATS)
    # More than are read at once.
    monkeypatch.setattr("readmodel_pipelines.orchestration.own_history._PAGE", 2)
    refused = [dagster.run("rebuild_aggregate", aggregate_id="no id") for _ in range(5)]
    others = [others_run(dagster, job) for job in ("rebuild_aggregate", "__ASSET_JOB")]
    ahead = datetime.now(UTC) + timedelta(days=91)
    monkeypatch.setattr("readmodel_pipelines.orchestration.own_history._now", lambda: ahead)
    known: Callable[[], set[str]] = lambda: {run.run_id for run in dagster.instance.get_runs()}  # noqa: E731
    assert dagster.run("purge_dagster_history").success
    assert {run.run_id for run in refused} <= known(), "by default it deletes nothing"
    assert dagster.run("purge_dagster_history", dry_run=False).success
    assert not {run.run_id for run in refused} & known()
    assert {shown.run_id, *others} <= known()
