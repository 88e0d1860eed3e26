"""Documents that get the same fields are changed by one statement, and each only if it is as it was compared."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from readmodel_pipelines.mongo.patience import Patience, retrying
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines.reconcile.ports import Written
from readmodel_pipelines_tests.support.grammar import encoded
from readmodel_pipelines_tests.support.scene import Document, Scene, uuid
from readmodel_pipelines_tests.support.stored_values import NULL, Value

MISSING = object()
STATES: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "text": "x",
    "empty text": "",
    "number": 1,
    "another number": 2,
    "list": [1, 2],
    "longer list": [1, 2, 3],
    "list of null": [None],
    "empty list": [],
    "document": {"a": 1, "b": 2},
    "document in another order": {"b": 2, "a": 1},
    "empty document": {},
    "like an expression": "$title",
    "like a variable": "$$ROOT",
    "like an operator": {"$literal": 1},
    "like a path": {"a.b": 1},
}


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    with retrying(Patience(10, met=True)):
        yield


def with_status(key: str, value: Any) -> Document:
    return {"chat_id": key, "title": "old"} | ({} if value is MISSING else {"status": value})


def written(scene: Scene, changes: list[Verdict]) -> Written:
    return ReadModelCollection(scene.chats, CHATS).write(changes)


def test_each_document_is_changed_only_if_it_is_as_it_was_compared(scene: Scene) -> None:
    compared = [(uuid(f"{one} {other}"), one, other) for one, other in permutations(STATES, 2)]
    compared += [(uuid(name), name, name) for name in STATES]
    documents = [{"_id": ObjectId(), **with_status(key, STATES[one])} for key, one, _ in compared]
    changes = [
        Verdict(document["chat_id"], Outcome.DIFFERENT, document | {"title": "new"}, document) for document in documents
    ]
    for change in changes:
        del (change.expected or {})["_id"]
    now = [
        {"_id": document["_id"], "other": 1, **with_status(key, STATES[other])}
        for document, (key, _, other) in zip(documents, compared, strict=True)
    ]
    scene.chats.insert_many(now)
    counts = written(scene, changes).counts
    changed = {item["chat_id"] for item in scene.chats.find({"title": "new"})}
    # The order of fields counts for the server, and not for us.
    same = {key for key, one, other in compared if STATES[one] == STATES[other]}
    assert (changed, len(same)) == (same, len(STATES) + 2)
    assert (counts.replaced, counts.superseded) == (len(same), len(compared) - len(same))


def test_foreign_fields_stay_to_the_byte_even_one_that_is_there_twice(scene: Scene) -> None:
    odd = [("x", Value("int", 1)), ("x", Value("int", 2)), ("u", Value("undefined", None)), ("n", NULL)]
    changes = []
    for name in ("a", "b", "c"):
        document = {"_id": ObjectId(), "chat_id": uuid(name), "title": "old", "status": "s"}
        stored = encoded([*odd, ("_id", Value("objectId", str(document["_id"])))])
        own = {key: value for key, value in document.items() if key != "_id"}
        scene.raw("chats_read_model").insert_one(RawBSONDocument(stored))
        scene.chats.update_one({"_id": document["_id"]}, {"$set": own})
        changes.append(Verdict(uuid(name), Outcome.DIFFERENT, {"chat_id": uuid(name), "title": "new"}, document))
    before = [bytes(item.raw) for item in scene.raw("chats_read_model").find()]
    assert written(scene, changes).counts.replaced == 3
    status = encoded([("status", Value("string", "s"))])[4:-1]
    assert [bytes(item.raw)[4:] for item in scene.raw("chats_read_model").find()] == [
        raw.replace(b"\x04\0\0\0old", b"\x04\0\0\0new").replace(status, b"")[4:] for raw in before
    ]


def test_a_document_that_the_server_refuses_stops_no_other(scene: Scene) -> None:
    scene.fill(12)
    scene.database.command("collMod", "chats_read_model", validator={"title": {"$ne": "refused"}})
    documents = list(scene.chats.find({}, dict.fromkeys(("_id", *CHATS.owned), 1)))
    refused = {document["chat_id"] for document in documents[::5]}
    changes = []
    for document in documents:
        title = "refused" if document["chat_id"] in refused else "new"
        expected = {name: value for name, value in document.items() if name != "_id"} | {"title": title}
        changes.append(Verdict(document["chat_id"], Outcome.DIFFERENT, expected, document))
    told = written(scene, changes)
    assert {(key, why) for key, why, _ in told.refused} == {(key, Why.WRITE_REFUSED) for key in refused}
    assert (told.counts.replaced, told.counts.superseded) == (len(documents) - len(refused), 0)
    assert scene.chats.count_documents({"title": "new"}) == len(documents) - len(refused)


@pytest.mark.parametrize("levels", [1, 40, 45, 46, 47, 48, 60, 90])
def test_documents_are_changed_together_however_deep_they_are(scene: Scene, levels: int) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = {"a": deep}
    changes = []
    for name in ("a", "b"):
        document = {"_id": ObjectId(), "chat_id": uuid(name), "title": "old", "status": deep}
        scene.chats.insert_one(document)
        expected = {"chat_id": uuid(name), "title": "new", "status": {"b": deep}}
        changes.append(Verdict(uuid(name), Outcome.DIFFERENT, expected, document))
    assert written(scene, changes).counts.replaced == 2


@pytest.mark.parametrize("documents", [1, 2])
def test_new_values_may_be_as_deep_as_the_server_stores_them(scene: Scene, documents: int) -> None:
    deep: Any = 1
    for _ in range(170):
        deep = {"a": deep}
    many = replace(CHATS, owned=("chat_id", *map(str, range(20))))
    changes = []
    for name in ("a", "b")[:documents]:
        document = {"_id": ObjectId(), "chat_id": uuid(name)}
        scene.chats.insert_one(document)
        expected = {"chat_id": uuid(name), **dict.fromkeys(many.owned[1:], deep)}
        changes.append(Verdict(uuid(name), Outcome.DIFFERENT, expected, document))
    assert ReadModelCollection(scene.chats, many).write(changes).counts.replaced == documents


def test_no_other_document_of_a_clustered_collection_is_read_for_a_change(scene: Scene) -> None:
    scene.database.create_collection("chats_read_model", clusteredIndex={"key": {"_id": 1}, "unique": True})
    documents = [{"_id": ObjectId(), "chat_id": uuid(number), "title": "old"} for number in range(50)]
    scene.chats.insert_many(documents)
    changes = []
    for document in (documents[0], documents[-1]):
        expected = {"chat_id": document["chat_id"], "title": "new"}
        changes.append(Verdict(document["chat_id"], Outcome.DIFFERENT, expected, document))
    with scene.profiled() as work:
        assert written(scene, changes).counts.replaced == 2
    assert sum(item["docsExamined"] for item in work if item["op"] == "update") == 2


def test_documents_too_large_for_one_statement_take_several(scene: Scene) -> None:
    changes = []
    for name in ("a", "b", "c", "d"):
        document = {"_id": ObjectId(), "chat_id": uuid(name), "title": "x" * 4_000_000}
        scene.chats.insert_one(document)
        expected = {"chat_id": uuid(name), "title": "y" * 4_000_000}
        changes.append(Verdict(uuid(name), Outcome.DIFFERENT, expected, document, size=4_000_060))
    assert written(scene, changes).counts.replaced == 4
    assert scene.chats.count_documents({"title": {"$regex": "^y"}}) == 4
