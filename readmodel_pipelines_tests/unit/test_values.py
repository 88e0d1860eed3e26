"""Values of fields: what is taken, what stands for nothing, what makes a stream malformed."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.events.values import (
    INT64_MAX,
    INT64_MIN,
    ZERO_TIME_MS,
    BadField,
    flag,
    integer,
    occurred_at_ms,
    optional_text,
    optional_time_ms,
    text,
    time_ms,
    whole,
)

NAN, INFINITY = float("nan"), float("inf")
OF_NO_USE: list[Any] = [
    *([], {}, ["a"], {"a": 1}, ObjectId("65a000000000000000000001"), Binary(b"a"), b"a"),
    *(Decimal128("1"), Timestamp(1, 1), MaxKey(), UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC)),
]
NUMBERS: list[Any] = [0, 1, -1, 1.0, 1.5, Int64(1), NAN, INFINITY, -INFINITY, 2**63, 1e300]
BOOLS: list[Any] = [True, False]

Reader = Callable[[dict[str, Any], str], Any]


def event(value: Any) -> dict[str, Any]:
    return {"data": {"field": value}}


@pytest.mark.parametrize(
    ("read", "nothing"),
    [(text, ""), (flag, False), (integer, 0), (time_ms, ZERO_TIME_MS), (optional_text, None), (optional_time_ms, None)],
)
def test_a_missing_or_null_field_is_its_zero_value(read: Reader, nothing: object) -> None:
    empty: dict[str, Any] = {"data": {}}
    for without in (empty, event(None)):
        value = read(without, "field")
        assert value == nothing
        assert type(value) is type(nothing)


@given(st.text())
def test_any_text_is_kept_as_it_is(value: str) -> None:
    assert text(event(value), "field") == value
    assert optional_text(event(value), "field") == value


@pytest.mark.parametrize(
    ("value", "meant"),
    [(True, True), (1, True), (1.0, True), (Int64(1), True), (False, False), (0, False), (0.0, False), (-0.0, False)],
    ids=repr,
)
def test_bools_and_the_numbers_0_and_1_are_flags(value: Any, meant: bool) -> None:
    assert flag(event(value), "field") is meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        *((7, 7), (7.0, 7), (Int64(7), 7), (-0.0, 0), (2.0**53, 2**53)),
        *((number, number) for number in (INT64_MAX, INT64_MIN)),
        *((Int64(INT64_MAX), INT64_MAX), (-(2.0**63), INT64_MIN), (2.0**63 - 1024, 2**63 - 1024)),
    ],
    ids=repr,
)
def test_whole_numbers_of_every_bson_type_are_integers(value: Any, meant: int) -> None:
    found = integer(event(value), "field")
    assert found == meant
    assert type(found) is int


@given(st.integers(INT64_MIN, INT64_MAX))
def test_every_64_bit_integer_is_whole(value: int) -> None:
    assert whole(value, "field") == whole(Int64(value), "field") == value


@given(st.floats())
def test_a_double_is_whole_only_where_it_is_an_integer_of_64_bits(value: float) -> None:
    if value == value and abs(value) != INFINITY and value == int(value) and INT64_MIN <= int(value) <= INT64_MAX:
        assert whole(value, "field") == int(value)
    else:
        with pytest.raises(BadField, match=r"^field is not a whole number within 64 bits: "):
            whole(value, "field")


@pytest.mark.parametrize("read", [time_ms, optional_time_ms])
def test_a_time_is_text_or_a_bson_date(read: Reader) -> None:
    assert read(event("1970-01-01T00:00:01.5+00:01"), "field") == -58_500
    assert read(event(DatetimeMS(1500)), "field") == 1500
    assert read(event(DatetimeMS(INT64_MIN)), "field") == INT64_MIN
    assert read(event("0001-01-01T00:00:00+05:00"), "field") == ZERO_TIME_MS - 18_000_000


NO_TEXTS = [*NUMBERS, *BOOLS, *OF_NO_USE, DatetimeMS(0)]
NO_FLAGS = [2, -1, 0.5, NAN, INFINITY, "yes", "true", "", "1", DatetimeMS(1), *OF_NO_USE]
NO_INTEGERS = [1.5, NAN, INFINITY, -INFINITY, 2**63, -(2**63) - 1, 2.0**63, 1e300, "7", "", *BOOLS, DatetimeMS(7)]
NO_TIMES = ["", "yesterday", "2016-12-31T23:59:60Z", *NUMBERS, *BOOLS, *OF_NO_USE]
REFUSED: list[tuple[list[Reader], str, list[Any]]] = [
    ([text, optional_text], "a string: ", NO_TEXTS),
    ([flag], "true or false: ", NO_FLAGS),
    ([integer], "a whole number within 64 bits: ", [*NO_INTEGERS, *OF_NO_USE]),
    ([time_ms, optional_time_ms], "a time", NO_TIMES),
]


@pytest.mark.parametrize(
    ("read", "wanted", "value"),
    [
        pytest.param(read, wanted, value, id=f"{read.__name__} {value!r}")
        for readers, wanted, values in REFUSED
        for read in readers
        for value in values
    ],
)
def test_nothing_else_is_taken(read: Reader, wanted: str, value: Any) -> None:
    with pytest.raises(BadField, match=rf"^data\.field is not {wanted}"):
        read(event(value), "field")


def test_occurred_at_is_read_from_the_envelope_and_not_from_data() -> None:
    inner = {"occurred_at": "2000-01-01T00:00:00Z"}
    assert occurred_at_ms({"occurred_at": DatetimeMS(5), "data": inner}) == 5
    assert occurred_at_ms({"occurred_at": "1970-01-01T00:00:00.006Z", "data": inner}) == 6
    assert occurred_at_ms({"data": inner}) == ZERO_TIME_MS
    with pytest.raises(BadField, match=r"^occurred_at is not a time: 5$"):
        occurred_at_ms({"occurred_at": 5, "data": inner})


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(BadField) as caught:
        integer(event("x" * 10_000), "field")
    assert len(str(caught.value)) < 200
    assert str(caught.value).endswith("...")
