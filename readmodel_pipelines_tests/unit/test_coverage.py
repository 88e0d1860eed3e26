"""Coverage: buckets that are even, disjoint and complete, and words for what is looked at."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.verification.coverage import Bucket, Coverage


@given(st.text(), st.integers(1, 50))
def test_every_id_is_in_exactly_one_bucket(aggregate_id: str, of: int) -> None:
    assert sum(Bucket(number, of).holds(aggregate_id) for number in range(1, of + 1)) == 1


def test_buckets_are_even_for_ids_that_count_up() -> None:
    ids = [str(UUID(int=number)) for number in range(7_000)]
    sizes = Counter(number for number in range(1, 8) for item in ids if Bucket(number, 7).holds(item))
    assert all(850 < size < 1_150 for size in sizes.values())


@given(st.integers(0, 10**6), st.integers(1, 30))
def test_as_many_days_in_a_row_as_there_are_buckets_cover_everything(day: int, of: int) -> None:
    assert {Bucket.of_day(day + later, of).number for later in range(of)} == set(range(1, of + 1))


@pytest.mark.parametrize(("text", "bucket"), [("1/1", Bucket(1, 1)), (" 3 / 7 ", Bucket(3, 7))])
def test_a_bucket_is_read_as_people_write_it(text: str, bucket: Bucket) -> None:
    assert Bucket.parse(text) == bucket
    assert Bucket.parse(str(bucket)) == bucket


@pytest.mark.parametrize("text", ["", "0/7", "8/7", "3", "3/0", "-1/7", "a/b", "1/7/9", "1.5/7", "9999999/9999999"])
def test_what_is_no_bucket_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError):
        Bucket.parse(text)


@pytest.mark.parametrize(
    ("coverage", "words"),
    [
        (Coverage(), "every aggregate"),
        (Coverage(sample=1_000), "a sample of 1,000"),
        (Coverage(bucket=Bucket(3, 7), since_last=True), "bucket 3/7 and changes since the last verification"),
    ],
)
def test_a_coverage_has_words(coverage: Coverage, words: str) -> None:
    assert str(coverage) == words
    assert coverage.everything is (words == "every aggregate")
