"""Views, capped, clustered and time series collections, validators, documents that expire: works, or says why not."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from readmodel_pipelines.cutover.definition import ShadowFailed
from readmodel_pipelines.doctor.check import Health
from readmodel_pipelines.doctor.examine import examine
from readmodel_pipelines.errors import ReadModelError, UnsuitableCollection
from readmodel_pipelines.mongo.connection import errors_in_words
from readmodel_pipelines.mongo.names import FINDINGS, OURS, REBUILDS, SET_ASIDE
from readmodel_pipelines_tests.support.scene import BOTH, Scene
from readmodel_pipelines_tests.support.verbs.command_line import Cli
from readmodel_pipelines_tests.support.verbs.rebuilding import full, in_shadow
from readmodel_pipelines_tests.support.verbs.repairing import put, queue_of, repair, task
from readmodel_pipelines_tests.support.verbs.verifying import look

CHATS, TASKS = BOTH
IDS = [f"{number:08}-0000-4000-8000-000000000000" for number in range(5)]
Made = Callable[[Scene, str], None]


def view(scene: Scene, name: str, **options: Any) -> None:
    scene.database[name].rename(f"{name}_shown")
    scene.database.command("create", name, viewOn=f"{name}_shown", pipeline=[], **options)


def danish_view(scene: Scene, name: str) -> None:
    view(scene, name, collation={"locale": "da"})


def made_anew(**options: Any) -> Made:
    def make(scene: Scene, name: str) -> None:
        documents = list(scene.database[name].find())
        scene.database.drop_collection(name)
        scene.database.create_collection(name, **options)
        if "timeseries" in options:
            documents = [{**item, "at": datetime(2026, 1, 1, tzinfo=UTC)} for item in documents]
        if documents:
            scene.database[name].insert_many(documents)

    return make


capped = made_anew(capped=True, size=1_000_000, max=3)
roomy = made_anew(capped=True, size=1_000_000)
time_series = made_anew(timeseries={"timeField": "at"})
danish = made_anew(collation={"locale": "da"})
clustered = made_anew(clusteredIndex={"key": {"_id": 1}, "unique": True})


@pytest.fixture
def chats(scene: Scene) -> Scene:
    """Five right chats."""
    scene.index()
    for chat_id in IDS:
        scene.chat("right", id=chat_id)
    scene.build()
    return scene


VERBS: Sequence[Callable[[Scene], object]] = (
    lambda scene: scene.rebuild(dry_run=True),
    Scene.rebuild,
    in_shadow,
    lambda scene: scene.rebuild_one(IDS[0]),
    lambda scene: scene.projector().rebuild_some(IDS),
)


@pytest.mark.parametrize("make", [view, capped, time_series], ids=["view", "capped", "time series"])
def test_a_read_model_that_cannot_be_written_is_refused_before_anything_is(chats: Scene, make: Made) -> None:
    make(chats, CHATS)
    before = chats.everything()
    for verb in VERBS:
        with pytest.raises(UnsuitableCollection) as refused:
            verb(chats)
        assert CHATS in refused.value.message
        assert refused.value.hint
    assert chats.everything() == before


@pytest.mark.parametrize(
    ("make", "missing"), [(view, 0), (capped, 2), (time_series, 0), (clustered, 0)], ids=["view", "capped", "ts", "cl"]
)
def test_a_read_model_of_any_kind_can_be_verified(chats: Scene, make: Made, missing: int) -> None:
    make(chats, CHATS)
    for tier in ("documents", "versions"):
        found = look(chats, "chat", tier=tier, remember=False)
        assert found.read_models[CHATS].missing == missing
    assert chats.verify_one(IDS[4]).ok


@pytest.mark.parametrize("place", ["events", CHATS])
def test_a_view_with_a_collation_cannot_be_read_by_bytes(chats: Scene, place: str) -> None:
    danish_view(chats, place)
    for verb in (*VERBS, Scene.verify):
        with pytest.raises(UnsuitableCollection):
            verb(chats)


@pytest.mark.parametrize("make", [view, roomy, time_series, clustered], ids=["view", "capped", "ts", "clustered"])
def test_events_of_any_kind_are_read(chats: Scene, make: Made) -> None:
    make(chats, "events")
    assert chats.verify().ok
    chats.chats.update_many({}, {"$set": {"title": "wrong"}})
    assert chats.rebuild_one(IDS[0]).ok
    done = full(chats)
    assert (done.ok, done.read_models[CHATS].replaced) == (True, 4)
    assert chats.verify().ok


@pytest.mark.parametrize("make", [view, roomy, time_series, clustered], ids=["view", "capped", "ts", "clustered"])
def test_versions_of_events_of_any_kind_are_read(scene: Scene, make: Made) -> None:
    scene.fill(4)
    scene.settings = scene.settings.model_copy(update={"allow_malformed": ("unknown_event_type",)})
    make(scene, "events")
    assert scene.projector().verify_versions().ok


@pytest.mark.parametrize("make", [view, time_series], ids=["view", "time series"])
def test_events_without_a_history_of_changes_are_no_base_for_a_shadow(chats: Scene, make: Made) -> None:
    make(chats, "events")
    before = chats.everything()
    with pytest.raises(ReadModelError) as refused:
        in_shadow(chats)
    assert "in_place" in refused.value.hint
    assert chats.everything() == before


def test_a_clustered_read_model_is_mended_in_place_and_gets_no_shadow(chats: Scene) -> None:
    clustered(chats, CHATS)
    chats.chats.update_many({}, {"$set": {"title": "wrong"}})
    with pytest.raises(ShadowFailed):
        in_shadow(chats)
    assert chats.rebuild("chat").read_models[CHATS].replaced == 5
    assert chats.verify().ok


def test_documents_that_a_validator_refuses_are_told_one_by_one(chats: Scene) -> None:
    chats.database.command("collMod", CHATS, validator={"title": {"$ne": "right"}})
    chats.chats.delete_many({})
    chats.append(IDS[0], ("chat.renamed", {"new_title": "another"}))
    done = chats.rebuild("chat")
    assert (done.read_models[CHATS].inserted, done.read_models[CHATS].failed) == (1, 4)
    assert {str(item.reason) for item in done.findings if item.failed} == {"write_refused"}


def test_a_validator_that_refuses_what_is_remembered_is_told_in_words(chats: Scene) -> None:
    chats.database.create_collection(FINDINGS, validator={"_id": {"$type": "int"}})
    chats.chats.delete_many({})
    with pytest.raises(ReadModelError) as refused, errors_in_words(chats.settings):
        look(chats, "chat")
    assert "collMod" in refused.value.hint


def test_documents_that_expire_are_warned_of_and_get_no_shadow(chats: Scene) -> None:
    chats.chats.create_index("expires_at", expireAfterSeconds=0, name="theirs")
    for summary in (look(chats, "chat", remember=False), chats.rebuild("chat", dry_run=True), chats.rebuild("chat")):
        assert any("theirs" in warning for warning in summary.warnings)
        assert summary.ok
    with pytest.raises(ShadowFailed) as refused:
        in_shadow(chats, "chat")
    assert "theirs" in refused.value.message


@pytest.mark.parametrize("make", [roomy, clustered, danish], ids=["capped", "clustered", "with a collation"])
def test_a_queue_of_another_kind_is_worked_off(chats: Scene, make: Made) -> None:
    chats.chats.update_many({}, {"$set": {"title": "wrong"}})
    put(chats, *map(task, IDS))
    make(chats, "repair_queue")
    assert repair(chats).completed == 5
    assert chats.verify().ok


@pytest.mark.parametrize(
    ("make", "place", "state"),
    [
        *((view, CHATS, Health.PROBLEM), (capped, CHATS, Health.PROBLEM), (view, "repair_queue", Health.PROBLEM)),
        *((danish_view, "events", Health.PROBLEM), (danish, CHATS, Health.OK), (view, "events", Health.OK)),
    ],
)
def test_the_doctor_says_what_cannot_be_used_and_why(chats: Scene, make: Made, place: str, state: Health) -> None:
    put(chats, task(IDS[0]))
    make(chats, place)
    (check,) = [item for item in examine(chats.settings).checks if item.name == "collections"]
    assert check.state is state
    assert state is Health.OK or place in check.found


@pytest.mark.each_once
@pytest.mark.parametrize("make", [view, roomy, time_series], ids=["view", "capped", "time series"])
@pytest.mark.parametrize("place", OURS)
def test_work_is_kept_in_no_collection_that_cannot_keep_it(chats: Scene, place: str, make: Made) -> None:
    if not chats.database.list_collection_names(filter={"name": place}):
        chats.database.create_collection(place)
    make(chats, place)
    put(chats, task(IDS[0]))
    for verb in (*VERBS, Scene.verify, repair):
        with pytest.raises(UnsuitableCollection) as refused:
            verb(chats)
        assert place in refused.value.message
    (check,) = [item for item in examine(chats.settings).checks if item.name == "collections"]
    assert (check.state, place in check.found) == (Health.PROBLEM, True)


@pytest.mark.parametrize("command", [("rebuilds", "list"), ("repair-queue", "list")])
def test_what_only_shows_says_in_words_what_it_cannot_read(chats: Scene, cli: Cli, command: Sequence[str]) -> None:
    for place in (REBUILDS, SET_ASIDE):
        if not chats.database.list_collection_names(filter={"name": place}):
            chats.database.create_collection(place)
        danish_view(chats, place)
    assert cli(*command).exit_code == UnsuitableCollection.exit_code


@pytest.mark.parametrize("make", [view, time_series], ids=["view", "time series"])
def test_a_queue_that_cannot_be_written_is_refused(chats: Scene, make: Made) -> None:
    put(chats, task(IDS[0]))
    make(chats, "repair_queue")
    with pytest.raises(UnsuitableCollection):
        repair(chats)


def test_a_task_that_a_validator_refuses_is_set_aside(chats: Scene) -> None:
    put(chats, *map(task, IDS))
    only_the_first = {"$or": [{"aggregate_id": IDS[0]}, {"lease_token": {"$exists": False}}]}
    chats.database.command("collMod", "repair_queue", validator=only_the_first)
    done = repair(chats)
    assert (done.completed, done.parked) == (1, 4)
    assert {item["reason"] for item in queue_of(chats).tasks("failed")} == {"cannot_be_written"}
