"""A rebuild in a shadow: what it carries over, what it refuses, the swap, and the way back."""

import threading
from dataclasses import replace
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from readmodel_pipelines.cutover.definition import ShadowFailed
from readmodel_pipelines.cutover.foreign import ForeignFollower
from readmodel_pipelines.cutover.swap import swap
from readmodel_pipelines.errors import NoCopy
from readmodel_pipelines.moments import Moment, listening
from readmodel_pipelines.mongo.changes import token_of_now
from readmodel_pipelines.projections import registry
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.rebuild import RebuildRequest, abort, gate, rebuild, roll_back
from readmodel_pipelines_tests.support.at_a_moment import At, each, killed_at, once
from readmodel_pipelines_tests.support.built import fence
from readmodel_pipelines_tests.support.scene import Scene, found_in, taken_from
from readmodel_pipelines_tests.support.verbs.rebuilding import OTHER_TITLE, copies, in_shadow
from readmodel_pipelines_tests.support.verbs.verifying import SINCE_LAST, found, look


def test_every_byte_of_a_healthy_read_model_is_the_same_after_it(scene: Scene) -> None:
    scene.fill(30)
    before = scene.dump()
    assert in_shadow(scene).ok
    after = scene.dump()
    for name in ("chats_read_model", "tasks_read_model"):
        assert {key: bson.decode(raw) for key, raw in after[name].items()} == {
            key: bson.decode(raw) for key, raw in before[name].items()
        }


def test_indexes_options_and_validators_are_those_of_the_live_collection(scene: Scene) -> None:
    validator = {"$jsonSchema": {"required": ["chat_id"]}}
    scene.database.create_collection("chats_read_model", validator=validator, validationLevel="moderate")
    scene.chats.create_index([("workspace_id", 1), ("title", -1)], name="by_workspace", sparse=True)
    scene.fill(10)
    indexes, options = scene.chats.index_information(), scene.chats.options()
    assert in_shadow(scene).ok
    assert (scene.chats.index_information(), scene.chats.options()) == (indexes, options)


def test_a_read_model_without_its_unique_indexes_has_them_after_it(scene: Scene) -> None:
    scene.fill(10)
    scene.tasks.drop_indexes()
    assert in_shadow(scene, "task").ok
    unique = [list(index["key"]) for index in scene.tasks.list_indexes() if index.get("unique")]
    assert sorted(unique) == [["chat_id"], ["task_id"]]


def test_documents_of_malformed_streams_and_odd_keys_with_events_stay_to_the_byte(scene: Scene) -> None:
    chats = scene.fill(10)
    scene.events.update_one({"aggregate_id": chats[0], "version": 1}, {"$set": {"event_type": "chat.exploded"}})
    scene.put((1, "chat.created", {}), aggregate_id=7)
    scene.chats.insert_one({"chat_id": 7, "odd": True})
    text = bson.encode({"_id": 1, "chat_id": chats[0], "note": "xx"}).replace(b"xx", b"\xff\xfe")
    scene.chats.delete_one({"chat_id": chats[0]})
    scene.database.chats_read_model.insert_one(RawBSONDocument(text))
    kept = {"chat_id": {"$in": [chats[0], 7]}}
    before = [item.raw for item in scene.raw("chats_read_model").find(kept).sort("_id")]
    summary = in_shadow(scene)
    assert summary.about["state"] == "done"
    assert summary.read_models["chats_read_model"].malformed == 2
    assert [item.raw for item in scene.raw("chats_read_model").find(kept).sort("_id")] == before


def test_what_is_missing_different_or_not_wanted_is_made_right(scene: Scene) -> None:
    chats = scene.fill(20)
    right = scene.everything()
    scene.chats.delete_one({"chat_id": chats[0]})
    scene.chats.update_one({"chat_id": chats[1]}, {"$set": {"title": 7}})
    scene.chats.insert_one({"chat_id": "00000000-0000-4000-8000-00000000dead"})
    summary = in_shadow(scene, "chat")
    counts = summary.read_models["chats_read_model"]
    assert (counts.inserted, counts.replaced, counts.deleted, counts.same) == (1, 1, 1, 18)
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"not_ours": {"deep": [1, {"kept": "yes"}], "none": None}}})
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"z_index": 7.0}})
    assert scene.everything() == right


def test_an_owned_field_that_nobody_wants_is_not_taken_over(scene: Scene) -> None:
    scene.fill(10)
    right = scene.everything()
    without = found_in(scene.chats, {"due_date": {"$exists": False}})
    scene.chats.update_one({"_id": without["_id"]}, {"$set": {"due_date": None}})
    summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert scene.everything() == right


