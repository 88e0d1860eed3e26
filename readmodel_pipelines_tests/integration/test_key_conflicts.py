"""Key conflicts: a unique key that a document needs is held by another one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from bson import DatetimeMS, ObjectId

from readmodel_pipelines.rebuild_state import Strategy
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.integration.test_values import bytes_in, put_document, put_stream
from readmodel_pipelines_tests.support.scene import FindingOf, Scene, found_in, in_place_alone
from readmodel_pipelines_tests.support.stored_values import Value

pytestmark = [pytest.mark.usefixtures("strategy"), pytest.mark.each_once]

TASKS = "tasks_read_model"

Either = Callable[[str], Callable[..., Summary]]


@pytest.fixture
def three(scene: Scene) -> list[str]:
    """Three right tasks with foreign fields; their ids."""
    scene.index()
    ids = [scene.chat(name) for name in ("a", "b", "c")]
    scene.build()
    scene.make_foreign()
    return ids


@pytest.fixture(params=["full", "rebuild_one"])
def either(request: pytest.FixtureRequest, scene: Scene) -> Either:
    """Both ways to rebuild, the second one from that aggregate."""
    if request.param == "full":
        return lambda _: scene.rebuild
    return lambda aggregate_id: partial(scene.rebuild_one, aggregate_id)


full_in_both_strategies_and_one = pytest.mark.parametrize(
    ("strategy", "either"), [("in_place", "full"), ("shadow", "full"), ("in_place", "rebuild_one")], indirect=True
)


def give(scene: Scene, chat_ids: dict[str, Any]) -> None:
    """Set the chat_ids of these tasks, stepping aside first, as the unique index wants it."""
    for key in chat_ids:
        scene.tasks.update_one({"task_id": key}, {"$set": {"chat_id": f"parked {key}"}})
    for key, chat_id in chat_ids.items():
        scene.tasks.update_one({"task_id": key}, {"$set": {"chat_id": chat_id}})


def stored_elsewhere(scene: Scene, key: str, new_key: Any) -> None:
    assert scene.tasks.update_one({"task_id": key}, {"$set": {"task_id": new_key}}).modified_count == 1


def counts_of(summary: Any) -> tuple[int, int, int, int]:
    counts = summary.read_models[TASKS]
    return counts.inserted, counts.replaced, counts.deleted, counts.failed


def test_swapped_chat_ids_are_swapped_back(scene: Scene, three: list[str]) -> None:
    before = scene.dump()
    give(scene, {three[0]: three[1], three[1]: three[0]})

    found = scene.verify("task")
    assert {item.aggregate_id: item.fields for item in found.findings} == {
        three[0]: {"chat_id": (three[0], three[1])},
        three[1]: {"chat_id": (three[1], three[0])},
    }
    assert counts_of(scene.rebuild("task", dry_run=True)) == counts_of(scene.rebuild("task")) == (0, 2, 0, 0)
    assert sorted(scene.dump()[TASKS]) == sorted(before[TASKS])
    assert scene.verify().ok
    assert all(task["not_ours"]["deep"] == [1, {"kept": "yes"}] for task in scene.tasks.find())


@full_in_both_strategies_and_one
@pytest.mark.parametrize("length", [2, 3, 60])
def test_a_cycle_is_turned_back(scene: Scene, either: Either, length: int) -> None:
    scene.index()
    ids = [scene.chat(f"link {number}") for number in range(length)]
    scene.build()
    give(scene, dict(zip(ids, [*ids[1:], ids[0]], strict=True)))
    run = either(ids[1])

    assert counts_of(run("task", dry_run=True)) == counts_of(run("task")) == (0, length, 0, 0)
    assert scene.verify().ok


@full_in_both_strategies_and_one
def test_a_chain_that_ends_in_an_orphan_is_freed_by_deleting_it(scene: Scene, three: list[str], either: Either) -> None:
    a, b, c = three
    # a waits for b, b for c, c for an orphan.
    orphan = "00000000-0000-4000-a000-000000000000"
    task = found_in(scene.tasks, {"task_id": c}, {"_id": 0})
    give(scene, {c: b, b: a, a: "nowhere"})
    scene.tasks.insert_one({**task, "task_id": orphan, "chat_id": c})
    run = either(a)

    assert counts_of(run("task", dry_run=True)) == counts_of(run("task")) == (0, 3, 1, 0)
    assert scene.verify().ok


@full_in_both_strategies_and_one
@pytest.mark.parametrize(
    "key",
    [
        *(None, {"a": 1}, {"$oid": "65f0"}, ObjectId("6b04ac7488e4dd37f7169d64"), 7, ["x"], [], b"x", "no uuid"),
        "00000000-0000-4000-A000-000000000000",
    ],
    ids=repr,
)
def test_a_document_of_a_damaged_key_gives_way(scene: Scene, three: list[str], either: Either, key: Any) -> None:
    stored_elsewhere(scene, three[1], key)
    run = either(three[1])

    assert counts_of(run("task", dry_run=True)) == counts_of(run("task")) == (1, 0, 1, 0)
    assert scene.verify().ok


# In a shadow the document of a malformed stream comes along, and keeps the key: `ShadowFailed` says what to do.
@in_place_alone
def test_a_key_held_by_the_document_of_a_malformed_stream_is_not_taken_from_it(
    scene: Scene, three: list[str], finding: FindingOf, either: Either
) -> None:
    a, b, _ = three
    scene.append(b, ("chat.exploded", {}))
    give(scene, {a: "nowhere", b: a})
    kept = scene.tasks.find_one({"task_id": b})
    run = either(a)

    before = scene.dump()
    predicted = run("task", dry_run=True)
    assert scene.dump() == before
    done = run("task")
    assert counts_of(predicted) == counts_of(done) == (0, 0, 0, 1)
    assert finding(predicted, a).reason == finding(done, a).reason == "key_held"
    assert b in finding(done, a).detail
    assert not done.ok
    assert scene.tasks.find_one({"task_id": b}) == kept
    assert found_in(scene.tasks, {"task_id": a})["chat_id"] == "nowhere"


# In a shadow the document of a malformed stream comes along, and keeps the key: `ShadowFailed` says what to do.
@in_place_alone
def test_a_chain_behind_a_malformed_stream_stays_but_others_are_done(scene: Scene, three: list[str]) -> None:
    a, b, c = three
    other = scene.chat("other")
    scene.append(c, ("chat.exploded", {}))
    give(scene, {a: "nowhere", b: a, c: b})

    predicted, done = scene.rebuild("task", dry_run=True), scene.rebuild("task")
    assert counts_of(predicted) == counts_of(done) == (1, 0, 0, 2)
    assert found_in(scene.tasks, {"task_id": other})["chat_id"] == other
    assert found_in(scene.tasks, {"task_id": a})["chat_id"] == "nowhere"


@pytest.fixture
def legacy(legacy_scene: Scene, strategy: Strategy) -> Scene:
    legacy_scene.index()
    legacy_scene.strategy = strategy
    return legacy_scene


@pytest.mark.parametrize(
    ("names", "chat_id"), [("one two", "chat 2"), ("one two", None), ("one two three", "chat 2")], ids=str
)
def test_legacy_streams_with_the_same_chat_are_all_malformed_and_name_one_another(
    legacy: Scene, finding: FindingOf, names: str, chat_id: str | None
) -> None:
    good = legacy.task("good", "chat 1")
    keys = [legacy.task(name, chat_id) for name in names.split()]

    for summary in (legacy.verify("task"), legacy.rebuild("task", dry_run=True), legacy.rebuild("task")):
        assert summary.read_models[TASKS].malformed == len(keys)
        for key in keys:
            found = finding(summary, key)
            created = found_in(legacy.events, {"aggregate_id": key, "version": 1})
            assert (found.outcome, found.reason) == ("malformed", "key_conflict")
            assert key in found.detail
            assert any(other in found.detail for other in keys if other != key)
            assert (found.version, found.event_id) == (1, created["_id"])
        assert not summary.ok
    assert [task["task_id"] for task in legacy.tasks.find()] == [good]


@pytest.mark.parametrize("verb", ["verify", "dry_run", "rebuild"])
def test_a_contested_legacy_stream_is_malformed_when_asked_for_alone_too(legacy: Scene, verb: str) -> None:
    one, _ = legacy.task("one", "chat 2"), legacy.task("two", "chat 2")
    run: Callable[..., Any] = legacy.verify_one if verb == "verify" else legacy.rebuild_one
    summary = run(one, "task", **({"dry_run": True} if verb == "dry_run" else {}))

    assert [(item.outcome, item.reason) for item in summary.findings] == [("malformed", "key_conflict")]
    assert not summary.ok
    assert legacy.tasks.count_documents({}) == 0


def test_a_lone_legacy_stream_without_a_chat_is_no_conflict(legacy: Scene) -> None:
    key = legacy.task("one", None)
    legacy.task("two", "chat")

    assert legacy.rebuild("task").ok
    assert found_in(legacy.tasks, {"task_id": key})["chat_id"] == ""


def test_documents_of_contested_streams_stay_as_they_are(legacy: Scene) -> None:
    one = legacy.task("one", "chat")
    legacy.rebuild("task")
    legacy.tasks.update_one({"task_id": one}, {"$set": {"title": "old"}})
    before = legacy.dump()[TASKS]
    legacy.task("two", "chat")

    assert legacy.rebuild("task").read_models[TASKS].malformed == 2
    assert legacy.dump()[TASKS] == before


@pytest.mark.parametrize("data", ["no document", [1], {"ChatID": 7}], ids=repr)
def test_a_stream_that_claims_nothing_valid_contests_nobody(legacy: Scene, data: Any) -> None:
    good = legacy.task("good", None)
    legacy.stream("11111111-0000-4000-a000-000000000000", "Task", ("task.created", data))
    legacy.rebuild("task")

    assert [task["task_id"] for task in legacy.tasks.find()] == [good]


@pytest.mark.parametrize("data", ["no document", 5, [1], None, {"ChatID": 7}], ids=repr)
def test_two_streams_broken_in_the_same_way_say_what_is_broken(legacy: Scene, data: Any) -> None:
    ids = ["11111111-0000-4000-a000-000000000000", "22222222-0000-4000-a000-000000000000"]
    for key in ids:
        legacy.stream(key, "Task", ("task.created", data))
    summary = legacy.rebuild("task")

    wanted = "bad_field" if isinstance(data, dict) else "bad_data"
    assert [(item.aggregate_id, item.reason) for item in summary.findings] == [(key, wanted) for key in ids]


@pytest.mark.parametrize("chat_id", ["far date", "invalid utf-8"])
def test_chat_ids_that_python_cannot_decode_stop_nobody(legacy: Scene, chat_id: str) -> None:
    good = legacy.task("good", "chat")
    for name in ("one", "two"):
        event = {"aggregate_id": legacy.task(name, "PLACEHOLDER")}
        if chat_id == "far date":
            legacy.events.update_one(event, {"$set": {"data.ChatID": DatetimeMS(2**60)}})
        else:
            legacy.replace_bytes("events", event, b"PLACEHOLDER", b"PLACE\xff\xfeLDER")
    summary = legacy.rebuild("task")

    assert summary.read_models[TASKS].malformed == 2
    assert [task["task_id"] for task in legacy.tasks.find()] == [good]


def test_a_duplicate_that_holds_the_key_goes_and_the_right_one_stays(scene: Scene, three: list[str]) -> None:
    a, b, _ = three
    scene.tasks.drop_index("task_id_1")
    task = found_in(scene.tasks, {"task_id": b}, {"_id": 0})
    give(scene, {a: "nowhere"})
    # Of several without an index the one whose `_id` comes first is the document.
    scene.tasks.insert_one({**task, "chat_id": a, "_id": ObjectId("f" * 24)})

    predicted = scene.rebuild("task", dry_run=True)
    assert counts_of(predicted) == counts_of(scene.rebuild("task")) == (0, 1, 1, 0)
    assert scene.verify().ok


def test_rebuilding_one_frees_a_key_from_two_documents_with_the_same_id(scene: Scene, three: list[str]) -> None:
    a, b, _ = three
    scene.tasks.drop_index("task_id_1")
    task = found_in(scene.tasks, {"task_id": b}, {"_id": 0})
    # The first document of b holds a's key, the second one b's own.
    give(scene, {a: "nowhere"})
    scene.tasks.update_one({"task_id": b}, {"$set": {"chat_id": a}})
    scene.tasks.insert_one(task)

    predicted = scene.rebuild_one(a, "task", dry_run=True)
    done = scene.rebuild_one(a, "task")
    assert counts_of(predicted) == counts_of(done)
    assert done.ok
    assert scene.verify_one(a, "task").ok
    scene.rebuild("task")
    assert scene.verify().ok


# In a shadow the document of a malformed stream comes along, and keeps the key: `ShadowFailed` says what to do.
@in_place_alone
@pytest.mark.parametrize("malformed", [True, False], ids=["malformed_holder", "orphan_holder"])
def test_without_indexes_a_key_hinders_nobody(scene: Scene, three: list[str], either: Either, malformed: bool) -> None:
    a, b, _ = three
    scene.tasks.drop_indexes()
    scene.tasks.update_one({"task_id": a}, {"$set": {"chat_id": "nowhere"}})
    if malformed:
        scene.append(b, ("chat.exploded", {}))
        scene.tasks.update_one({"task_id": b}, {"$set": {"chat_id": a}})
    else:
        orphan = {**found_in(scene.tasks, {"task_id": b}, {"_id": 0}), "task_id": "orphan", "chat_id": a}
        scene.tasks.insert_one(orphan)
    run = either(a)

    predicted, done = run("task", dry_run=True), run("task")
    assert counts_of(predicted) == counts_of(done)
    assert found_in(scene.tasks, {"task_id": a})["chat_id"] == a


# The one that is refused stands, in a shadow, in the way of the index.
@in_place_alone
def test_a_validator_that_refuses_one_of_two_stops_nobody(scene: Scene, three: list[str], finding: FindingOf) -> None:
    a, b, c = three
    scene.database.command("collMod", TASKS, validator={"title": {"$ne": "a"}}, validationLevel="strict")
    scene.tasks.update_one({"task_id": a}, {"$set": {"title": "x"}})
    give(scene, {a: b, b: a})
    scene.tasks.update_one({"task_id": c}, {"$set": {"title": "damaged"}})
    summary = scene.rebuild("task")

    assert not summary.ok
    assert summary.read_models[TASKS].replaced == 1
    assert summary.read_models[TASKS].failed == 2
    assert finding(summary, a).reason == "write_refused"
    assert found_in(scene.tasks, {"task_id": c})["title"] == "c"


def test_swapped_documents_that_hold_nan_are_swapped_back(scene: Scene, three: list[str]) -> None:
    a, b, _ = three
    give(scene, {a: b, b: a})
    nan = float("nan")
    scene.tasks.update_one({"task_id": a}, {"$set": {"title": nan, "attachments": [{"file_size": nan}]}})

    assert counts_of(scene.rebuild("task")) == (0, 2, 0, 0)
    assert scene.verify().ok


@in_place_alone
@pytest.mark.parametrize(
    "value",
    [
        Value("broken string", b"\xff\xfe"),
        Value("symbol", "x"),
        Value("dbPointer", ("a.b", bytes(12))),
        Value("code", "x"),
        Value("binary", b"\x02\x63\0\0\0abc"),
    ],
    ids=repr,
)
def test_a_key_held_by_the_document_of_a_stream_with_an_odd_id_is_not_taken_from_it(
    scene: Scene, three: list[str], finding: FindingOf, either: Either, value: Value
) -> None:
    a, b, _ = three
    put_stream(scene, value, [])
    give(scene, {a: "nowhere", b: a})
    # The document of b becomes that of the odd stream.
    before = put_document(scene, TASKS, b, "task_id", value)
    scene.events.delete_many({"aggregate_id": b})
    for summary in (either(a)("task", dry_run=True), either(a)("task")):
        assert finding(summary, a).reason == "key_held"
        assert counts_of(summary)[2:] == (0, 1)
    assert before in bytes_in(scene, TASKS)


@in_place_alone
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_key_held_by_the_document_of_a_contested_stream_is_not_taken_from_it(
    legacy: Scene, finding: FindingOf, alone: bool, dry_run: bool
) -> None:
    a, c = legacy.task("a", "k"), legacy.task("c", "c")
    assert legacy.rebuild("task").ok
    legacy.task("b", "k")
    legacy.tasks.update_one({"task_id": c}, {"$set": {"chat_id": "nowhere"}})
    legacy.tasks.update_one({"task_id": a}, {"$set": {"chat_id": "c"}})
    before = legacy.dump()[TASKS]
    run = partial(legacy.rebuild_one, c) if alone else legacy.rebuild

    found = finding(run("task", dry_run=dry_run), c)
    assert (found.failed, found.reason) == (True, "key_held")
    assert legacy.dump()[TASKS] == before
    _, unknown = legacy.projector("task").rebuild_some([c])
    assert unknown == []
    assert legacy.dump()[TASKS] == before
