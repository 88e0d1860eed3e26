"""Nothing that an added read model's file does stops the built-in ones, nor another one that was added."""

from itertools import count, repeat
from pathlib import Path
from typing import Any

import pytest

from readmodel_pipelines import RepairWorker
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild_state import RebuildState, Strategy
from readmodel_pipelines.reconcile.ranges import EVERYTHING
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.reports.writer import SUFFIXES
from readmodel_pipelines_tests.support import faulty_read_models as faulty
from readmodel_pipelines_tests.support import shadowless_read_models as shadowless
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, dying, once, raises
from readmodel_pipelines_tests.support.scene import BOTH, Scene, uuid
from readmodel_pipelines_tests.support.verbs.command_line import Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import full, leftovers, records
from readmodel_pipelines_tests.support.verbs.repairing import stored

STREAMS = 4


@pytest.fixture
def damaged(scene: Scene) -> list[str]:
    """Chats whose built-in read models are damaged, and read models at fault besides; gives their ids."""
    ids = scene.fill(STREAMS)
    for collection in (scene.chats, scene.tasks):
        collection.update_many({}, {"$set": {"title": "damaged"}})
    scene.settings = scene.settings.model_copy(update={"projections": (faulty.__name__,)})
    return ids


def assert_each_stream_told(summary: Summary) -> None:
    for read_model, reason in faulty.WRONG.items():
        told = [(item.outcome, str(item.reason)) for item in summary.findings if item.read_model == read_model]
        assert (read_model, told) == (read_model, [("malformed", reason)] * STREAMS)
    for finding in summary.findings:
        assert finding.detail.isprintable()


def written(summary: Summary, read_model: str) -> tuple[int, int, int]:
    counts = summary.read_models[read_model]
    return counts.inserted, counts.replaced, counts.failed


def test_every_fault_is_told_by_stream_and_the_others_are_done(
    scene: Scene, damaged: list[str], strategy: Strategy
) -> None:
    right = [{**item, "title": None} for item in scene.chats.find({}, {"_id": 0})]
    found, predicted, done = scene.verify(), scene.rebuild(dry_run=True), full(scene, strategy=strategy)

    for summary in (found, predicted, done):
        assert_each_stream_told(summary)
    assert (records(scene)[-1]["state"], leftovers(scene)) == ("done", [])
    for read_model in BOTH:
        assert written(done, read_model) == written(predicted, read_model)
        assert written(done, read_model)[1:] == (scene.database[read_model].count_documents({}), 0)
    assert [{**item, "title": None} for item in scene.chats.find({}, {"_id": 0})] == right
    assert not scene.chats.find_one({"title": "damaged"})
    for read_model in faulty.UNIQUE:
        assert written(done, read_model) == (STREAMS, 0, 0)
    for read_model in faulty.CLASHING:
        if strategy == "shadow":
            assert (read_model, written(done, read_model)) == (read_model, (0, 0, STREAMS))
            assert any(warning.startswith(f"{read_model} was left out") for warning in done.warnings)
        else:
            assert (read_model, written(done, read_model)) == (read_model, (1, 0, STREAMS - 1))
            reasons = {item.reason for item in done.findings if item.read_model == read_model and item.failed}
            assert reasons == {"key_conflict"}
        assert scene.database[read_model].count_documents({}) == written(done, read_model)[0]


@pytest.mark.parametrize("killed_at", [None, Moment.GATE, Moment.SWAP])
def test_a_shadow_that_cannot_be_had_is_left_out_and_the_others_go_on(
    scene: Scene, damaged: list[str], at: At, killed_at: Moment | None
) -> None:
    scene.settings = scene.settings.model_copy(update={"projections": (shadowless.__name__,)})
    names = [item.read_model for item in shadowless.READ_MODELS]
    before: dict[str, Any] = {name: [] for name in names}
    before["unwanted_read_model"] = [{"_id": number, "key": uuid(number), "value": number} for number in range(200)]
    scene.database.unwanted_read_model.insert_many(before["unwanted_read_model"])
    if killed_at is not None:
        at(killed_at, once(raises(Killed())))
        with dying():
            full(scene, strategy="shadow")

    done = full(scene, strategy="shadow", resume=True)

    assert (done.ok, [item["state"] for item in records(scene)], leftovers(scene)) == (False, ["done"], [])
    for name in names:
        assert any(warning.startswith(f"{name} was left out") for warning in done.warnings)
        assert (name, done.read_models[name].failed > 0, done.read_models[name].written) == (name, True, 0)
        assert list(scene.database[name].find()) == before[name]
    for name in BOTH:
        assert written(done, name) == (0, scene.database[name].count_documents({}), 0)
    scene.settings = scene.settings.model_copy(update={"projections": ()})
    assert scene.verify().ok