def test_a_unique_key_held_by_a_malformed_document_leaves_the_live_collection_as_it_is(scene: Scene) -> None:
    chats = sorted(document["task_id"] for document in (scene.fill(10), scene.tasks.find())[1])
    scene.events.update_one({"aggregate_id": chats[0], "version": 1}, {"$set": {"event_type": "chat.exploded"}})
    taken = taken_from(scene.tasks, {"task_id": chats[1]})
    scene.tasks.update_one({"task_id": chats[0]}, {"$set": {"chat_id": taken["chat_id"]}})
    before = scene.dump()["tasks_read_model"]
    with pytest.raises(ShadowFailed):
        in_shadow(scene, "task")
    assert scene.dump()["tasks_read_model"] == before


# The gate


def test_the_gate_refuses_a_shadow_that_a_bug_made_wrong(scene: Scene, at: At) -> None:
    scene.fill(20)
    before = scene.everything()
    built = scene.database["readmodel_shadow_chats_read_model"]
    at(Moment.SHADOW_INDEXES, each(lambda: built.update_many({}, {"$set": {"title": "wrong"}})))
    summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"]) == (False, "refused")
    assert any("differs from the events" in warning for warning in summary.warnings)
    assert any(item.failed and "title" in item.fields for item in summary.findings)
    assert scene.everything() == before
    assert copies(scene) == ["readmodel_shadow_chats_read_model"]


def test_the_gate_goes_by_more_suspects_than_it_holds(scene: Scene, at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(10)
    before = scene.everything()
    monkeypatch.setattr(gate, "_MOST", 3)
    built = scene.database["readmodel_shadow_chats_read_model"]
    right = scene.chats.find().sort("chat_id", 1).to_list()

    def mend_what_is_held() -> None:
        for document in right[:3]:
            built.replace_one({"_id": document["_id"]}, document)

    at(Moment.GATE, each(lambda: built.update_many({}, {"$set": {"title": "wrong"}})))
    at(Moment.COMPARISON_AGAIN, once(mend_what_is_held))
    assert in_shadow(scene, "chat").about["state"] == "refused"
    assert scene.everything() == before


def test_an_event_that_is_mended_while_the_shadow_is_verified_is_no_fault_of_the_projection(
    scene: Scene, at: At
) -> None:
    chats = scene.fill(10)
    scene.append(chats[0], OTHER_TITLE)

    def mend() -> None:
        mended = {"$set": {"data.new_title": "mended"}}
        scene.events.update_one({"aggregate_id": chats[0], "data.new_title": "Told meanwhile"}, mended)

    at(Moment.GATE, once(mend))
    assert in_shadow(scene, "chat").about["state"] == "done"
    assert found_in(scene.chats, {"chat_id": chats[0]})["title"] == "mended"
    assert scene.verify("chat").ok


def test_a_changed_projection_is_swapped_in(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill(20)

    def shouting(aggregate_id: str, state: Any) -> Any:
        document = CHATS.document(aggregate_id, state)
        return document and {**document, "title": document["title"].upper()}

    changed = replace(CHATS, document=shouting, schema_version=2)
    monkeypatch.setattr(registry, "CHATS", changed)
    titles = {item["chat_id"]: item["title"] for item in scene.chats.find()}
    summary = in_shadow(scene, "chat")
    assert summary.ok
    assert {item["chat_id"]: item["title"] for item in scene.chats.find()} == {
        chat_id: title.upper() for chat_id, title in titles.items()
    }
    record = found_in(scene.database.readmodel_rebuilds, {"kind": "rebuild"})
    assert record["schema_versions"] == {"chats_read_model": 2}


def test_a_busy_stream_is_no_reason_to_refuse(scene: Scene) -> None:
    chats = scene.fill(10)

    def grow() -> None:
        scene.append(chats[0], OTHER_TITLE)

    with listening(Moment.LOOK, each(grow)), listening(Moment.COMPARISON_AGAIN, each(grow)):
        summary = in_shadow(scene, "chat")
    assert (summary.ok, summary.about["state"]) == (True, "done")
    assert scene.verify("chat").ok


def test_what_an_application_does_to_the_document_of_a_malformed_stream_comes_along(scene: Scene, at: At) -> None:
    chats = scene.fill(10)

    def write() -> None:
        scene.append(chats[0], ("chat.exploded", {}))
        scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"title": "a guess of the application"}})

    at(Moment.SHADOW_INDEXES, each(write))
    summary = in_shadow(scene, "chat")
    assert summary.about["state"] == "done"
    assert found_in(scene.chats, {"chat_id": chats[0]})["title"] == "a guess of the application"
    assert scene.chats.count_documents({}) == 10


