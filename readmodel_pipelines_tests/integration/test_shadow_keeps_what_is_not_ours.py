"""What a shadow takes from the live collection without a change: foreign fields, options, documents that are right."""

from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from readmodel_pipelines.cutover import shadow
from readmodel_pipelines.cutover.definition import Like, create_like, index_like
from readmodel_pipelines.cutover.foreign import ForeignFollower
from readmodel_pipelines.cutover.swap import swap
from readmodel_pipelines.moments import Moment
from readmodel_pipelines.mongo.changes import token_of_now
from readmodel_pipelines.mongo.fenced import Fence
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines_tests.support.at_a_moment import At, Killed, dying, each, killed_at, once
from readmodel_pipelines_tests.support.built import Alone, fence, fenced
from readmodel_pipelines_tests.support.scene import Scene, found_in
from readmodel_pipelines_tests.support.verbs.rebuilding import copies, in_shadow

ANY_TEXT: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, unicode_decode_error_handler="surrogateescape"
)

# As BSON has them: the driver gives back none of these as it was, or cannot say them in an update.
FOREIGN_FIELDS = {
    "a text that is no UTF-8": b"\x02text\x00\x04\x00\x00\x00a\xff\xfe\x00",
    "undefined": b"\x06undefined\x00",
    "a symbol": b"\x0esymbol\x00\x04\x00\x00\x00abc\x00",
    "a DBPointer": b"\x0cpointer\x00\x02\x00\x00\x00a\x00" + b"0" * 12,
    "code with a scope": bson.encode({"code": bson.Code("x", {"a": 1})})[4:-1],
    "undefined in a document": b"\x03deep\x00\x08\x00\x00\x00\x06u\x00\x00",
    "a name with a dot": b"\x10a.b\x00\x05\x00\x00\x00",
    "a name with a dollar": b"\x10$name\x00\x05\x00\x00\x00",
}


def add_raw(collection: Collection[Any], chat_id: str, fields: bytes) -> None:
    raw = collection.with_options(codec_options=ANY_TEXT)
    stored = found_in(raw, {"chat_id": chat_id})
    body = bytes(stored.raw[4:-1]) + fields + b"\x00"
    document = RawBSONDocument((len(body) + 4).to_bytes(4, "little") + body, ANY_TEXT)
    raw.delete_one({"_id": stored["_id"]})
    raw.insert_one(document)


def raw_of(collection: Collection[Any], chat_id: str) -> bytes:
    return bytes(found_in(collection.with_options(codec_options=ANY_TEXT), {"chat_id": chat_id}).raw)


@pytest.fixture
def built(scene: Scene) -> Collection[Any]:
    """A shadow of the chats as a rebuild makes it, with indexes."""
    scene.fill(6)
    (made,) = shadow.copy_on_server(scene.database, [Like("chats_read_model", ["built"])], Alone())
    index_like(scene.database, "chats_read_model", made, CHATS)
    return scene.database["built"]


@pytest.mark.parametrize("fields", FOREIGN_FIELDS.values(), ids=FOREIGN_FIELDS)
def test_every_foreign_field_comes_along_to_the_byte(scene: Scene, fields: bytes) -> None:
    right, different, *_ = scene.fill(6)
    for chat_id in (right, different):
        add_raw(scene.chats, chat_id, fields)
    scene.chats.update_one({"chat_id": different}, {"$set": {"title": "damaged"}, "$unset": {"participants": ""}})
    before = raw_of(scene.chats, right)
    assert in_shadow(scene).ok
    assert raw_of(scene.chats, right) == before
    assert fields in raw_of(scene.chats, different)
    assert scene.verify().ok


@pytest.mark.parametrize("fields", FOREIGN_FIELDS.values(), ids=FOREIGN_FIELDS)
def test_every_foreign_field_written_meanwhile_comes_along(scene: Scene, built: Collection[Any], fields: bytes) -> None:
    chat_id, other = (item["chat_id"] for item in scene.chats.find().limit(2))
    add_raw(scene.chats, chat_id, fields)
    scene.chats.update_one({"chat_id": chat_id}, {"$unset": {"z_index": ""}, "$set": {"title": "not of the events"}})
    built.update_one({"chat_id": chat_id}, {"$set": {"title": "of the events"}, "$unset": {"participants": ""}})
    untouched = raw_of(built, other)
    shadow.sync_foreign(scene.chats, fenced(scene.database, built.name), CHATS, {"chat_id": chat_id})
    assert fields in raw_of(built, chat_id)
    now = built.find_one({"chat_id": chat_id}, {"title": 1, "participants": 1, "z_index": 1, "_id": 0})
    assert now == {"title": "of the events"}, "owned fields stay, and a foreign field that is gone goes"
    assert raw_of(built, other) == untouched


