"""Documents of a full pass, compared by their bytes: the outcome is that of a comparison by values."""

from typing import Any, cast

import bson
import pytest
from bson import Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.message import _OpMsg

from readmodel_pipelines.events.exact import CODEC, Repeated
from readmodel_pipelines.events.stream import Stream
from readmodel_pipelines.mongo.decoding import ExactCursor, StoredAs
from readmodel_pipelines.mongo.driver import Collection
from readmodel_pipelines.projections.chat import CHAT_FOLD, Chat
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile import join as joining
from readmodel_pipelines.reconcile.compare import same_document
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ports import ReadModel
from readmodel_pipelines_tests.support.grammar import encoded, string
from readmodel_pipelines_tests.support.stored_values import Value

ID = ObjectId(b"\x07_id\0chat_id")
KEY = "00000000-0000-4000-a000-000000000001"
TITLES = Projection(
    name="titles",
    read_model="titles",
    fold=CHAT_FOLD,
    key="chat_id",
    owned=("chat_id", "title"),
    document=lambda key, state: {"chat_id": key, "title": state.title},
)
stored_as = StoredAs("chat_id")

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2),
        st.integers(-2, 2).map(Int64),
        st.sampled_from([0.0, -0.0, 1.0, float("nan")]),
        st.integers(-2, 2).map(DatetimeMS),
        st.sampled_from(["", "a", KEY]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)


def raw_of(document: dict[str, Any]) -> bytes:
    return bson.encode({"_id": ID, **document})


@given(documents, documents, st.booleans())
def test_the_same_bytes_are_the_same_values(one: dict[str, Any], other: dict[str, Any], first: bool) -> None:
    keyed = [{"chat_id": KEY, **item} if first else {**item, "chat_id": KEY} for item in (one, other)]
    stored = stored_as(raw_of(keyed[1]))

    assert stored.key == KEY
    assert same_document(keyed[1], stored.document)
    assert stored.has_bytes_of(keyed[1]) == (first or not other)
    if stored.has_bytes_of(keyed[0]):
        assert same_document(keyed[0], stored.document)


@pytest.mark.parametrize(
    "raw",
    [
        encoded([("_id", Value("objectId", str(ID))), ("chat_id", string(KEY)), ("chat_id", string("other"))]),
        encoded(
            [
                ("_id", Value("objectId", str(ID))),
                ("chat_id", string(KEY)),
                ("a", string("b")),
                ("chat_id", string(KEY)),
            ]
        ),
    ],
    ids=["at once", "later"],
)
def test_a_key_that_occurs_twice_is_no_text(raw: bytes) -> None:
    assert isinstance(stored_as(raw).key, Repeated)


@pytest.mark.parametrize(
    "document",
    [
        {"_id": KEY, "chat_id": KEY, "a": 1},
        {"_id": 7, "chat_id": KEY},
        {"chat_id": KEY, "_id": ID, "a": 1},
        {"_id": ID, "a": 1, "chat_id": KEY},
        {"_id": ID, "chat_id": "short"},
        {"_id": ID, "chat_id": "ä" * 18},
        {"_id": ID, "chat_id": 7},
        {"_id": ID, "chat_id": [KEY]},
    ],
    ids=repr,
)
def test_every_other_form_of_a_document_has_its_key_and_values(document: dict[str, Any]) -> None:
    stored = stored_as(bson.encode(document))
    assert (stored.key, stored.document) == (document["chat_id"], document)


def test_a_document_that_cannot_be_encoded_has_no_bytes() -> None:
    assert not stored_as(raw_of({"chat_id": KEY})).has_bytes_of({"chat_id": "\udcff"})


def test_a_reply_keeps_everything_beside_its_documents() -> None:
    raws = [raw_of({"chat_id": KEY, "title": "x" * size}) for size in (0, 70_000)]
    for batch in ([], raws):
        cursor = {"firstBatch": [RawBSONDocument(item) for item in batch], "id": Int64(2**40), "ns": "a.firstBatch"}
        reply = bson.encode({"cursor": cursor, "ok": 1.0, "operationTime": bson.Timestamp(7, 1)})
        reader = ExactCursor(Collection(MongoClient(connect=False)["a"], "b"), made_of=stored_as)
        fields = {"cursor": {"firstBatch": 1, "nextBatch": 1}}
        (unpacked,) = reader._unpack_response(_OpMsg(0, reply), 0, CODEC, user_fields=fields)

        assert [item.document for item in unpacked["cursor"].pop("firstBatch")] == list(map(bson.decode, batch))
        assert unpacked == {
            "cursor": {"id": 2**40, "ns": "a.firstBatch"},
            "ok": 1.0,
            "operationTime": bson.Timestamp(7, 1),
        }


def test_a_type_that_mongodb_gives_back_as_another_is_reported_for_bytes_too() -> None:
    verdicts: list[Verdict] = []
    stored = [stored_as(raw_of({"chat_id": KEY, "title": 2**40}))]
    MergeJoin(Lane(TITLES, cast(ReadModel, None), Counts(), verdicts.append), stored).meet(
        Stream(KEY, Chat(created=True, title=cast(str, 2**40)))
    )
    assert [verdict.reason for verdict in verdicts] == ["projection_failed"]


def test_the_first_documents_are_compared_by_values_and_the_others_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_BY_VALUES", 1)
    ids = [KEY[:-1] + digit for digit in "1234"]
    stored = [stored_as(raw_of({"chat_id": key, "title": title})) for key, title in zip(ids, "aaab", strict=True)]
    stored[2] = stored_as(raw_of({"title": "a", "chat_id": ids[2]}))
    counts, verdicts = Counts(), list[Verdict]()
    join = MergeJoin(Lane(TITLES, cast(ReadModel, None), counts, verdicts.append), iter(stored))
    for key in ids:
        join.meet(Stream(key, Chat(created=True, title="a")))
    join.finish()

    assert counts.same == 3
    assert [(verdict.aggregate_id, verdict.actual) for verdict in verdicts] == [(ids[3], stored[3].document)]
    assert [item._document is None for item in stored] == [False, True, False, False]