# Around the swap


def test_foreign_fields_written_right_before_the_swap_come_along(scene: Scene, at: At) -> None:
    chats = scene.fill(8)
    scene.chats.update_many({}, {"$set": {"list": [1, 2, 3, 4], "deep": {"a": 1, "b": 2}}})

    def write() -> None:
        scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"late": 1}, "$unset": {"z_index": ""}})
        scene.chats.update_one({"chat_id": chats[1]}, {"$set": {"deep.a": 9}})
        scene.chats.update_one({"chat_id": chats[2]}, {"$pop": {"list": 1}})
        scene.chats.update_one({"chat_id": chats[3]}, [{"$set": {"list": {"$slice": ["$list", 2]}}}])
        whole = found_in(scene.chats, {"chat_id": chats[4]}, {"_id": 0})
        scene.chats.replace_one({"chat_id": chats[4]}, {**whole, "replaced": True})

    at(Moment.SWAP, once(write))
    assert in_shadow(scene, "chat").ok
    now = {item["chat_id"]: item for item in scene.chats.find()}
    assert (now[chats[0]]["late"], "z_index" in now[chats[0]]) == (1, False)
    assert now[chats[1]]["deep"] == {"a": 9, "b": 2}
    assert now[chats[2]]["list"] == [1, 2, 3]
    assert now[chats[3]]["list"] == [1, 2]
    assert now[chats[4]]["replaced"] is True
    assert scene.verify().ok


def test_an_event_and_its_projection_right_before_the_swap_are_not_lost(scene: Scene, at: At) -> None:
    chats = scene.fill(8)

    def write() -> None:
        scene.append(chats[0], OTHER_TITLE)
        scene.rebuild_one(chats[0])
        scene.chat("brand new")
        scene.append(chats[1], OTHER_TITLE)

    at(Moment.SWAP, once(write))
    assert in_shadow(scene).ok
    assert found_in(scene.chats, {"chat_id": chats[0]})["title"] == "Told meanwhile"
    assert scene.verify().ok


def test_no_reader_ever_counts_fewer_documents(scene: Scene) -> None:
    scene.fill(40)
    stop = threading.Event()
    counted: list[int] = []
    trouble: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                counted.append(sum(1 for _ in scene.database.chats_read_model.find({}, {"_id": 1}, batch_size=7)))
            except OperationFailure as error:
                # An open cursor dies with the collection that it reads; a retry reads the new one.
                trouble.append(str(error.code))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        assert in_shadow(scene).ok
    stop.set()
    for reader in readers:
        reader.join()
    assert set(counted) == {40}
    assert set(trouble) <= {"175"}


def test_foreign_changes_are_followed_to_the_renaming_and_no_further(scene: Scene) -> None:
    chats = scene.fill(3)
    follower = ForeignFollower(scene.chats, CHATS, token_of_now(scene.chats))
    scene.chats.update_many({}, {"$set": {"noted": 1}})
    scene.database.other.insert_many(list(scene.chats.find()))
    scene.database.other.update_many({}, {"$unset": {"noted": ""}})
    swap(scene.database, fence(scene.database, "other"), "chats_read_model", scene.settings)
    scene.chats.update_many({}, {"$set": {"later": 1}})
    scene.chats.update_one({"chat_id": chats[0]}, {"$set": {"noted": 2}})
    assert follower.apply(scene.chats) == 3
    assert scene.chats.count_documents({"noted": 1, "later": 1}) == 2
    assert found_in(scene.chats, {"chat_id": chats[0]})["noted"] == 2, "what came after the renaming stays"
    follower.close()


# The way back


def test_a_rollback_puts_back_what_was_before_and_catches_up(scene: Scene) -> None:
    chats = scene.fill(10)
    scene.chats.update_one({"chat_id": chats[2]}, {"$set": {"title": "as it was"}})
    rebuilt = in_shadow(scene, "chat").about["rebuild"]
    assert copies(scene) == ["readmodel_before_chats_read_model"]
    indexes = scene.chats.index_information()
    scene.append(chats[0], OTHER_TITLE)
    summary = roll_back(scene.database, scene.settings, rebuilt)
    assert summary.about["state"] == "rolled_back"
    assert found_in(scene.chats, {"chat_id": chats[2]})["title"] == "as it was"
    assert found_in(scene.chats, {"chat_id": chats[0]})["title"] == "Told meanwhile"
    assert scene.chats.index_information() == indexes
    assert copies(scene) == []