def test_a_foreign_field_that_stands_twice_comes_along_and_ends_no_server(scene: Scene, built: Collection[Any]) -> None:
    chat_id = found_in(scene.chats, {})["chat_id"]
    for collection in (scene.chats, built):
        add_raw(collection, chat_id, b"".join(FOREIGN_FIELDS.values()) + 2 * b"\x10twice\x00\x05\x00\x00\x00")
    scene.chats.update_one({"chat_id": chat_id}, {"$set": {"twice": 6, "title": "not of the events"}})
    shadow.sync_foreign(scene.chats, fenced(scene.database, built.name), CHATS, {"chat_id": chat_id})
    stored = raw_of(built, chat_id)
    assert b"".join(FOREIGN_FIELDS.values()) in stored
    assert b"\x10twice\x00\x06\x00\x00\x00\x10twice\x00\x05\x00\x00\x00" in stored
    assert b"not of the events" not in stored


def test_a_copy_takes_a_document_that_was_inserted_again_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_id, *_ = scene.fill(6)
    stored = found_in(scene.raw(scene.chats.name), {"chat_id": chat_id})

    def created(*arguments: Any) -> list[Fence]:
        (made,) = create_like(*arguments)
        # The server has copied it, then it is deleted and inserted again, and comes past once more.
        scene.raw(made.name).insert_one(stored)
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"title": "of now"}})
        return [made]

    monkeypatch.setattr("readmodel_pipelines.cutover.shadow.create_like", created)
    (made,) = shadow.copy_on_server(scene.database, [Like(scene.chats.name, ["copy"])], Alone())
    assert scene.contents(made.name) == scene.contents(scene.chats.name)


@pytest.fixture
def late(scene: Scene, built: Collection[Any]) -> Iterator[ForeignFollower]:
    """Follows the chats from now on, and is asked when the shadow has taken their place."""
    follower = ForeignFollower(scene.chats, CHATS, token_of_now(scene.chats))
    yield follower
    follower.close()


def set_raw(scene: Scene, chat_id: str, fields: bytes) -> None:
    """One update of the document that is there."""
    raw = RawBSONDocument((len(fields) + 5).to_bytes(4, "little") + fields + b"\x00", ANY_TEXT)
    pipeline = [{"$replaceWith": {"$mergeObjects": ["$$ROOT", {"$literal": raw}]}}]
    scene.database.chats_read_model.update_one({"chat_id": chat_id}, pipeline)


AROUND_THE_SWAP = {(write, name) for write in ("insert", "update") for name in FOREIGN_FIELDS}
# MongoDB 6.0 does not tell this from the update of a field of a document.
AROUND_THE_SWAP.remove(("update", "a name with a dot"))


@pytest.mark.parametrize(("write", "name"), sorted(AROUND_THE_SWAP))
def test_every_foreign_field_that_is_written_around_the_swap_comes_along_to_the_byte(
    scene: Scene, late: ForeignFollower, write: str, name: str
) -> None:
    fields = FOREIGN_FIELDS[name]
    chat_id = found_in(scene.chats)["chat_id"]
    if write == "insert":
        add_raw(scene.chats, chat_id, fields)
    else:
        set_raw(scene, chat_id, fields)
        scene.chats.update_one({"chat_id": chat_id}, {"$unset": {"z_index": ""}})
    wanted = scene.chats.find_one({"chat_id": chat_id})
    swap(scene.database, fence(scene.database, "built"), "chats_read_model", scene.settings)
    late.apply(scene.chats)
    assert fields in raw_of(scene.chats, chat_id)
    assert scene.chats.find_one({"chat_id": chat_id}) == wanted
    assert late.not_applied == []


def test_what_the_driver_cannot_say_around_the_swap_is_told(scene: Scene, late: ForeignFollower) -> None:
    one, other = scene.chats.find().limit(2)
    scene.chats.update_many({}, {"$set": {"deep": {"first": 1}}})
    deep = bson.encode({"deep": {"first": 1, "text": "xx"}})[4:-1].replace(b"xx", b"\xff\xfe")
    set_raw(scene, one["chat_id"], deep)
    scene.chats.update_one({"_id": other["_id"]}, {"$set": {"deep.second": 2}})
    swap(scene.database, fence(scene.database, "built"), "chats_read_model", scene.settings)
    late.apply(scene.chats)
    assert late.not_applied == [one["_id"]]
    assert found_in(scene.chats, {"_id": other["_id"]})["deep"] == {"first": 1, "second": 2}


