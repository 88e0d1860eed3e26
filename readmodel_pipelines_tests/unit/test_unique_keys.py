"""What tells the keys of a unique index apart."""

from typing import Any

import pytest
from bson import Decimal128, Int64

from readmodel_pipelines.mongo.unique_keys import unique_keys


@pytest.mark.parametrize(
    "equal",
    [(1, 1.0, Int64(1), Decimal128("1.0")), (float("nan"), Decimal128("NaN"), Decimal128("sNaN"), Decimal128("-NaN"))],
    ids=repr,
)
def test_equal_numbers_of_any_type_are_one_key(equal: tuple[Any, ...]) -> None:
    assert len({key for value in equal for key in unique_keys({"field": value}, "field")}) == 1