def test_a_rollback_tells_each_document_that_it_puts_back_wrong(scene: Scene) -> None:
    chats = scene.fill(10)
    in_shadow(scene)
    scene.chats.update_one({"chat_id": chats[1]}, {"$set": {"title": "was wrong"}})
    scene.tasks.insert_one({"task_id": "nobody", "chat_id": "nobody"})
    scene.chats.delete_one({"chat_id": chats[2]})
    rebuilt = in_shadow(scene).about["rebuild"]
    assert scene.verify().ok

    summary = roll_back(scene.database, scene.settings, rebuilt)
    assert not summary.ok
    assert (
        found(summary)
        == found(scene.verify())
        == {
            ("chats_read_model", chats[1], "different"),
            ("chats_read_model", chats[2], "missing"),
            ("tasks_read_model", "nobody", "orphan"),
        }
    )
    assert all(item.failed for item in summary.findings)
    assert [counts.failed for counts in summary.read_models.values()] == [2, 1]


def test_a_rollback_tells_a_document_that_was_stale_and_is_repaired_since(scene: Scene) -> None:
    chats = scene.fill(10)
    scene.append(chats[0], OTHER_TITLE)
    with listening(Moment.COPY_MADE, once(lambda: scene.append(chats[3], OTHER_TITLE))):
        rebuilt = in_shadow(scene, "chat").about["rebuild"]
    summary = roll_back(scene.database, scene.settings, rebuilt)
    # What came after the copy is caught up with; what it lacked, and the rebuild wrote, is told.
    assert found(summary) == {("chats_read_model", chats[0], "different")}
    assert found_in(scene.chats, {"chat_id": chats[3]})["title"] == "Told meanwhile"


def test_what_a_rollback_puts_back_is_looked_at_by_the_next_verification_of_what_changed(scene: Scene) -> None:
    chats = scene.fill(10)
    scene.chats.update_one({"chat_id": chats[1]}, {"$set": {"title": "was wrong"}})
    rebuilt = in_shadow(scene).about["rebuild"]
    for _ in range(2):
        assert look(scene, coverage=SINCE_LAST).ok
    roll_back(scene.database, scene.settings, rebuilt)
    assert found(look(scene, coverage=SINCE_LAST)) == {("chats_read_model", chats[1], "different")}


def test_a_rollback_to_an_older_schema_calls_none_of_its_fields_wrong(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = scene.fill(10)
    in_shadow(scene, "chat")
    newer = replace(CHATS, schema_version=2, document=lambda *chat: {**(CHATS.document(*chat) or {}), "type": "TYPE"})
    monkeypatch.setattr(registry, "CHATS", newer)
    rebuilt = in_shadow(scene, "chat").about["rebuild"]
    assert found_in(scene.chats, {"chat_id": chats[0]})["type"] == "TYPE"
    summary = roll_back(scene.database, scene.settings, rebuilt)
    counts = summary.read_models["chats_read_model"]
    assert (summary.ok, counts.different, counts.failed) == (True, 10, 0)
    assert summary.warnings


def test_only_the_last_copy_is_kept_and_none_where_it_is_not_wanted(scene: Scene) -> None:
    scene.fill(5)
    first, _ = (in_shadow(scene, "chat").about["rebuild"] for _ in range(2))
    assert copies(scene) == ["readmodel_before2_chats_read_model"]
    with pytest.raises(NoCopy):
        roll_back(scene.database, scene.settings, first)
    scene.settings = scene.settings.model_copy(update={"keep_copy": False})
    third = in_shadow(scene, "chat").about["rebuild"]
    assert copies(scene) == []
    with pytest.raises(NoCopy):
        roll_back(scene.database, scene.settings, third)


def test_a_copy_of_a_later_moment_is_never_put_back_for_an_older_rebuild(scene: Scene) -> None:
    scene.fill(5)
    first = in_shadow(scene, "chat").about["rebuild"]
    with killed_at(Moment.COPY_MADE):
        in_shadow(scene, "chat")
    with pytest.raises(NoCopy):
        roll_back(scene.database, scene.settings, first)
    (unfinished,) = scene.database.readmodel_rebuilds.find({"state": "finishing"})
    abort(scene.database, scene.settings, unfinished["_id"])
    assert copies(scene) == []
    with pytest.raises(NoCopy):
        roll_back(scene.database, scene.settings, first)


def test_a_rebuild_of_one_read_model_drops_all_that_the_one_of_both_built_which_it_gives_up(scene: Scene) -> None:
    scene.fill(5)
    with killed_at(Moment.FINISH):
        in_shadow(scene)
    assert copies(scene) == ["readmodel_shadow_chats_read_model", "readmodel_shadow_tasks_read_model"]
    assert rebuild(scene.database, scene.settings, ["chat"], RebuildRequest()).ok
    assert copies(scene) == []
    assert scene.verify().ok