def test_a_shadow_that_is_left_out_is_no_success_though_nothing_was_to_be_written(
    scene: Scene, at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadowless, "_calls", repeat(1))
    scene.fill(1)
    scene.settings = scene.settings.model_copy(update={"projections": (shadowless.__name__,)})
    at(Moment.GATE, lambda **_: monkeypatch.setattr(shadowless, "_calls", count(2)))

    done = full(scene, strategy="shadow")

    assert (done.ok, done.read_models["unsteady_read_model"].written) == (False, 0)


def test_repairs_mend_the_others_and_are_parked_with_the_reason(scene: Scene, damaged: list[str]) -> None:
    queue = RepairQueue(scene.database, scene.settings)
    for chat_id in damaged:
        assert queue.add(chat_id, "chat", faulty.HALF)

    summary = RepairWorker(scene.database, scene.settings).work()

    assert (summary.claimed, summary.parked, summary.lost) == (STREAMS, STREAMS, 0)
    assert {(item["status"], item["reason"]) for item in stored(scene)} <= {
        ("failed", reason) for reason in faulty.WRONG.values()
    }
    assert not scene.chats.find_one({"title": "damaged"})
    scene.settings = scene.settings.model_copy(update={"projections": ()})
    assert scene.verify().ok


def test_a_rebuild_s_record_takes_whatever_text(scene: Scene) -> None:
    rebuilds = Rebuilds(scene.database)
    record = rebuilds.begin(
        "one", {"read_models": ["x"], "strategy": "in_place", "holder": faulty.HALF}, [(1, EVERYTHING)]
    )
    rebuilds.note(record, no_history=faulty.HALF)

    with pytest.raises(UsageError):
        rebuilds.get(faulty.HALF)
    ended = rebuilds.to(record, RebuildState.ABORTED, why=faulty.HALF)

    assert ended.no_history == ended.stored["why"] == ended.stored["holder"] == r"half an emoji \ud83d"


def test_what_no_query_can_ask_for_is_not_in_the_queue(scene: Scene) -> None:
    queue = RepairQueue(scene.database, scene.settings)
    assert not queue.due(5, task_ids=[faulty.HALF])
    assert list(queue.tasks(reason=faulty.HALF)) == []
    assert queue.requeue(reason=faulty.HALF) == 0
    with pytest.raises(UsageError):
        queue.requeue(task_id=faulty.HALF)


def test_every_command_tells_of_them_and_ends(
    scene: Scene, damaged: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("READMODEL_PROJECTIONS", faulty.__name__)
    queue = RepairQueue(scene.database, scene.settings)
    assert queue.add(damaged[0], "chat", faulty.HALF)
    reports = [argument for suffix in SUFFIXES for argument in ("--report", tmp_path / f"report{suffix}")]

    for command, exit_code in (
        (("verify-consistency", "--type", "all", "--all", *reports), 1),
        (("rebuild-readmodel", "--type", "all", "--all"), 1),
        (("repair-queue", "work", "--once"), 1),
        (("repair-queue", "list"), 0),
        (("repair-queue", "stats"), 0),
        (("rebuilds", "list"), 0),
        (("metrics", "--once"), 0),
    ):
        ended = cli(*command)
        assert (command, ended.exit_code, ended.exception and type(ended.exception)) == (
            command,
            exit_code,
            SystemExit if exit_code else None,
        )
    assert all((tmp_path / f"report{suffix}").stat().st_size for suffix in SUFFIXES)
