"""Values that the driver gives back as something else, or not at all: each is told alone, and every other one is done.

They are written byte by byte, for the driver cannot write them either.
"""

from typing import Any

import bson
import pytest
from bson import Code, ObjectId
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.errors import WrongAggregateType
from readmodel_pipelines.events.exact import Repeated, read
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines_tests.support.grammar import Fields, encoded, string
from readmodel_pipelines_tests.support.scene import BOTH, FindingOf, Scene, found_in, taken_from, uuid
from readmodel_pipelines_tests.support.stored_values import NULL, Value

pytestmark = pytest.mark.each_once

BAD = "99999999-0000-4000-a000-000000000000"
CREATED: Fields = [("type", string("bug")), ("created_at", string("2026-03-01T08:00:00Z"))]


def nested(levels: int) -> Value:
    value = Value("int", 1)
    for _ in range(levels):
        value = Value("document", [("a", value)])
    return value


ODD = {
    "symbol": Value("symbol", "x"),
    "symbol of a UUID": Value("symbol", BAD),
    "undefined": Value("undefined", None),
    "DBPointer": Value("dbPointer", ("a.b", bytes(12))),
    "code": Value("code", "x"),
    "code of a UUID": Value("code", BAD),
    "null": NULL,
    "text of no UTF-8": Value("broken string", b"\xff\xfe"),
    "symbol of no UTF-8": Value("symbol", b"\xff"),
    "pattern of no UTF-8": Value("regex", b"\xff\0i"),
    "code of no UTF-8": Value("code", b"\xff"),
    "binary of a wrong inner length": Value("binary", b"\x02\x63\0\0\0abc"),
    "reference": Value("document", [("$ref", string("c")), ("$id", Value("int", 1))]),
    "like a reference": Value("document", [("$ref", Value("int", 5))]),
    "field twice": Value("document", [("a", Value("int", 1)), ("a", Value("int", 2))]),
    "deep": nested(175),
}
NO_ID = ("undefined", "pattern of no UTF-8", "like a reference")
"""The server takes none of these for an `_id`."""


def put_stream(scene: Scene, aggregate_id: Value, *more: Fields) -> None:
    """A created event, and those that are given; each is the event's own fields over what is usual."""
    events: list[Fields] = [[("data", Value("document", CREATED))], *more]
    for version, own in enumerate(events, 1):
        event = {
            "_id": Value("objectId", str(ObjectId())),
            "aggregate_id": aggregate_id,
            "aggregate_type": string("Chat"),
            "event_type": string("chat.created" if version == 1 else "chat.renamed"),
            "version": Value("int", version),
            "data": Value("document", [("new_title", string("t"))]),
            **dict(own),
        }
        scene.raw("events").insert_one(RawBSONDocument(encoded(list(event.items()))))


def with_field(raw: bytes, name: str, value: Value, *, twice: bool = False) -> bytes:
    """The document with that value in a field, or with a second field of that name behind the others."""
    inner = b"".join(
        bson.encode({field: held})[4:-1] for field, held in bson.decode(raw).items() if twice or field != name
    )
    own = encoded([(name, value)])[4:-1]
    # The server puts an `_id` before all others.
    inner = own + inner if name == "_id" else inner + own
    return (len(inner) + 5).to_bytes(4, "little") + inner + b"\0"


def put_document(scene: Scene, name: str, key: str, field: str, value: Value, *, twice: bool = False) -> bytes:
    """Change a document as no driver would; gives its bytes."""
    own = "task_id" if name == "tasks_read_model" else "chat_id"
    raw = with_field(taken_from(scene.raw(name), {own: key}).raw, field, value, twice=twice)
    scene.raw(name).insert_one(RawBSONDocument(raw))
    return raw


def bytes_in(scene: Scene, name: str) -> list[bytes]:
    return [bytes(document.raw) for document in scene.raw(name).find()]