def test_a_foreign_field_that_stands_twice_is_told_around_the_swap_and_ends_no_server(
    scene: Scene, built: Collection[Any], late: ForeignFollower
) -> None:
    document = found_in(scene.chats, {})
    for collection in (scene.chats, built):
        add_raw(collection, document["chat_id"], 2 * b"\x10twice\x00\x05\x00\x00\x00")
    scene.chats.update_one({"_id": document["_id"]}, {"$set": {"twice": 6}})
    swap(scene.database, fence(scene.database, "built"), "chats_read_model", scene.settings)
    late.apply(scene.chats)
    assert late.not_applied == [document["_id"]]


def test_a_foreign_field_that_is_written_before_and_after_the_swap_keeps_what_came_last(
    scene: Scene, late: ForeignFollower, at: At
) -> None:
    one, other = scene.chats.find().limit(2)
    for value in ("old", "older than the swap"):
        scene.chats.update_many({}, {"$set": {"seen": value, "deep": {"first": value}}})
    scene.chats.update_one({"_id": other["_id"]}, {"$set": {"deep.second": 2}})
    swap(scene.database, fence(scene.database, "built"), "chats_read_model", scene.settings)
    scene.chats.update_one({"_id": other["_id"]}, {"$set": {"seen": "newest"}})

    def write() -> None:
        scene.chats.update_one({"_id": one["_id"]}, {"$set": {"seen": "newest"}})

    # Its look at what is newer is over then.
    at(Moment.FOREIGN_APPLIED, once(write))
    late.apply(scene.chats)
    late.apply(scene.chats)
    found = {item["_id"]: (item["seen"], item["deep"]) for item in scene.chats.find()}
    first = {"first": "older than the swap"}
    assert found.pop(one["_id"]) == ("newest", first)
    assert found.pop(other["_id"]) == ("newest", {**first, "second": 2})
    assert set(map(repr, found.values())) == {repr(("older than the swap", first))}


@pytest.mark.parametrize("moment", [Moment.LEASE_ASKED_FOR, Moment.DRAINED, Moment.LAST_LOOK_DONE, Moment.SWAP])
def test_a_document_that_is_new_around_the_swap_keeps_the_foreign_fields_that_it_got_at_once(
    scene: Scene, at: At, moment: Moment
) -> None:
    scene.fill(6)
    new: list[str] = []

    def project() -> None:
        """The application makes one and writes into it."""
        new.append(scene.chat(f"new {len(new)}"))
        assert scene.rebuild_one(new[-1]).ok
        scene.chats.update_one({"chat_id": new[-1]}, {"$set": {"seen": {"by": new[-1]}}})

    at(Moment.GATE_PASSED, once(lambda: at(moment, each(project))))
    assert in_shadow(scene).ok
    at_once = {item["chat_id"]: item.get("seen") for item in scene.chats.find({"chat_id": {"$in": new}})}
    assert at_once == {chat_id: {"by": chat_id} for chat_id in new}
    assert new
    assert scene.verify().ok


def test_a_run_that_is_killed_while_it_applies_what_came_late_is_followed_by_one_that_does(
    scene: Scene, late: ForeignFollower
) -> None:
    for value in range(3):
        scene.chats.update_many({}, {"$set": {"seen": value}})
    swap(scene.database, fence(scene.database, "built"), "chats_read_model", scene.settings)
    again = ForeignFollower(scene.chats, CHATS, late.token)
    with killed_at(Moment.FOREIGN_APPLIED, 3):
        late.apply(scene.chats)
    again.apply(scene.chats)
    again.close()
    assert scene.chats.distinct("seen") == [2]


def test_a_document_that_gets_the_id_of_the_live_one_is_there_at_every_moment(
    scene: Scene, built: Collection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found_in(built)
    scene.chats.delete_one({"_id": before["_id"]})
    of_application = scene.chats.insert_one({"chat_id": before["chat_id"], "theirs": 1}).inserted_id

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shadow, "InsertOne", killed)
        with dying():
            shadow.sync_foreign(scene.chats, fenced(scene.database, built.name), CHATS, {})
    assert found_in(built, {"chat_id": before["chat_id"]}) == before
    shadow.sync_foreign(scene.chats, fenced(scene.database, built.name), CHATS, {})
    owned = {name: value for name, value in before.items() if name in CHATS.owned}
    assert found_in(built, {"chat_id": before["chat_id"]}) == {"_id": of_application, **owned, "theirs": 1}
    assert built.count_documents({}) == scene.chats.count_documents({})


