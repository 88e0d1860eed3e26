"""The Dagster side of repairs in this process: the job, the sensors, the asset and its check."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from bson import encode
from dagster import DagsterRunStatus
from dagster._core.execution.build_resources import wrap_resources_for_execution
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.presence import is_attended, present
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.definitions import defs
from readmodel_pipelines.mongo.names import LEASES
from readmodel_pipelines.orchestration import sensors
from readmodel_pipelines.orchestration.assets import REPAIR_QUEUE as ASSET
from readmodel_pipelines.orchestration.resources import MongoResource, owner_of
from readmodel_pipelines.projector import ReadModelProjector
from readmodel_pipelines.repair.claim import Holder, claim
from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.scene import Mongo, make_right
from readmodel_pipelines_tests.support.verbs.dagster_runs import CHATS, TASKS, Dagster
from readmodel_pipelines_tests.support.waiting import wait_until

JOB = "repair_read_models"


@pytest.fixture
def queue(sample: Mongo, settings: Settings) -> RepairQueue:
    """The queue beside read models that are right."""
    make_right(sample, settings)
    return RepairQueue(sample, settings)


@pytest.fixture
def broken(sample: Mongo, queue: RepairQueue) -> list[str]:
    """Chats whose documents are wrong, each with a task."""
    ids = [document["chat_id"] for document in sample[CHATS].find().sort("chat_id").limit(5)]
    for chat_id in ids:
        sample[CHATS].update_one({"chat_id": chat_id}, {"$set": {"title": "wrong"}})
        assert queue.add(chat_id, "chat", "failed to operate on chats_read_model")
    return ids


@pytest.fixture
def tick(dagster: Dagster, caplog: pytest.LogCaptureFixture) -> Callable[..., Any]:
    def evaluate(cursor: str | None = None, at: RemoteRepositoryOrigin | None = None) -> Any:
        context = dg.SensorEvaluationContext(
            None,
            instance=dagster.instance,
            cursor=cursor,
            resources=wrap_resources_for_execution({"mongo": MongoResource()}),
            repository_name=at.repository_name if at else None,
            code_location_origin=at.code_location_origin if at else None,
        )
        with context:
            context.log.addHandler(caplog.handler)
            return sensors.repair_queue_sensor(context)

    return evaluate


def healthy(database: Mongo, settings: Settings) -> bool:
    return ReadModelProjector(database, settings).verify_all().ok


def contents(database: Mongo) -> dict[str, list[bytes]]:
    return {name: [encode(item) for item in database[name].find()] for name in sorted(database.list_collection_names())}


def test_the_job_repairs_what_is_due_and_records_it_on_the_assets(
    sample: Mongo, settings: Settings, queue: RepairQueue, broken: list[str], dagster: Dagster
) -> None:
    result = dagster.run(JOB)

    assert result.success
    assert healthy(sample, settings)
    seen = dagster.observed(result)
    assert (seen[ASSET]["repair/repaired"], seen[ASSET]["pending"], seen[ASSET]["dead_letters"]) == (5, 0, 0)
    assert seen[CHATS]["repair/replaced"] == 5
    assert TASKS not in seen, "nothing was written there"
    assert {row.data["aggregate_id"] for row in seen[ASSET]["taken"].records} == set(broken)
    tasks = list(queue.tasks())
    assert {task["claimed_by"] for task in tasks} == {result.run_id}
    assert {task["status"] for task in tasks} == {"completed"}
    assert re.search(r"5 tasks taken in [\d.]+ s: 5 completed", dagster.log_of(result))


def test_tasks_that_are_named_are_repaired_although_they_are_not_due(
    sample: Mongo, settings: Settings, queue: RepairQueue, broken: list[str], dagster: Dagster
) -> None:
    tasks = list(queue.tasks())
    sample.repair_queue.update_many({}, [{"$set": {"next_attempt_at": {"$add": ["$$NOW", 3_600_000]}}}])
    assert "repair/repaired" not in dagster.observed(dagster.run(JOB))[ASSET]

    result = dagster.run(JOB, task_ids=[str(tasks[0]["_id"]), str(tasks[1]["_id"])])
    assert dagster.observed(result)[ASSET]["repair/repaired"] == 2
    assert queue.stats().pending == 3
    again = dagster.run(JOB, task_ids=[str(tasks[0]["_id"])])
    assert again.success
    assert "named tasks are not open" in dagster.log_of(again)


def test_the_sensor_asks_for_one_run_without_a_key_and_only_reads(sample: Mongo, broken: list[str], tick: Any) -> None:
    before = contents(sample)
    for result in (tick(), tick()):
        (request,) = result.run_requests
        assert (request.run_key, result.skip_reason) == (None, None)
    assert contents(sample) == before


def test_no_run_is_requested_while_a_worker_keeps_up(sample: Mongo, broken: list[str], tick: Any) -> None:
    with present(sample, "repair_queue"):
        wait_until(lambda: is_attended(sample, "repair_queue"))
        result = tick()
        assert not result.run_requests
        assert result.skip_reason.skip_message.startswith(
            "5 tasks are due, and `readmodel repair-queue work` works on them"
        )
        sample.repair_queue.update_one({}, [{"$set": {"created_at": {"$subtract": ["$$NOW", 120_000]}}}])
        assert len(tick().run_requests) == 1, "it does not keep up"
    assert len(tick().run_requests) == 1


@pytest.mark.parametrize("status", ["QUEUED", "STARTING", "STARTED", "CANCELING", "NOT_STARTED"])
def test_no_run_is_requested_while_one_is_queued_or_going(
    broken: list[str], tick: Any, dagster: Dagster, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run that is queued needs an origin that only a daemon's has.
    made = "STARTED" if status == "QUEUED" else status
    going = dagster.instance.create_run_for_job(defs.resolve_job_def(JOB), status=DagsterRunStatus[made])
    result = tick()
    assert not result.run_requests
    assert result.skip_reason.skip_message.startswith(
        f"5 tasks are due, and run {going.run_id} works on them: 5 pending"
    )
    assert DagsterRunStatus[status] in sensors._GOING

    if status == "NOT_STARTED":
        # Its launcher died before it was launched; nothing will ever start it.
        monkeypatch.setattr(sensors, "_UNLAUNCHED_SECONDS", 0.0)
        assert len(tick().run_requests) == 1


@pytest.mark.parametrize("status", ["STARTED", "CANCELING"])
def test_the_leases_of_a_run_decide_whether_it_is_waited_for_and_not_its_state(
    sample: Mongo, broken: list[str], tick: Any, dagster: Dagster, status: str
) -> None:
    run = dagster.instance.create_run_for_job(defs.resolve_job_def(JOB), status=DagsterRunStatus[status])
    held = Leases(sample, 60, owner=owner_of(run.run_id))
    held.acquire(["repair:chat:one", "repair:chat:two"])
    assert f"run {run.run_id} " in tick().skip_reason.skip_message

    sample[LEASES].update_one({"_id": "repair:chat:one"}, [{"$set": {"expires_at": "$$NOW"}}])
    assert not tick().run_requests
    held.abandon()
    assert len(tick().run_requests) == 1, "its machine restarted"


def test_a_run_that_died_before_it_took_a_task_is_not_waited_for(
    broken: list[str], tick: Any, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.instance.create_run_for_job(defs.resolve_job_def(JOB), status=DagsterRunStatus.STARTED)
    assert not tick().run_requests
    monkeypatch.setenv("READMODEL_REPAIR_LEASE_SECONDS", "1")
    wait_until(lambda: tick().run_requests)


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_ended_runs_and_other_jobs_hinder_none(broken: list[str], tick: Any, dagster: Dagster, status: str) -> None:
    dagster.instance.create_run_for_job(defs.resolve_job_def(JOB), status=DagsterRunStatus[status])
    other = {"ops": {"rebuild_one_aggregate": {"config": {"aggregate_type": "chat", "aggregate_id": broken[0]}}}}
    job = defs.resolve_job_def("rebuild_aggregate")
    dagster.instance.create_run_for_job(job, run_config=other, status=DagsterRunStatus.STARTED)
    assert len(tick().run_requests) == 1


def test_the_sensor_tells_how_deep_a_queue_is(sample: Mongo, queue: RepairQueue, broken: list[str], tick: Any) -> None:
    sample.repair_queue.update_many({}, [{"$set": {"next_attempt_at": {"$add": ["$$NOW", 3_600_000]}}}])
    message = tick().skip_reason.skip_message
    assert message == "Nothing is due: 5 pending, 0 in work, 0 completed, 0 dead letters."


def test_the_sensor_records_the_queue_when_it_changed_and_not_with_every_tick(
    sample: Mongo, settings: Settings, queue: RepairQueue, broken: list[str], tick: Any, dagster: Dagster
) -> None:
    first = tick()
    observation, check = first.asset_events
    assert isinstance(observation, dg.AssetObservation)
    assert observation.metadata["pending"].value == observation.metadata["due"].value == 5
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert check.passed

    same = tick(first.cursor)
    assert same.asset_events == []

    dagster.run(JOB)
    changed = tick(same.cursor)
    (observation,) = changed.asset_events
    assert observation.metadata["completed"].value == 5

    queue.add(str(uuid4()), "chat")
    dagster.run(JOB)
    observation, check = tick(changed.cursor).asset_events
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_an_unchanged_queue_is_recorded_now_and_then_for_the_plots(broken: list[str], tick: Any) -> None:
    first = tick()
    long_ago = json.dumps({**json.loads(first.cursor), "recorded_at": 0.0})
    assert [type(event).__name__ for event in tick(long_ago).asset_events] == ["AssetObservation"]


def test_after_a_cursor_that_somebody_set_the_tick_begins_afresh_and_says_so(
    broken: list[str], tick: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = [type(event) for event in tick().asset_events]
    for cursor in (
        *("0", "null", "abc", "[]", '"x"', '"\\ud83d"', "2026-11-29", "[" * 100_000, "9" * 10_000, "{}", " "),
        *('{"recorded_at": "now"}', '{"recorded_at": NaN}', '{"recorded_at": 1e300}', '{"recorded_at": -1}'),
    ):
        afresh = tick(cursor)
        assert [type(event) for event in afresh.asset_events] == first, cursor[:20]
        assert "cursor" in caplog.text, cursor[:20]
        caplog.clear()
        assert tick(afresh.cursor).asset_events == [], cursor[:20]
        assert caplog.text == "", cursor[:20]


def test_a_run_of_another_code_location_is_about_another_database_and_not_waited_for(
    broken: list[str], tick: Any, dagster: Dagster
) -> None:
    ours, others = (
        RemoteRepositoryOrigin(
            ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(executable_path="python"), name),
            "__repository__",
        )
        for name in ("ours", "others")
    )

    def going(origin: RemoteRepositoryOrigin) -> str:
        job = defs.resolve_job_def(JOB)
        made = dagster.instance.create_run_for_job(
            job, status=DagsterRunStatus.STARTED, remote_job_origin=origin.get_job_origin(JOB)
        )
        return made.run_id

    going(others)
    assert len(tick(at=ours).run_requests) == 1
    run_id = going(ours)
    assert run_id in tick(at=ours).skip_reason.skip_message


def test_without_a_server_the_tick_fails_in_words_and_the_next_one_works(
    broken: list[str], tick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("READMODEL_MONGODB_URI", "mongodb://user:geheim@127.0.0.1:1/?serverSelectionTimeoutMS=200")
        with pytest.raises(dg.Failure) as failed:
            tick()
        assert "does not answer" in str(failed.value.description)
        assert "geheim" not in str(failed.value.description)
        patch.setenv("READMODEL_REPAIR_ATTEMPTS", "none")
        with pytest.raises(dg.Failure) as failed:
            tick()
        assert "READMODEL_REPAIR_ATTEMPTS" in str(failed.value.description)
    assert len(tick().run_requests) == 1


def test_the_sensor_starts_no_embedded_server(tick: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("READMODEL_MONGODB_URI")
    monkeypatch.setenv("READMODEL_DATA_DIR", str(tmp_path / "data"))
    assert "does not run" in tick().skip_reason.skip_message
    assert not (tmp_path / "data").exists()


def drains(dagster: Dagster) -> Any:
    return dagster.evaluate((ASSET, "drains"))[ASSET, "drains"]


def test_the_check_passes_while_the_queue_drains_and_warns_when_it_is_long(
    broken: list[str], dagster: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drains(dagster).passed
    assert drains(dagster).metadata["pending"].value == 5

    monkeypatch.setenv("READMODEL_REPAIR_QUEUE_WARNING", "4")
    warned = drains(dagster)
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "5 repairs are open" in str(warned.description)


def test_poison_is_parked_the_others_are_repaired_and_the_check_lists_the_dead_letters_with_their_reasons(
    sample: Mongo, settings: Settings, queue: RepairQueue, broken: list[str], dagster: Dagster
) -> None:
    nobody = str(uuid4())
    queue.add(nobody, "chat")
    sample.repair_queue.insert_one({"_id": "by hand", "aggregate_id": 7, "task_type": "mail", "status": "pending"})
    result = dagster.run(JOB)
    assert result.success
    assert healthy(sample, settings)
    parked = dagster.observed(result)[ASSET]["dead_letters_now"].records
    assert {row.data["reason"] for row in parked} == {"aggregate_not_found", "unknown_task_type"}
    assert "2 tasks became dead letters" in dagster.log_of(result)

    failed = drains(dagster)
    assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "1 aggregate_not_found, 1 unknown_task_type" in str(failed.description)
    assert "requeue" in str(failed.description)
    rows = {row.data["reason"]: row.data for row in failed.metadata["table_of_dead_letters"].value.records}
    assert rows["aggregate_not_found"]["aggregate_id"] == nobody
    assert rows["aggregate_not_found"]["attempts"] == 1
    assert rows["aggregate_not_found"]["error"] == "", "what the application said of it"
    assert rows["unknown_task_type"]["task"] == "by hand"


@pytest.mark.parametrize("name", ["free_leases_of_failed_repairs", "free_leases_of_canceled_repairs"])
def test_a_dead_run_s_leases_and_tasks_are_free_at_once_and_nobody_else_s(
    sample: Mongo, settings: Settings, queue: RepairQueue, broken: list[str], dagster: Dagster, name: str
) -> None:
    ended = dagster.instance.create_run_for_job(defs.resolve_job_def(JOB), status=DagsterRunStatus.FAILURE)
    # As a process leaves them that is killed: the blocks never end.
    dead = claim(sample, queue, "chat", broken[:2], Holder(ended.run_id, f"Dagster run {ended.run_id}", 300))
    alive = claim(sample, queue, "chat", broken[2:], Holder("another", "Dagster run another", 300))
    dead.__enter__()
    alive.__enter__()
    assert queue.stats().due == 0

    (sensor,) = (item for item in sensors.FREE_LEASES if item.name == name)
    event = dg.DagsterEvent("PIPELINE_FAILURE", JOB)
    context = dg.build_run_status_sensor_context(
        sensor_name=name,
        dagster_instance=dagster.instance,
        dagster_run=ended,
        dagster_event=event,
        resources={"mongo": MongoResource()},
    )
    sensor(context.for_run_failure() if "failed" in name else context)
    assert queue.stats().due == 2
    held = [item["_id"].rpartition(":")[2] for item in sample[LEASES].find({"owner": "Dagster run another"})]
    assert sorted(held) == broken[2:]

    assert dagster.run(JOB).success
    assert queue.stats().completed == 2
    assert not healthy(sample, settings), "those of the run that lives are its own"
    dead.__exit__(None, None, None)
    alive.__exit__(None, None, None)