def test_each_odd_id_is_told_once_and_the_documents_of_its_stream_stay(
    scene: Scene, neighbours: list[str], strategy: str
) -> None:
    scene.chats.drop_index("chat_id_1")
    scene.chats.create_index("chat_id")
    template = found_in(scene.raw("chats_read_model"), {"chat_id": neighbours[0]}).raw
    stay = []
    for value in ODD.values():
        put_stream(scene, value, [])
        stay.append(with_field(with_field(template, "_id", Value("objectId", str(ObjectId()))), "chat_id", value))
        scene.raw("chats_read_model").insert_one(RawBSONDocument(stay[-1]))
    everything = [scene.verify("chat"), scene.rebuild("chat", dry_run=True), scene.rebuild("chat")]
    everything.append(scene.projector("chat").verify_versions())
    scene.events.drop_index("aggregate_id_1_version_1")
    everything.append(scene.projector("chat").verify_versions())

    for summary in everything:
        malformed = [item for item in summary.findings if item.outcome == "malformed"]
        assert {item.reason for item in malformed} == {"bad_aggregate_id"}
        assert len({repr(item.aggregate_id) for item in malformed}) == len(malformed) == len(ODD)
        assert summary.read_models["chats_read_model"].orphan == 0
    assert all(item.event_id is not None for summary in everything[:3] for item in summary.findings if item.reason)
    assert all(scene.verify_one(key, "chat").ok for key in neighbours)
    assert all(raw in bytes_in(scene, "chats_read_model") for raw in stay)


def test_a_document_with_an_odd_key_and_no_events_is_an_orphan_and_goes(
    scene: Scene, neighbours: list[str], strategy: str
) -> None:
    scene.chats.drop_index("chat_id_1")
    scene.chats.create_index("chat_id")
    template = found_in(scene.raw("chats_read_model"), {"chat_id": neighbours[0]}).raw
    for value in ODD.values():
        raw = with_field(with_field(template, "_id", Value("objectId", str(ObjectId()))), "chat_id", value)
        scene.raw("chats_read_model").insert_one(RawBSONDocument(raw))
    for summary in (scene.verify("chat"), scene.rebuild("chat", allow_deletions=True)):
        assert summary.read_models["chats_read_model"].orphan == len(ODD)
    assert scene.chats.count_documents({}) == len(neighbours)
    assert scene.verify("chat").ok


def test_a_document_is_mended_whatever_its_id_is(scene: Scene, strategy: str) -> None:
    scene.index()
    keys = {scene.chat(name): value for name, value in ODD.items() if name not in NO_ID}
    scene.build()
    scene.chats.update_many({}, {"$set": {"title": "damaged"}})
    for key, value in keys.items():
        put_document(scene, "chats_read_model", key, "_id", value)

    assert scene.rebuild("chat").read_models["chats_read_model"].replaced == len(keys)
    assert scene.verify("chat").ok
    found = {document["chat_id"]: document["_id"] for document in map(read, bytes_in(scene, "chats_read_model"))}
    assert found == {key: read(encoded([("_id", value)]))["_id"] for key, value in keys.items()}


def test_a_right_document_with_an_odd_id_stays_to_the_byte(scene: Scene, strategy: str) -> None:
    scene.index()
    key = scene.chat("good")
    scene.build()
    stay = [
        put_document(scene, name, key, "_id", value) for name, value in zip(BOTH, (NULL, ODD["symbol"]), strict=True)
    ]

    assert scene.rebuild().ok
    assert [bytes_in(scene, name) for name in BOTH] == [[raw] for raw in stay]


DIFFERENT: list[tuple[str, Value, bool]] = [
    ("title", Value("symbol", "good"), False),
    ("severity", Value("undefined", None), False),
    ("title", Value("code", "good"), False),
    ("title", ODD["binary of a wrong inner length"], False),
    ("title", ODD["deep"], False),
    ("attachments", Value("array", [ODD["symbol"], ODD["field twice"]]), False),
    ("title", string("good"), True),
    ("title", string("another"), True),
    ("chat_id", string("another"), True),
]
"""A field of a task whose title is good, what stands in it, and whether behind the right one."""


def test_a_value_of_another_type_or_a_field_twice_is_different_and_mended(
    scene: Scene, finding: FindingOf, strategy: str
) -> None:
    scene.index()
    keys = [scene.chat("good", id=uuid(number)) for number, _ in enumerate(DIFFERENT)]
    scene.build()
    for key, (field, value, twice) in zip(keys, DIFFERENT, strict=True):
        put_document(scene, "tasks_read_model", key, field, value, twice=twice)
    other = scene.chat("another one")

    verified = scene.verify("task")
    for key, (field, value, twice) in zip(keys, DIFFERENT, strict=True):
        found = finding(verified, key)
        assert (found.outcome, list(found.fields)) == ("different", [field]), value
        assert isinstance(found.fields[field][1], Repeated) == twice, value
    assert scene.rebuild("task", dry_run=True).read_models["tasks_read_model"].replaced == len(keys)
    assert scene.rebuild("task").read_models["tasks_read_model"].replaced == len(keys)
    assert scene.verify("task").ok
    assert scene.rebuild_one(other, "task").ok
    stored = [read(raw) for raw in bytes_in(scene, "tasks_read_model")]
    assert not any(isinstance(held, Repeated) for document in stored for held in document.values())


