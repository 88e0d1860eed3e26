"""Documents are compared by value and BSON type, to the depth of their arrays."""

import copy
import datetime
import pickle
from itertools import product
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.events.exact import Odd, Repeated
from readmodel_pipelines.reconcile.compare import ABSENT, differing_fields, same_document, same_value

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
BYTES = b"0123456789ab"
# No two of these are the same to MongoDB's type and value; several are equal to Python.
DISTINCT: list[Any] = [
    *(None, ABSENT, True, False, float("inf"), float("nan")),
    *(kind(number) for kind in (int, float, Int64, DatetimeMS) for number in (0, 1)),
    *(Decimal128("0"), Decimal128("1"), Timestamp(0, 1), MOMENT),
    *("", "1", b"", Binary(b"", 5), ObjectId(BYTES), str(ObjectId(BYTES))),
    *(Regex("a"), Regex("a", "i"), Code("a"), MinKey(), MaxKey()),
    *([], [1], [1.0], [Int64(1)], [True], [None], [[]], [{}]),
    *({}, {"a": 1}, {"a": 1.0}, {"a": None}, {"b": 1}),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-3, 3).map(Int64),
    st.integers(-3, 3).map(float),
    st.sampled_from([0.5, float("nan"), float("inf")]),
    st.integers(-3, 3).map(DatetimeMS),
    st.sampled_from(["", "a", "1"]),
    st.binary(max_size=2),
    st.sampled_from([ObjectId(BYTES), Decimal128("1"), Timestamp(1, 1), Regex("a"), Code("a"), MinKey(), MaxKey()]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def test_values_of_different_type_or_content_are_never_the_same_however_deep_they_lie() -> None:
    for one, other in product(DISTINCT, DISTINCT):
        stored = {"_id": 1, "value": {"deep": [{"er": other}]}}
        assert same_document({"value": {"deep": [{"er": one}]}}, stored) is same_value(one, other) is (one is other)


NO_PYTHON = [Odd(0x06, b""), Odd(0x0E, b"\2\0\0\0a\0"), Repeated((1, [Odd(0x06, b"")]))]


@pytest.mark.parametrize(
    "value", [*DISTINCT, *NO_PYTHON, Code("a", {}), DBRef("a", 1, "b", more=2), "\udcff"], ids=ascii
)
def test_every_value_is_the_same_in_another_process(value: Any) -> None:
    for one in (value, [{"deep": value}]):
        assert same_value(pickle.loads(pickle.dumps(one)), one)  # noqa: S301 - our own


@pytest.mark.parametrize("value", DISTINCT, ids=repr)
def test_every_value_is_the_same_as_itself_read_again(value: Any) -> None:
    again = value if value is ABSENT else copy.deepcopy(value)
    if value is not ABSENT and not isinstance(value, datetime.datetime):
        options: bson.CodecOptions[Any] = bson.CodecOptions(datetime_conversion=bson.DatetimeConversion.DATETIME_MS)
        again = bson.decode(bson.encode({"value": value}), options)["value"]
    assert same_value(value, again)


@given(values, values)
def test_the_same_is_what_bson_writes_alike(one: Any, other: Any) -> None:
    assert same_value(one, other) is same_value(other, one) is (encoded(one) == encoded(other))
    assert same_value(one, copy.deepcopy(one))


def encoded(value: Any) -> bytes:
    """The BSON of a value, the fields of its documents in alphabetical order."""

    def in_order(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: in_order(part[name]) for name in sorted(part)}
        return [in_order(item) for item in part] if isinstance(part, list) else part

    return bson.encode({"value": in_order(value)})


def test_the_order_of_elements_counts_and_the_order_of_fields_does_not() -> None:
    assert not same_value(["a", "b"], ["b", "a"])
    assert same_value({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert same_value([{"a": 1, "b": [2]}], [{"b": [2], "a": 1}])


FIELDS = ("title", "status", "version", "attachments", "due_date")
plain = st.none() | st.sampled_from(["", "a", 1, Int64(1), DatetimeMS(1), [], ["a"], [{"size": Int64(1)}]])
wrong = plain | st.sampled_from([1.0, True, [{"size": 1}], [{"size": 1.0}], ["a", "a"], {"a": 1}, float("nan")])


@st.composite
def expected_and_actual(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    expected = draw(st.dictionaries(st.sampled_from(FIELDS), plain))
    actual = {"_id": ObjectId(BYTES), **copy.deepcopy(expected)}
    actual |= draw(st.dictionaries(st.sampled_from(FIELDS), wrong, max_size=2))
    for name in draw(st.sets(st.sampled_from(FIELDS), max_size=1)):
        actual.pop(name, None)
    return expected, dict(draw(st.permutations(list(actual.items()))))


@given(expected_and_actual())
def test_the_fields_that_differ_are_just_those_that_are_not_the_same(pair: tuple[Any, Any]) -> None:
    expected, actual = pair
    differing = differing_fields(expected, actual)
    assert same_document(expected, actual) is not bool(differing)
    assert "_id" not in differing
    for name in FIELDS:
        one, other = expected.get(name, ABSENT), actual.get(name, ABSENT)
        assert (name in differing) is not same_value(one, other)
        if name in differing:
            assert differing[name] == (one, other)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ({"a": None}, {"_id": 1, "b": None}),
        ({"a": None}, {"_id": 1}),
        ({}, {"_id": 1, "a": None}),
        ({"a": 1}, {"_id": 1, "a": Int64(1)}),
        ({"a": [1, [2]]}, {"_id": 1, "a": [1, [2.0]]}),
        ({"a": [{"b": 1}]}, {"_id": 1, "a": [{"b": 1, "c": None}]}),
    ],
)
def test_absence_type_and_depth_tell_documents_apart(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    assert not same_document(expected, actual)
    assert differing_fields(expected, actual)


def test_absent_is_shown_in_words_and_differs_from_null() -> None:
    assert repr(ABSENT) == "absent"
    assert differing_fields({"a": None}, {"_id": 1}) == {"a": (None, ABSENT)}
