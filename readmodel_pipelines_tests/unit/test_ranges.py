"""Ranges of ids: complete, disjoint, in order, and about even."""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange, split

# As texts come from the server: any bytes, those that are no UTF-8 decoded to surrogates.
IDS = st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
SAMPLES = st.lists(IDS, max_size=60)
PARTS = st.integers(1, 12)


def holds(within: IdRange, aggregate_id: str) -> bool:
    lower, upper = (None if end is None else byte_order(end) for end in (within.lower, within.upper))
    return (lower is None or lower <= byte_order(aggregate_id)) and (upper is None or byte_order(aggregate_id) < upper)


@given(SAMPLES, PARTS, st.lists(IDS))
@example(["", "a", "a"], 3, ["", "a", "b"])
def test_every_id_is_in_exactly_one_range(samples: list[str], parts: int, others: list[str]) -> None:
    ranges = split(samples, parts)
    assert all(sum(holds(item, aggregate_id) for item in ranges) == 1 for aggregate_id in [*samples, *others])


@given(SAMPLES, PARTS)
def test_ranges_follow_one_another_from_one_open_end_to_the_other(samples: list[str], parts: int) -> None:
    ranges = split(samples, parts)
    assert 1 <= len(ranges) <= parts
    assert (ranges[0].lower, ranges[-1].upper) == (None, None)
    bounds = [item.lower for item in ranges[1:]]
    assert bounds == [item.upper for item in ranges[:-1]]
    places = [byte_order(bound) for bound in bounds if bound is not None]
    assert places == sorted(set(places))
    assert len(places) == len(bounds)


@given(SAMPLES, PARTS)
def test_no_bound_is_a_text_that_mongodb_cannot_be_asked_for(samples: list[str], parts: int) -> None:
    for item in split([*samples, "\ud800", "\udcff"], parts):
        (item.lower or "").encode()


@given(st.lists(st.text(), min_size=1), PARTS)
def test_no_range_is_without_a_sample(samples: list[str], parts: int) -> None:
    assert all(any(holds(item, sample) for sample in samples) for item in split(samples, parts))


@given(st.permutations(["a", "b", "c", "d", "é", "\uffff", "\U0001f600"]))
def test_the_order_of_the_samples_is_of_no_account(samples: list[str]) -> None:
    assert split(samples, 3) == split(sorted(samples), 3)


@pytest.mark.parametrize("parts", [2, 4, 7, 16])
@pytest.mark.parametrize(
    "form", [lambda n: str(UUID(int=n)), lambda n: f"task-{n}", str], ids=["uuid", "name", "count"]
)
def test_ranges_of_uniform_samples_are_about_even(form: Callable[[int], str], parts: int) -> None:
    draw = random.Random(parts)
    ids = [form(draw.getrandbits(120)) for _ in range(20_000)]
    ranges = split(draw.sample(ids, 5_000), parts)
    assert len(ranges) == parts
    bounds = [byte_order(item.lower) for item in ranges[1:] if item.lower is not None]
    held = Counter(bisect_right(bounds, byte_order(one)) for one in ids)
    assert all(0.85 < held[place] * parts / len(ids) < 1.15 for place in range(parts))


def test_an_aggregate_with_many_events_counts_for_more() -> None:
    assert split(["a", "b", "b", "b", "b", "c", "d", "e"], 2) == [IdRange(None, "b"), IdRange("b", None)]
    assert split(["a", "b", "c", "d", "e", "e", "e", "e"], 2) == [IdRange(None, "e"), IdRange("e", None)]


@pytest.mark.parametrize(("samples", "parts"), [([], 8), (["a"], 8), (["a"] * 9, 8), (["a", "b"], 1), (["\udcff"], 2)])
def test_what_cannot_be_split_is_one_range(samples: list[str], parts: int) -> None:
    assert split(samples, parts) == [EVERYTHING]


def test_ids_are_compared_by_their_bytes() -> None:
    # Python puts a decoded byte (U+DCFF) before an emoji (U+1F600), MongoDB the byte FF behind F0.
    assert byte_order("\U0001f600") < byte_order("\udcff")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (EVERYTHING, "all ids"),
        (IdRange(None, "b"), "ids before b"),
        (IdRange("b", None), "ids from b on"),
        (IdRange("b", "d"), "ids from b to before d"),
    ],
)
def test_a_range_has_words(ids: IdRange, words: str) -> None:
    assert str(ids) == words