def test_a_document_whose_key_stands_twice_gives_way_when_its_chat_alone_is_done(
    scene: Scene, neighbours: list[str]
) -> None:
    key, other = neighbours
    scene.build()
    for name, field in zip(BOTH, ("chat_id", "task_id"), strict=True):
        put_document(scene, name, key, field, string("another"), twice=True)
    found = [(finding.read_model, finding.outcome) for finding in scene.verify_one(key).findings]

    assert found == [(name, "missing") for name in BOTH]
    assert scene.rebuild_one(key).ok
    assert scene.verify_one(key).ok
    assert scene.verify_one(other).ok
    assert scene.verify().ok


def test_a_field_twice_is_mended_where_the_id_is_null_too(scene: Scene, neighbours: list[str], strategy: str) -> None:
    put_document(scene, "chats_read_model", neighbours[0], "_id", NULL)
    put_document(scene, "chats_read_model", neighbours[0], "title", string("another"), twice=True)

    assert scene.rebuild("chat").ok
    assert scene.verify("chat").ok
    stored = [read(raw) for raw in bytes_in(scene, "chats_read_model")]
    assert not any(isinstance(held, Repeated) for document in stored for held in document.values())


ODD_EVENTS: dict[str, tuple[Fields, str]] = {
    "symbol for a text": ([("data", Value("document", [("new_title", ODD["symbol"])]))], "bad_field"),
    "code for a text": ([("data", Value("document", [("new_title", ODD["code"])]))], "bad_field"),
    "undefined for a text": ([("data", Value("document", [("new_title", ODD["undefined"])]))], "bad_field"),
    "DBPointer for a text": ([("data", Value("document", [("new_title", ODD["DBPointer"])]))], "bad_field"),
    "undefined for data": ([("data", ODD["undefined"])], "bad_data"),
    "DBPointer for data": ([("data", ODD["DBPointer"])], "bad_data"),
    "reference for a text": ([("data", Value("document", [("new_title", ODD["reference"])]))], "bad_field"),
    "broken binary for data": ([("data", ODD["binary of a wrong inner length"])], "bad_data"),
    "undefined for a version": ([("version", ODD["undefined"])], "bad_version"),
    "symbol for an event type": ([("event_type", Value("symbol", "chat.renamed"))], "unknown_event_type"),
    "code for an event type": ([("event_type", Value("code", "chat.renamed"))], "unknown_event_type"),
    "code for an aggregate type": ([("aggregate_type", Value("code", "Chat"))], "bad_field"),
    "symbol for an aggregate type": ([("aggregate_type", Value("symbol", "chat"))], "bad_field"),
    "array for an aggregate type": ([("aggregate_type", Value("array", [string("Chat")]))], "bad_field"),
}


@pytest.mark.parametrize("allowed", [False, True])
def test_an_odd_value_in_an_event_makes_its_stream_malformed_and_no_other(
    scene: Scene, neighbours: list[str], strategy: str, allowed: bool
) -> None:
    keys = {f"aaaaaaaa-0000-4000-a000-{number:012d}": name for number, name in enumerate(ODD_EVENTS)}
    for key, name in keys.items():
        # Versions that are out of the way, where that is what is odd.
        put_stream(scene, string(key), [], ODD_EVENTS[name][0])
    good = "bbbbbbbb-0000-4000-a000-000000000000"
    put_stream(scene, string(good), [("data", ODD["like a reference"])], [("data", ODD["reference"])])
    let = frozenset({"unknown_event_type"} if allowed else set())
    projector = scene.projector("task", allow_malformed=let)
    for summary in (projector.verify_all(), projector.rebuild_all(strategy=scene.strategy)):
        malformed = {item.aggregate_id: str(item.reason) for item in summary.findings if item.outcome == "malformed"}
        wanted = {key: ODD_EVENTS[name][1] for key, name in keys.items()}
        # An undefined version comes before all others, and is met first.
        assert malformed == wanted
    assert all(scene.verify_one(key).read_models["tasks_read_model"].same for key in (*neighbours, good))


