"""RFC 3339 text becomes whole milliseconds, rounded down; everything else is refused, nothing is guessed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.events.values import ZERO_TIME_MS, parse_time
from readmodel_pipelines_tests.support import oracle_values, stored_values

DAY = 86_400_000


@st.composite
def times(draw: st.DrawFn) -> str:
    """Texts of the form of a time; some name a day that there is not."""
    year = draw(st.integers(0, 9999) | st.sampled_from([0, 1, 1900, 1969, 1970, 2000, 9999]))
    month, day = draw(st.integers(1, 12)), draw(st.integers(1, 31) | st.sampled_from([28, 29, 30]))
    hour, minute, second = draw(st.integers(0, 23)), draw(st.integers(0, 59)), draw(st.integers(0, 59))
    text = f"{year:04}-{month:02}-{day:02}{draw(st.sampled_from('Tt'))}{hour:02}:{minute:02}:{second:02}"
    digits = draw(st.text("0123456789", max_size=9) | st.sampled_from(["999999999", "000000001", "0009"]))
    zone = draw(st.sampled_from("Zz+-"))
    if zone in "+-":
        zone += f"{draw(st.integers(0, 23)):02}:{draw(st.integers(0, 59)):02}"
    return f"{text}{digits and '.'}{digits}{zone}"


def assert_read_as_the_second_implementation_does(text: str) -> None:
    try:
        wanted = oracle_values.time(stored_values.Value("string", text))
    except oracle_values.Bad:
        with pytest.raises(ValueError, match=r"RFC 3339|range|offset|must be in"):
            parse_time(text)
    else:
        assert parse_time(text) == wanted


@given(times())
def test_every_time_is_cut_down_to_the_millisecond(time: str) -> None:
    assert_read_as_the_second_implementation_does(time)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1970-01-01T00:00:00.000999999Z", 0),
        ("2026-11-24T02:36:00.390455251+05:00", 1_795_469_760_390),
        ("2024-02-29T12:00:00.5-00:30", 1_709_209_800_500),
        ("1970-01-01T00:00:00-00:00", 0),
        ("0001-01-01T00:00:00Z", ZERO_TIME_MS),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        # Python has no date for these.
        ("0001-01-01T00:00:00+05:00", ZERO_TIME_MS - 5 * 3_600_000),
        ("0000-12-31T23:59:59.999Z", ZERO_TIME_MS - 1),
        ("0000-02-29T00:00:00Z", ZERO_TIME_MS - 307 * DAY),
        ("0000-01-01T00:00:00+23:59", ZERO_TIME_MS - 366 * DAY - 86_340_000),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799_000 + 86_340_000),
    ],
)
def test_known_times(text: str, milliseconds: int) -> None:
    assert parse_time(text) == milliseconds


def texts(*, dates: Sequence[str], clocks: Sequence[str], zones: Sequence[str]) -> list[str]:
    """Times in which one part is of these, the others being right."""
    return [
        *(f"{date}T03:04:05Z" for date in dates),
        *(f"2026-01-02T{clock}Z" for clock in clocks),
        *(f"2026-01-02T03:04:05{zone}" for zone in zones),
    ]


ANOTHER_FORM = texts(
    dates=["26-01-02", "2026-1-2", "12026-01-02", "-026-01-02", " 2026-01-02", "٢٠٢٦-01-02"],
    clocks=["03:04", "03:04:05.", "03:04:05,5", "03:04:05.1234567890", "03:04:05 ", "03:04:05.\uff11"],
    zones=["", "+5:00", "+0500", "+05", "+05:00Z", "UTC", "Z\n"],
)
OUT_OF_RANGE = texts(
    dates=["2026-00-02", "2026-13-02", "2026-01-00", "2026-01-32", "2026-02-29", "1900-02-29", "0000-02-30"],
    clocks=["24:00:00", "03:60:05", "23:59:60"],
    zones=["+24:00", "-24:00", "+23:60"],
)


@pytest.mark.parametrize("text", ["", "2026-01-02", "2026-01-02 03:04:05Z", "20260102T030405Z", *ANOTHER_FORM])
def test_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an RFC 3339 time"):
        parse_time(text)


@pytest.mark.parametrize("text", OUT_OF_RANGE)
def test_a_field_out_of_its_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|offset|must be in"):
        parse_time(text)


characters = st.sampled_from([*"0123456789-+:.TtZz ,W٣\n", ""])


@given(times(), st.data())
def test_a_time_with_a_character_changed_is_read_rightly_or_refused(time: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(time)))
    length = data.draw(st.integers(0, 1))
    mutant = time[:place] + data.draw(characters) + time[place + length :]
    assert_read_as_the_second_implementation_does(mutant)
