"""Read models that are made from different streams are rebuilt one after the other, and the summary tells of each."""

import json
from typing import Any

import pytest

from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.cli.terminal.summary import human_lines
from readmodel_pipelines.errors import ReadModelBusy
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.rebuild import RebuildRequest, rebuild
from readmodel_pipelines.rebuild.run import RebuildInterrupted
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines_tests.support.at_a_moment import At, nth, raises
from readmodel_pipelines_tests.support.scene import Scene, uuid
from readmodel_pipelines_tests.support.verbs.rebuilding import full, records

CHATS, TASKS = "chats_read_model", "tasks_read_model"


@pytest.fixture
def both(legacy_scene: Scene) -> Scene:
    legacy_scene.fill(6)
    return legacy_scene


def too_many(scene: Scene, name: str, key: str) -> None:
    scene.database[name].insert_many([{key: uuid(number), "chat_id": uuid(number)} for number in range(9)])


def ids_of(scene: Scene) -> dict[str, str]:
    return {record["read_models"][0]: record["_id"] for record in records(scene)}


def test_a_summary_names_every_rebuild(both: Scene) -> None:
    summary = full(both)
    ids = ids_of(both)
    assert {tuple(item.read_models): item.id for item in summary.rebuilds} == {
        (CHATS,): ids[CHATS],
        (TASKS,): ids[TASKS],
    }
    document = summary.as_json()
    assert [(item["rebuild"], item["state"], item["read_models"]) for item in document["rebuilds"]] == [
        (ids[CHATS], "done", [CHATS]),
        (ids[TASKS], "done", [TASKS]),
    ]
    assert json.loads(json.dumps(document)) == document
    said = "\n".join(human_lines(summary))
    assert f"Rebuild {ids[CHATS]} of {CHATS} (in_place) is done" in said
    assert f"Rebuild {ids[TASKS]} of {TASKS} (in_place) is done" in said
    alone = full(both, "task").as_json()
    assert "rebuilds" not in alone


@pytest.mark.each_once
@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
@pytest.mark.parametrize(("refused", "key"), [(CHATS, "chat_id"), (TASKS, "task_id")])
def test_the_one_that_is_refused_is_blamed(both: Scene, refused: str, key: str, strategy: Any) -> None:
    too_many(both, refused, key)
    summary = full(both, strategy=strategy)
    assert not summary.ok
    states = {item.read_models[0]: item.state for item in summary.rebuilds}
    done = ({CHATS, TASKS} - {refused}).pop()
    assert states == {refused: RebuildState.REFUSED, done: RebuildState.DONE}
    ids = ids_of(both)
    assert (summary.rebuild.id, summary.about["rebuild"], summary.about["state"]) == (
        ids[refused],
        ids[refused],
        "refused",
    )
    said = "\n".join(human_lines(summary))
    assert f"Rebuild {ids[refused]} of {refused} ({strategy}) is refused" in said
    assert f"Rebuild {ids[done]} of {done} ({strategy}) is done" in said


def test_the_one_that_is_interrupted_is_told_and_the_other_is_done(both: Scene, at: At) -> None:
    at(Moment.RANGES, nth(2, raises(KeyboardInterrupt())))
    with pytest.raises(RebuildInterrupted) as ended:
        full(both)
    states = {item.read_models[0]: item.state for item in ended.value.summary.rebuilds}
    assert states == {CHATS: RebuildState.DONE, TASKS: RebuildState.INTERRUPTED}
    assert ended.value.summary.rebuild.id == ids_of(both)[TASKS]


def test_one_that_is_busy_is_told_by_its_name(both: Scene) -> None:
    both.database.readmodel_leases.delete_many({})
    with hold_leases(both.database, [TASKS], 60, "the night shift"), pytest.raises(ReadModelBusy) as busy:
        rebuild(both.database, both.settings, (), RebuildRequest())
    assert busy.value.on == TASKS
