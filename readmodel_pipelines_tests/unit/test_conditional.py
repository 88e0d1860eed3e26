"""The statements of conditional writes: by what documents are found, and how many statements there are."""

import pytest
from bson import ObjectId
from pymongo import UpdateMany, UpdateOne
from pymongo.operations import DeleteOne

from readmodel_pipelines.mongo.conditional import ConditionalWrites
from readmodel_pipelines.projections.chat import CHATS
from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict

KEY = "6f1b9a52-3c1d-4c6e-9a54-0c8a5b7d2e10"


def update(document_id: object, *, sharded: bool = False) -> UpdateOne:
    change = Verdict(KEY, Outcome.DIFFERENT, {"chat_id": KEY, "title": "new"}, {"_id": document_id, "chat_id": KEY})
    statement = ConditionalWrites(CHATS, sharded=sharded)(change)
    assert isinstance(statement, UpdateOne)
    return statement


@pytest.mark.parametrize("document_id", [ObjectId("65a1f0c2d3e4f5a6b7c8d9e0"), "an id", 7], ids=repr)
def test_an_update_finds_its_document_by_id_alone_which_takes_no_plan(document_id: object) -> None:
    statement = update(document_id)
    assert (statement._filter, statement._hint) == ({"_id": document_id}, None)


@pytest.mark.parametrize("document_id", [{"$eq": 1}, None, 1.5], ids=repr)
def test_an_id_that_might_be_read_as_an_operator_is_compared_as_a_value(document_id: object) -> None:
    assert update(document_id)._filter == {"_id": {"$eq": document_id}, "chat_id": KEY}


def test_where_a_collection_may_be_sharded_the_key_says_on_which_shard() -> None:
    assert update("an id", sharded=True)._filter == {"_id": {"$eq": "an id"}, "chat_id": KEY}


def test_a_deletion_names_the_key_too() -> None:
    statement = ConditionalWrites(CHATS, sharded=False)(
        Verdict(KEY, Outcome.ORPHAN, None, {"_id": "an id", "chat_id": KEY})
    )
    assert isinstance(statement, DeleteOne)
    assert {name: statement._filter[name] for name in ("_id", "chat_id")} == {"_id": {"$eq": "an id"}, "chat_id": KEY}


def change_of(document_id: object, expected: Document, actual: Document) -> Verdict:
    return Verdict(KEY, Outcome.DIFFERENT, {"chat_id": KEY, **expected}, {"_id": document_id, "chat_id": KEY, **actual})


def test_documents_that_get_the_same_fields_are_changed_by_one_statement() -> None:
    titles = [change_of(ObjectId(), {"title": f"new {number}"}, {"title": "old"}) for number in range(3)]
    both = [change_of(ObjectId(), {"title": "new", "status": "x"}, {}) for _ in range(2)]
    gone = [change_of(ObjectId(), {}, {"title": "old"}) for _ in range(2)]
    statements = ConditionalWrites(CHATS, sharded=False).together([*titles, *both, *gone])
    found = [statement._filter["_id"]["$in"] for statement in statements if isinstance(statement, UpdateMany)]
    assert found == [[(change.actual or {})["_id"] for change in some] for some in (titles, both, gone)]
    assert len(statements) == 3


def test_a_document_whose_fields_no_other_gets_has_a_statement_of_its_own() -> None:
    changes = [change_of(ObjectId(), {"title": "new"}, {}), change_of(ObjectId(), {"status": "new"}, {})]
    statements = ConditionalWrites(CHATS, sharded=False).together(changes)
    assert [type(statement) for statement in statements] == [UpdateOne] * 2


@pytest.mark.parametrize(("document_id", "sharded"), [("an id", False), (7, False), ("an id", True)])
def test_a_document_that_no_list_of_ids_finds_has_a_statement_of_its_own(document_id: object, sharded: bool) -> None:
    changes = [change_of(document_id, {"title": "new"}, {}) for _ in range(2)]
    statements = ConditionalWrites(CHATS, sharded=sharded).together(changes)
    assert [type(statement) for statement in statements] == [UpdateOne] * 2