def test_a_document_that_the_validator_would_refuse_by_now_comes_along(scene: Scene) -> None:
    right, different, *_ = scene.fill(6)
    scene.chats.update_many({"chat_id": {"$in": [right, different]}}, {"$set": {"old": 1}})
    scene.chats.update_one({"chat_id": different}, {"$set": {"title": "damaged"}})
    scene.database.command("collMod", "chats_read_model", validator={"old": {"$ne": 1}}, validationLevel="moderate")
    summary = in_shadow(scene)
    assert (summary.ok, summary.about["state"]) == (True, "done")
    counts = summary.read_models["chats_read_model"]
    assert (counts.same, counts.replaced, counts.failed) == (5, 1, 0)
    assert scene.chats.count_documents({"old": 1}) == 2
    assert scene.verify().ok


def test_what_the_validator_refuses_is_counted_as_failed_and_not_as_written(scene: Scene) -> None:
    missing, different, *_ = scene.fill(6)
    scene.chats.delete_one({"chat_id": missing})
    scene.chats.update_one({"chat_id": different}, {"$set": {"title": "damaged"}})
    scene.database.command("collMod", "chats_read_model", validator={"chat_id": {"$nin": [missing, different]}})
    summary = in_shadow(scene, "chat")
    counts = summary.read_models["chats_read_model"]
    assert (counts.same, counts.inserted, counts.replaced) == (4, 0, 0)
    refused = {item.aggregate_id for item in summary.findings if item.reason == "write_refused"}
    assert refused == {missing, different}
    assert summary.about["state"] == "refused"


def test_a_document_that_is_deleted_after_it_was_compared_is_in_the_shadow_all_the_same(scene: Scene, at: At) -> None:
    right, different, *_ = scene.fill(6)
    scene.chats.update_one({"chat_id": different}, {"$set": {"title": "damaged"}})
    at(Moment.SHADOW_COPY, each(lambda: scene.chats.delete_many({"chat_id": {"$in": [right, different]}})))
    assert in_shadow(scene, "chat").about["state"] == "done"
    assert scene.verify("chat").ok


def test_a_document_that_a_copy_without_a_reply_left_in_the_shadow_is_copied_as_it_is_by_now(
    scene: Scene, at: At
) -> None:
    scene.fill(6)

    def copied_before() -> None:
        (name,) = copies(scene)
        scene.chats.aggregate([{"$set": {"z_index": "as it was"}}, {"$merge": name}])

    at(Moment.SHADOW_COPY, once(copied_before))
    assert in_shadow(scene, "chat").about["state"] == "done"
    assert scene.chats.count_documents({"z_index": "as it was"}) == 0


def test_a_document_that_the_application_inserts_between_two_attempts_is_there_once(scene: Scene) -> None:
    scene.fill(6)
    chat_id = scene.chat("nobody projected it yet")
    with killed_at(Moment.BATCH_WRITTEN):
        in_shadow(scene, "chat")
    scene.rebuild_one(chat_id)
    assert in_shadow(scene, "chat", resume=True).about["state"] == "done"
    assert scene.verify("chat").ok


def test_a_copy_has_the_options_and_validators_of_the_collection(scene: Scene) -> None:
    validator = {"chat_id": {"$type": "string"}}
    scene.database.create_collection("chats_read_model", validator=validator, validationLevel="moderate")
    scene.fill(6)
    scene.database.command("collMod", "chats_read_model", validator={**validator, "title": {"$ne": "refused"}})
    scene.chats.update_one({}, {"$set": {"title": "refused"}}, bypass_document_validation=True)
    (made,) = shadow.copy_on_server(scene.database, [Like("chats_read_model", ["copy"])], Alone())
    assert made == fence(scene.database, "copy")
    assert scene.database["copy"].options() == scene.chats.options()
    assert scene.dump()["copy"] == scene.dump()["chats_read_model"]


def test_unique_foreign_fields_that_documents_exchange_meanwhile_come_along(scene: Scene, at: At) -> None:
    for number, chat_id in enumerate(scene.fill(6)):
        scene.chats.update_one({"chat_id": chat_id}, {"$set": {"z_index": number}})
    scene.chats.create_index("z_index", unique=True)

    def exchange() -> None:
        for old, new in ((0, 7), (1, 0), (2, 1), (7, 2)):
            scene.chats.update_one({"z_index": old}, {"$set": {"z_index": new}})

    at(Moment.COPY_MADE, once(exchange))
    at(Moment.GATE, once(exchange))
    assert in_shadow(scene, "chat").ok
    assert [chat["z_index"] for chat in scene.chats.find().sort("chat_id")] == [1, 2, 0, 3, 4, 5]
