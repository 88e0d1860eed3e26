"""A run that meets no event changes nothing and is no success: most often a name is mistyped."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from readmodel_pipelines.errors import AggregateNotFound, NoEvents
from readmodel_pipelines.rebuild import RebuildRequest, Slice, rebuild
from readmodel_pipelines.repair.worker import RepairWorker
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.verification.coverage import Bucket, Coverage
from readmodel_pipelines.verification.verify import VerificationRequest, verify, verify_fresh
from readmodel_pipelines_tests.integration.conftest import scene_of
from readmodel_pipelines_tests.support.scene import Mongo, Scene
from readmodel_pipelines_tests.support.verbs.command_line import EVERYTHING, Cli
from readmodel_pipelines_tests.support.verbs.repairing import put, repair, stored, task

CHATS, TASKS = "chats_read_model", "tasks_read_model"


def looks(**options: Any) -> Callable[..., Any]:
    return lambda scene, settings, names: verify(scene.database, settings, names, VerificationRequest(**options))


def rebuilds(**options: Any) -> Callable[..., Any]:
    return lambda scene, settings, names: rebuild(scene.database, settings, names, RebuildRequest(**options))


def projects(method: str, **options: Any) -> Callable[..., Any]:
    def run(scene: Scene, settings: Settings, names: Any) -> Any:
        projector = scene.projector(*names, **settings.model_dump(include={"events_collection", "task_source"}))
        return getattr(projector, method)(**options)

    return run


RUNS: Mapping[str, Callable[..., Any]] = {
    "verify": looks(),
    "verify by versions": looks(tier="versions"),
    "verify a sample": looks(coverage=Coverage(sample=5)),
    "verify a bucket": looks(coverage=Coverage(bucket=Bucket(1, 2))),
    "verify what changed": looks(coverage=Coverage(since_last=True)),
    "verify and queue repairs": looks(enqueue_repairs=True),
    "verify what is fresh": lambda scene, settings, names: verify_fresh(scene.database, settings, names),
    "rebuild in place": rebuilds(),
    "rebuild and delete all": rebuilds(allow_deletions=True),
    "resume": rebuilds(resume=True),
    "rebuild in a shadow": rebuilds(strategy="shadow"),
    "rebuild a slice": rebuilds(slice=Slice(2, 3)),
    "the API verifies": projects("verify_all"),
    "the API looks at versions": projects("verify_versions"),
    "the API rebuilds": projects("rebuild_all"),
    "the API predicts": projects("rebuild_all", dry_run=True),
}


@pytest.fixture
def filled(scene: Scene) -> Scene:
    return with_chats(scene)


@pytest.fixture(scope="module")
def untouched(opened: Mongo, read_once: Settings) -> Iterator[Scene]:
    """One for all runs that change nothing: each looks whether it did not."""
    for scene in scene_of(opened, read_once.model_copy(update={"database": "nothing_to_look_at"})):
        yield with_chats(scene)


def with_chats(scene: Scene) -> Scene:
    scene.ensure_indexes()
    for number in range(3):
        scene.chat(f"chat {number}")
    scene.build()
    return scene


def without_leases(scene: Scene) -> Any:
    leases = scene.database.readmodel_leases.count_documents({"given_back": False})
    return scene.dump(), scene.database.readmodel_rebuilds.count_documents({}), leases


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
def test_a_mistyped_name_is_told_with_every_setting_and_changes_nothing(
    untouched: Scene, run: Callable[..., Any]
) -> None:
    before = without_leases(untouched)
    mistyped = untouched.settings.model_copy(update={"events_collection": "evnets"})
    for names in ((), ("chat",), ("task",)):
        with pytest.raises(NoEvents) as refused:
            run(untouched, mistyped, names)
        assert refused.value.exit_code == 5
        assert list(refused.value.read_models) == [name for name in (CHATS, TASKS) if not names or names[0] in name]
        for value in (f"{untouched.settings.database}.evnets", "is evnets", "READMODEL_TASK_SOURCE is chat"):
            assert value in refused.value.message
        assert "--allow-no-events" in refused.value.hint
    assert without_leases(untouched) == before


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
def test_an_empty_database_is_nothing_that_could_be_well(scene: Scene, run: Callable[..., Any]) -> None:
    with pytest.raises(NoEvents):
        run(scene, scene.settings, ())
    # Events of somebody else's are none that anything could be made from.
    scene.events.insert_one({"type": "click", "at": "noon"})
    with pytest.raises(NoEvents):
        run(scene, scene.settings, ())


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
def test_the_wrong_source_of_tasks_deletes_no_task_and_names_it(untouched: Scene, run: Callable[..., Any]) -> None:
    before = without_leases(untouched)
    wrong = untouched.settings.model_copy(update={"task_source": "task"})
    with pytest.raises(NoEvents) as refused:
        run(untouched, wrong, ())
    assert refused.value.read_models == (TASKS,)
    assert "READMODEL_TASK_SOURCE is task" in refused.value.message
    assert without_leases(untouched) == before


@pytest.mark.parametrize("run", RUNS.values(), ids=list(RUNS))
def test_a_read_model_that_nothing_has_happened_to_yet_is_well(legacy_scene: Scene, run: Callable[..., Any]) -> None:
    legacy_scene.ensure_indexes()
    legacy_scene.chat("chat")
    legacy_scene.build()
    for names in ((), ("task",)):
        assert run(legacy_scene, legacy_scene.settings, names).ok


def test_who_means_it_says_so_and_deletions_are_still_their_own_question(filled: Scene) -> None:
    filled.chat("chat 3")
    filled.build()
    filled.events.drop()
    meant = {"allow_no_events": True}
    looked = looks(**meant)(filled, filled.settings, ())
    assert (looked.ok, looked.read_models[CHATS].orphan) == (False, 4)
    assert rebuilds(**meant)(filled, filled.settings, ()).read_models[CHATS].deleted == 0
    assert rebuilds(**meant, allow_deletions=True)(filled, filled.settings, ()).read_models[CHATS].deleted == 4
    assert looks(**meant)(filled, filled.settings, ()).ok


ONE: Mapping[str, Callable[..., Any]] = {
    "verify": lambda projector, key, **meant: projector.verify_consistency(key, **meant),
    "predict": lambda projector, key, **meant: projector.rebuild_one(key, dry_run=True, **meant),
    "rebuild": lambda projector, key, **meant: projector.rebuild_one(key, **meant),
}


@pytest.mark.parametrize("run", ONE.values(), ids=list(ONE))
def test_the_documents_of_one_aggregate_stay_where_the_store_has_no_event_at_all(
    filled: Scene, run: Callable[..., Any]
) -> None:
    key = filled.chats.distinct("chat_id")[0]
    before = filled.dump()
    mistyped = filled.projector(events_collection="evnets")
    with pytest.raises(NoEvents) as refused:
        run(mistyped, key)
    assert refused.value.read_models == (CHATS, TASKS)
    assert filled.dump() == before
    meant = run(mistyped, key, allow_no_events=True).read_models[CHATS]
    assert meant.orphan + meant.deleted >= 1


def test_an_event_that_never_came_deletes_nothing_where_the_store_has_none(filled: Scene) -> None:
    event = filled.events.find_one() or {}
    before = filled.dump()
    with pytest.raises(NoEvents):
        filled.projector(events_collection="evnets").process_event(event, wait_seconds=0)
    assert filled.dump() == before


def test_a_document_without_events_goes_alone_where_others_have_events(filled: Scene) -> None:
    key = filled.chats.distinct("chat_id")[0]
    filled.events.delete_many({"aggregate_id": key})
    assert filled.rebuild_one(key).read_models[CHATS].deleted == 1


def test_an_aggregate_that_nobody_knows_is_not_found_where_the_store_has_no_event(scene: Scene) -> None:
    with pytest.raises(AggregateNotFound):
        scene.rebuild_one("c1ff5917-b7aa-4647-93c3-49dc8f855d04")


def test_a_repair_deletes_nothing_either_and_mends_it_once_the_name_is_right(filled: Scene) -> None:
    key = filled.chats.distinct("chat_id")[0]
    put(filled, task(key))
    before = filled.dump()
    mistyped = filled.settings.model_copy(update={"events_collection": "evnets", "repair_backoff_seconds": 0})
    assert RepairWorker(filled.database, mistyped).work(limit=1).retried == 1
    (waiting,) = stored(filled)
    assert (waiting["status"], waiting["reason"]) == ("pending", "no_events")
    assert {name: filled.dump()[name] for name in (CHATS, TASKS)} == {name: before[name] for name in (CHATS, TASKS)}
    assert repair(filled).completed == 1


def test_a_task_for_an_aggregate_without_document_waits_too_where_the_store_has_no_event(filled: Scene) -> None:
    put(filled, task("c1ff5917-b7aa-4647-93c3-49dc8f855d04"))
    mistyped = filled.settings.model_copy(update={"events_collection": "evnets", "repair_backoff_seconds": 0})
    assert RepairWorker(filled.database, mistyped).work(limit=1).retried == 1
    assert [item["reason"] for item in stored(filled)] == ["no_events"]


@pytest.mark.parametrize(
    "command",
    [
        ("verify-consistency", *EVERYTHING),
        ("verify-consistency", *EVERYTHING, "--tier", "versions"),
        ("rebuild-readmodel", *EVERYTHING),
        ("rebuild-readmodel", *EVERYTHING, "--dry-run"),
        ("rebuild-readmodel", *EVERYTHING, "--strategy", "shadow"),
        ("rebuild-readmodel", *EVERYTHING, "--slice", "1/2"),
    ],
    ids=lambda words: " ".join(words[3:]) or words[0],
)
def test_the_command_line_has_an_exit_code_for_it(cli: Cli, command: tuple[str, ...]) -> None:
    ended = cli("--json", *command)
    assert (ended.exit_code, '"code": "no_events"' in ended.stdout) == (5, True)
    if "--slice" not in command and "shadow" not in command:
        assert cli(*command, "--allow-no-events").exit_code == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_empty_read_model_is_named_because_its_name_may_be_mistyped(filled: Scene, dry_run: bool) -> None:
    mistyped = filled.projector(chats_collection="chatz")
    summary = mistyped.rebuild_all(dry_run=True) if dry_run else mistyped.verify_all()
    assert summary.read_models[CHATS].missing == 3
    (warning,) = summary.warnings
    assert f"{filled.settings.database}.chatz" in warning
    assert filled.projector().verify_all().warnings == []