def test_a_symbol_that_is_like_an_id_disturbs_no_stream_of_that_id(
    scene: Scene, plain_index: None, strategy: str
) -> None:
    key = scene.chat("good")
    put_stream(scene, Value("symbol", key), [], [], [])
    summary = scene.rebuild("chat")

    assert (summary.read_models["chats_read_model"].malformed, summary.read_models["chats_read_model"].inserted) == (
        1,
        1,
    )
    assert scene.verify_one(key, "chat").ok
    scene.chats.delete_many({"chat_id": key})
    assert scene.rebuild_one(key, "chat").ok
    assert found_in(scene.chats, {"chat_id": key})["title"] == "good"


def test_in_a_bucket_symbols_are_found(scene: Scene) -> None:
    scene.index()
    scene.chat("good")
    put_stream(scene, ODD["symbol"], [])
    template = {"_id": 1, "chat_id": "x"}
    raw = with_field(bson.encode(template), "chat_id", Value("symbol", "y"))
    scene.raw("chats_read_model").insert_one(RawBSONDocument(raw))
    summary = scene.projector("chat").verify_some(lambda _: [[]], odd_ids=True)

    assert {str(item.outcome) for item in summary.findings} == {"malformed", "orphan"}


def test_the_tier_of_versions_finds_documents_with_a_symbol_as_key(scene: Scene) -> None:
    scene.index()
    scene.chat("good")
    scene.build()
    for name, key in (("chats_read_model", "chat_id"), ("tasks_read_model", "task_id")):
        for text in ("a", "z"):
            raw = with_field(bson.encode({"_id": text, "chat_id": text}), key, Value("symbol", text))
            scene.raw(name).insert_one(RawBSONDocument(raw))
    found = {(item.read_model, str(item.outcome), item.reason) for item in scene.projector().verify_versions().findings}
    assert found == {(name, "orphan", "odd_key") for name in ("chats_read_model", "tasks_read_model")}
    assert [counts.orphan for counts in scene.projector().verify_versions().read_models.values()] == [2, 2]


@pytest.mark.parametrize("value", [Code("Chat"), ["Chat"], 5, None], ids=repr)
def test_process_event_refuses_an_aggregate_type_that_is_no_text(scene: Scene, value: Any) -> None:
    with pytest.raises(WrongAggregateType):
        scene.projector().process_event({"aggregate_id": uuid("x"), "aggregate_type": value, "version": 1})


def test_all_fields_that_stand_twice_are_told_and_mended_beside_a_name_with_a_dollar(
    scene: Scene, neighbours: list[str], strategy: str
) -> None:
    twice = ("title", "type", "created_by", "workspace_id", "is_public", "created_at", "participants")
    raw = taken_from(scene.raw("chats_read_model"), {"chat_id": neighbours[0]}).raw
    more = encoded([("$odd", string("kept")), *((name, string("another")) for name in twice)])[4:-1]
    changed = (len(raw) + len(more)).to_bytes(4, "little") + raw[4:-1] + more + b"\0"
    scene.raw("chats_read_model").insert_one(RawBSONDocument(changed))

    (finding,) = scene.verify_one(neighbours[0], "chat").findings
    assert {*finding.fields} == {*twice}
    assert scene.rebuild("chat").ok
    assert scene.verify("chat").ok
    assert any(b"$odd\0" in document for document in bytes_in(scene, "chats_read_model"))


def test_a_read_model_without_indexes_is_mended_whatever_the_id_of_its_first_document_is(
    scene: Scene, neighbours: list[str], strategy: str
) -> None:
    scene.chats.drop_indexes()
    scene.chats.delete_many({"chat_id": {"$ne": neighbours[0]}})
    put_document(scene, "chats_read_model", neighbours[0], "_id", ODD["text of no UTF-8"])

    assert scene.rebuild("chat").ok
    assert scene.verify("chat").ok


@pytest.mark.parametrize("name", ["text of no UTF-8", "symbol of a UUID", "pattern of no UTF-8"])
def test_ranges_are_planned_by_ids_that_can_be_asked_for(scene: Scene, name: str) -> None:
    scene.index()
    chat_id = scene.chat("one")
    put_stream(scene, ODD[name], [])
    (fold, *_) = {projection.fold for projection in projections_for(scene.settings)}

    assert {*EventStore(scene.events).sample(fold, 100)} == {chat_id}
