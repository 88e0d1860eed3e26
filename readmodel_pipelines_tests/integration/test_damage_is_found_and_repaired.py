"""Every kind of damage: found with exactly its fields, repaired by either rebuild, told truly by a dry run.

Each way of `demo.damage` breaks a document of its own, all at once; foreign fields are in every document before.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, MaxKey, MinKey, Regex, Timestamp
from bson.dbref import DBRef
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.demo.damage import CHATS, LEGACY_TASKS, TASKS, Damage, OwnedFields, Way, applies, break_field
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines_tests.support.other_writer import OtherWriter
from readmodel_pipelines_tests.support.scene import FOREIGN, Scene, found_in, taken_from, typed
from readmodel_pipelines_tests.support.tables import each_once

WRITES = ("inserted", "replaced", "deleted", "failed")


@pytest.fixture(params=["chats", "tasks", "legacy_tasks"])
def target(request: pytest.FixtureRequest) -> tuple[Any, Any, OwnedFields, str]:
    """A scene, the collection to break, its table of ways and its name for a projector."""
    scene = request.getfixturevalue("legacy_scene" if request.param == "legacy_tasks" else "scene")
    model = {"chats": CHATS, "tasks": TASKS, "legacy_tasks": LEGACY_TASKS}[request.param]
    scene.fill(220 if request.param == "tasks" else 120, seed=3)
    return scene, (scene.chats if model is CHATS else scene.tasks), model, "chat" if model is CHATS else "task"


def ways_of(model: OwnedFields) -> list[tuple[str, Way]]:
    """Every way of every field."""
    return [(field, way) for field, ways in model.fields.items() for way in ways]


def each_way_once(model: OwnedFields) -> list[tuple[str, Way]]:
    """Every way, and every field: pairs in which one or the other comes up for the first time."""
    ways = ways_of(model)
    return [ways[number] for number in sorted(each_once([((0, field), (1, way.name)) for field, way in ways]))]


def break_everything(collection: Any, model: OwnedFields, ways: list[tuple[str, Way]]) -> list[Damage]:
    """Each way on a document of its own that it fits; the rarest chooses first."""
    documents = {document[model.key]: document for document in collection.find()}
    fitting = {
        (field, way.name): [key for key, document in documents.items() if applies(way, document.get(field, ABSENT))]
        for field, way in ways
    }
    taken: set[str] = set()
    nulls: set[str] = set()
    damages: list[Damage] = []
    for field, way in sorted(ways, key=lambda item: len(fitting[item[0], item[1].name])):
        if field in ("chat_id", "task_id") and way.name in ("nulled", "removed"):
            # A unique index takes an absent field for a null one, so only one of them fits in.
            if field in nulls:
                continue
            nulls.add(field)
        key = next(key for key in fitting[field, way.name] if key not in taken)
        taken.add(key)
        damages += break_field(collection, model, key, field, way)
    return damages


def named(damage: Damage) -> tuple[str, str, str]:
    return repr(damage.key), damage.outcome, damage.field if damage.outcome == "different" and damage.field else ""


def found(summary: Any) -> list[tuple[str, str, str]]:
    return sorted((repr(item.aggregate_id), str(item.outcome), ",".join(item.fields)) for item in summary.findings)


def writes(summary: Any) -> dict[str, int]:
    (counts,) = summary.read_models.values()
    return {name: getattr(counts, name) for name in WRITES}


def test_every_way_is_found_with_its_field_and_repaired_by_a_full_rebuild(target: Any) -> None:
    scene, collection, model, name = target
    right = scene.everything()
    damages = break_everything(collection, model, ways_of(model))
    assert len(damages) > 50
    broken = scene.dump()

    verified = scene.verify(name)
    assert found(verified) == sorted(map(named, damages))
    assert not verified.ok
    for item in verified.findings:
        for field, (expected, actual) in item.fields.items():
            stored = collection.find_one({model.key: item.aggregate_id})
            assert repr(stored.get(field, ABSENT)) == repr(actual)
            assert typed(expected) != typed(actual)
    predicted = scene.rebuild(name, dry_run=True)
    assert scene.dump() == broken
    done = scene.rebuild(name)

    assert writes(predicted) == writes(done)
    assert done.ok
    assert found(predicted) == found(done) == found(verified)
    kinds = [damage.outcome for damage in damages]
    assert writes(done) == {
        "inserted": kinds.count("missing"),
        "replaced": kinds.count("different"),
        "deleted": kinds.count("orphan"),
        "failed": 0,
    }
    # A document whose key was broken is another document afterwards: its foreign fields went with the orphan.
    inserted = {damage.key for damage in damages if damage.outcome == "missing"}
    for key, fields in FOREIGN.items():
        collection.update_many({model.key: {"$in": list(inserted)}}, {"$set": {key: fields}})
    assert scene.everything() == right
    assert writes(scene.rebuild(name)) == dict.fromkeys(WRITES, 0)
    assert scene.verify(name).ok


@pytest.mark.each_once
def test_every_way_is_found_and_repaired_one_by_one(target: Any, whole: bool) -> None:
    scene, collection, model, name = target
    right = scene.everything()
    damages = break_everything(collection, model, ways_of(model) if whole else each_way_once(model))

    mendable = [damage for damage in damages if damage.outcome != "orphan"]
    before = scene.dump()
    predicted = {}
    for damage in mendable:
        assert found(scene.verify_one(damage.key, name)) == [named(damage)], damage
        predicted[damage.key] = writes(scene.rebuild_one(damage.key, name, dry_run=True))
    assert scene.dump() == before
    for damage in mendable:
        done = scene.rebuild_one(damage.key, name)
        assert writes(done) == predicted[damage.key], damage
        assert done.ok, damage
    # What is left are orphans under broken keys.
    left = scene.rebuild(name)
    assert {item.outcome for item in left.findings} <= {"orphan"}
    collection.update_many({}, {"$set": FOREIGN})
    assert scene.everything() == right


def test_removed_documents_come_back_without_foreign_fields(scene: Scene) -> None:
    ids = scene.fill(10)
    scene.chats.delete_many({})

    assert writes(scene.rebuild("chat"))["inserted"] == len(ids)
    assert not any("not_ours" in chat for chat in scene.chats.find())
    assert scene.verify().ok


@pytest.mark.parametrize("version", [999, "x", None, 2**40, -1, 0.5], ids=repr)
def test_a_wrong_stored_version_is_damage_and_no_race(scene: Scene, version: Any) -> None:
    scene.index()
    chat_id = scene.chat("one")
    scene.build()
    scene.tasks.update_one({"task_id": chat_id}, {"$set": {"version": version}})

    assert scene.verify_one(chat_id, "task").findings[0].fields == {"version": (2, version)}
    summary = scene.rebuild_one(chat_id, "task")
    assert writes(summary)["replaced"] == 1
    assert summary.read_models["tasks_read_model"].superseded == 0
    assert found_in(scene.tasks, {"task_id": chat_id})["version"] == 2


STRANGE: list[Any] = [
    *(Decimal128("1.5"), Decimal128("NaN"), float("nan"), float("-inf"), -0.0, [float("nan")], {"a": float("nan")}),
    *(Binary(b"\0\xff", 0), Binary(b"\0\xff", 128), Binary(b"\x04\0\0\0abcd", 2), Regex("^a", "imx")),
    *(DBRef("chats", 1), DBRef("chats", 1, "db", more=2), {"$id": 1, "$ref": "chats"}, {"$ref": 5}, {"$oid": "65f0"}),
    *({"$gt": ""}, {"": ""}, {"a.b": 1}, "$title", "$$ROOT", {"$literal": 1}, MinKey(), MaxKey()),
    *(Timestamp(1, 2), Timestamp(0, 0), Code("x"), Code("x", {"y": 1}), [], [[]], [None], {}, "nul \0 in"),
    "\U0001f41b",
]


@pytest.mark.parametrize("field", ["title", "participants"])
def test_values_of_every_bson_type_are_found_and_repaired(scene: Scene, field: str) -> None:
    scene.index()
    ids = [scene.chat(f"chat {number}") for number in range(len(STRANGE))]
    scene.build()
    scene.make_foreign()
    right = scene.everything()
    for full in (True, False):
        for chat_id, value in zip(ids, STRANGE, strict=True):
            scene.chats.update_one({"chat_id": chat_id}, [{"$set": {field: {"$literal": value}}}])
        wrong = [key for key, value in zip(ids, STRANGE, strict=True) if not (field == "participants" and value == [])]
        before = scene.dump()
        assert sorted(item.aggregate_id for item in scene.verify("chat").findings) == sorted(wrong)
        assert writes(scene.rebuild("chat", dry_run=True))["replaced"] == len(wrong)
        assert scene.dump() == before
        if full:
            summary = scene.rebuild("chat")
            assert (writes(summary)["replaced"], summary.ok) == (len(wrong), True)
            assert summary.read_models["chats_read_model"].superseded == 0
        else:
            assert all(scene.rebuild_one(key, "chat").ok for key in ids)
        assert scene.everything() == right


@pytest.mark.each_once
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("where", ["owned", "foreign", "both"])
def test_text_that_is_no_utf_8_is_repaired_and_kept_where_it_is_foreign(scene: Scene, full: bool, where: str) -> None:
    scene.index()
    chat_id, others = scene.chat("PLACEHOLDER"), [scene.chat(name) for name in ("a", "b", "c")]
    scene.build()
    scene.make_foreign()
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"foreign": "F_REIGNTEXT"}})
    if where != "foreign":
        scene.replace_bytes("chats_read_model", {"chat_id": chat_id}, b"PLACEHOLDER", b"PLACE\xff\xfeLDER")
    else:
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "damaged"}})
    if where != "owned":
        scene.replace_bytes("chats_read_model", {"chat_id": chat_id}, b"F_REIGNTEXT", b"F\xff\xffEIGNTEXT")
    scene.chats.delete_many({"chat_id": {"$in": others}})
    run: Callable[..., Any] = (
        scene.rebuild if full else lambda *names, **options: scene.rebuild_one(chat_id, *names, **options)
    )

    assert not scene.verify("chat").ok
    predicted, done = run("chat", dry_run=True), run("chat")
    assert writes(predicted) == writes(done) == {"inserted": 3 if full else 0, "replaced": 1, "deleted": 0, "failed": 0}
    assert done.read_models["chats_read_model"].superseded == 0
    assert scene.verify_one(chat_id, "chat").ok
    raw = found_in(scene.raw("chats_read_model"), {"chat_id": chat_id}).raw
    assert (b"F_REIGNTEXT" if where == "owned" else b"F\xff\xffEIGNTEXT") in raw
    assert b"kept" in raw


@pytest.mark.parametrize(
    "kind",
    [b"\x06title\x00", b"\x0etitle\x00\x02\x00\x00\x00b\x00", b"\x0ctitle\x00\x02\x00\x00\x00b\x00" + bytes(12)],
    ids=["undefined", "symbol", "db_pointer"],
)
def test_values_of_types_long_gone_are_found_and_repaired(scene: Scene, kind: bytes) -> None:
    scene.index()
    chat_id = scene.chat("a")
    scene.build()
    raw = taken_from(scene.raw("chats_read_model"), {"chat_id": chat_id}).raw
    old = b"\x02title\x00\x02\x00\x00\x00a\x00"
    assert old in raw
    body = raw.replace(old, kind)
    scene.raw("chats_read_model").insert_one(RawBSONDocument(len(body).to_bytes(4, "little") + body[4:]))

    assert not scene.verify("chat").ok
    assert writes(scene.rebuild("chat", dry_run=True))["replaced"] == 1
    summary = scene.rebuild("chat")
    assert (writes(summary)["replaced"], summary.read_models["chats_read_model"].superseded) == (1, 0)
    assert scene.verify("chat").ok


@pytest.mark.parametrize("full", [True, False])
def test_a_document_too_large_for_a_statement_is_replaced(scene: Scene, full: bool, other_writer: OtherWriter) -> None:
    scene.index()
    chat_id = scene.chat("big", *[("chat.participant_added", {"user_id": c * 5_000_000}) for c in "xy"])
    others = [scene.chat(name) for name in ("a", "b", "c")]
    scene.build()
    scene.make_foreign()
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"participants": ["z" * 9_000_000], "title": 1}})
    scene.chats.delete_many({"chat_id": {"$in": others}})
    summary = scene.rebuild("chat") if full else scene.rebuild_one(chat_id, "chat")

    assert writes(summary) == {"inserted": 3 if full else 0, "replaced": 1, "deleted": 0, "failed": 0}
    assert summary.read_models["chats_read_model"].superseded == 0
    assert scene.verify_one(chat_id, "chat").ok
    assert found_in(scene.chats, {"chat_id": chat_id})["not_ours"] == FOREIGN["not_ours"]

    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"participants": ["z" * 9_000_000]}})
    seen: list[Any] = []

    def renames(_: Any) -> None:
        scene.append(chat_id, ("chat.renamed", {"new_title": "newer"}))
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "newer"}})
        seen.append(found_in(scene.chats, {"chat_id": chat_id})["title"])

    other_writer.once_before("swap", "replace", renames)
    counts = (scene.rebuild("chat") if full else scene.rebuild_one(chat_id, "chat")).read_models["chats_read_model"]
    assert seen == ["newer"]
    assert (counts.superseded, counts.replaced, counts.failed) == (1, 1, 0)
    assert found_in(scene.chats, {"chat_id": chat_id})["title"] == "newer"
    assert scene.verify_one(chat_id, "chat").ok


def test_foreign_fields_that_leave_no_room_refuse_one_document_and_no_other(scene: Scene) -> None:
    scene.index()
    chat_id = scene.chat("big", ("chat.participant_added", {"user_id": "x" * 9_000_000}))
    other = scene.chat("other")
    scene.build()
    change = {"participants": [], "foreign": "y" * 9_000_000}
    scene.chats.update_one({"chat_id": chat_id}, {"$set": change})
    scene.chats.update_one({"chat_id": other}, {"$set": {"title": "damaged"}})
    summary = scene.rebuild("chat")

    assert writes(summary) == {"inserted": 0, "replaced": 1, "deleted": 0, "failed": 1}
    assert {item.aggregate_id: item.reason for item in summary.findings} == {chat_id: "write_refused", other: None}
    assert found_in(scene.chats, {"chat_id": chat_id})["participants"] == []
    assert scene.verify_one(other, "chat").ok


def test_reordered_arrays_are_damage_and_reordered_fields_are_none(scene: Scene) -> None:
    scene.index()
    chat_id = scene.chat("one", *[("chat.participant_added", {"user_id": user}) for user in "abc"])
    scene.build()
    document = taken_from(scene.chats, {"chat_id": chat_id})
    items = list(document.items())
    Random(1).shuffle(items)
    scene.chats.insert_one(dict(items))
    assert scene.verify("chat").ok

    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"participants": ["b", "a", "c"]}})
    (found_one,) = scene.verify("chat").findings
    assert found_one.fields == {"participants": (["a", "b", "c"], ["b", "a", "c"])}
    assert scene.rebuild("chat").ok
    assert scene.verify("chat").ok
