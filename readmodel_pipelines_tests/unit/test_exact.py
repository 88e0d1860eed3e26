"""BSON to the byte: whatever lies there is read, told apart, and written back as it was."""

import pickle
from typing import Any

import bson
import pytest
from bson import Code, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.message import _OpMsg

from readmodel_pipelines.events.exact import CODEC, Odd, Repeated, pieces, read, sendable, written
from readmodel_pipelines.mongo.decoding import ExactCursor, documents_of, events_of
from readmodel_pipelines.mongo.driver import Collection
from readmodel_pipelines.reconcile.extended_json import json_value
from readmodel_pipelines_tests.support.grammar import ODD, encoded, string
from readmodel_pipelines_tests.support.stored_values import Value

TYPES = {
    "symbol": Value("symbol", "x"),
    "symbol of no UTF-8": Value("symbol", b"\xff"),
    "undefined": Value("undefined", None),
    "DBPointer": Value("dbPointer", ("a.b", bytes(12))),
    "regular expression of no UTF-8": Value("regex", b"\xff\0i"),
    "code of no UTF-8": Value("code", b"\xff"),
    "binary of a wrong inner length": Value("binary", b"\x02\x63\0\0\0abc"),
}
CONTAINERS = {
    "reference without an id": Value("document", [("$ref", Value("int", 5))]),
    "reference": Value("document", [("$ref", string("c")), ("$id", Value("int", 1))]),
    "text of no UTF-8": Value("broken string", b"\xff"),
    "twice": Value("document", [("a", Value("int", 1)), ("a", Value("int", 2))]),
}


def replied(*documents: bytes, of_events: bool = False) -> list[Any]:
    """What a cursor makes of a reply of the server."""
    batch = {"firstBatch": [RawBSONDocument(item) for item in documents], "id": 0, "ns": "a.b"}
    reply = bson.encode({"cursor": batch, "ok": 1.0})
    cursor = ExactCursor(Collection(MongoClient(connect=False)["a"], "b"), of_events=of_events)
    fields = {"cursor": {"firstBatch": 1, "nextBatch": 1}}
    (unpacked,) = cursor._unpack_response(_OpMsg(0, reply), 0, CODEC, user_fields=fields)
    assert unpacked["ok"] == 1.0
    return list(unpacked["cursor"]["firstBatch"])


def both(*documents: bytes) -> list[list[Any]]:
    """As documents of a read model, and as events."""
    return [replied(*documents, of_events=of_events) for of_events in (False, True)]


@pytest.mark.parametrize("value", [*ODD, *TYPES.values(), *CONTAINERS.values()], ids=repr)
def test_what_was_read_is_written_back_to_the_byte(value: Value) -> None:
    inside = Value("document", [("deep", Value("array", [value, value]))])
    raw = encoded([("a", value), ("b", inside), ("c", string("kept"))])

    assert written(read(raw)) == raw
    assert documents_of(raw + raw) == documents_of(raw) * 2 or value.value != value.value
    (again,) = documents_of(raw)
    assert written(again) == raw
    assert written(pickle.loads(pickle.dumps(again))) == raw  # noqa: S301 - our own
    assert bytes(bson.encode(sendable(again))) == raw
    json_value(again)


@pytest.mark.parametrize("value", TYPES.values(), ids=TYPES)
def test_a_type_that_the_driver_does_not_give_back_is_no_text_and_no_null(value: Value) -> None:
    good = encoded([("a", string("x")), ("b", Value("null", None))])
    for first, odd, last in both(good, encoded([("a", value)]), good):
        assert first == last == {"a": "x", "b": None}
        assert type(odd["a"]) not in (str, type(None))
    (document,) = replied(encoded([("a", value)]))
    assert isinstance(document["a"], Odd)
    assert hash(document["a"]) == hash(read(encoded([("a", value)]))["a"])


def test_a_length_that_looks_like_a_value_hides_none_behind_it() -> None:
    symbol = encoded([("a", TYPES["symbol"])])
    fields = [("a", TYPES["undefined"]), ("b", string(""))]
    # Its first byte is the number of undefined, the next ones could be a name.
    length = int.from_bytes(b"\x06AA\0", "little")
    fields[1] = ("b", string("x" * (length - len(encoded(fields)))))
    large = encoded(fields)
    assert large[:5] == b"\x06AA\0\x06"

    _, event = events_of(symbol + large)
    assert isinstance(event["a"], Odd)


@pytest.mark.parametrize(
    "before",
    [("_id", Value("objectId", bytes(9).hex() + "064100")), ("a", string("\x07_id\0"))],
    ids=["an id", "a text like an id"],
)
def test_neither_an_id_nor_what_looks_like_one_hides_a_value_behind_it(before: tuple[str, Value]) -> None:
    (event,) = events_of(encoded([before, ("b", TYPES["undefined"])]))

    assert isinstance(event["b"], Odd)


def test_what_the_driver_gives_back_is_what_it_gives() -> None:
    document = {
        "a": [1, Int64(1), 1.0, True, None, {"b": "é"}],
        "b": [ObjectId(), Decimal128("1"), MaxKey(), Regex("x", "i"), Timestamp(1, 2), b"x", DatetimeMS(5)],
        "c": Code("x", {"y": 1}),
    }
    raw = bson.encode(document)

    assert read(raw) == documents_of(raw)[0] == bson.decode(raw, CODEC)
    assert sendable(document) is document


@pytest.mark.parametrize("value", [{"$ref": "c", "$id": 1}, {"$id": 1, "$ref": "c", "x": 2}], ids=repr)
def test_a_reference_is_no_document_and_stops_no_other(value: Any) -> None:
    for good, odd in both(bson.encode({"data": {}}), bson.encode({"data": value})):
        assert good == {"data": {}}
        assert type(odd["data"]) is not dict
    assert json_value(read(bson.encode({"data": value}))["data"]) == value


@pytest.mark.parametrize("value", [{"$ref": 5}, {"$ref": "c"}, {"$ref": 5, "$id": 1}], ids=repr)
def test_what_is_like_a_reference_is_a_document(value: Any) -> None:
    assert both(bson.encode({"data": value})) == [[{"data": value}]] * 2
    assert read(bson.encode({"data": value})) == {"data": value}


def test_of_a_field_twice_in_an_event_the_last_counts_and_a_document_holds_both() -> None:
    raw = encoded([("aggregate_id", string("i")), ("a", string("first")), ("a", string("last"))])

    assert both(raw) == [
        [{"aggregate_id": "i", "a": Repeated(("first", "last"))}],
        [{"aggregate_id": "i", "a": "last"}],
    ]
    assert json_value(documents_of(raw)[0]["a"]) == {"$repeated": ["first", "last"]}


def test_a_batch_is_cut_into_its_documents() -> None:
    several = [bson.encode({"n": number}) for number in range(3)]

    assert list(pieces(b"".join(several))) == several


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Value("symbol", "x"), {"$symbol": "x"}),
        (Value("undefined", None), {"$undefined": True}),
        (Value("dbPointer", ("a.b", bytes(12))), {"$dbPointer": {"$ref": "a.b", "$id": {"$oid": "0" * 24}}}),
        (Value("regex", b"\xff\0i"), {"$bson": {"type": "Regex", "bytes": "ff006900"}}),
    ],
    ids=repr,
)
def test_it_is_shown_in_extended_json(value: Value, shown: Any) -> None:
    (document,) = documents_of(encoded([("a", value)]))

    assert json_value(document["a"]) == shown
