"""Of a batch that failed only duplicates may be passed over."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from readmodel_pipelines.mongo.driver import DUPLICATE_KEY, duplicates_allowed

REFUSED = 121
RAISES = pytest.raises(BulkWriteError)


@pytest.mark.parametrize(
    ("codes", "unconfirmed", "outcome"),
    [
        ([DUPLICATE_KEY, DUPLICATE_KEY], [], nullcontext()),
        ([DUPLICATE_KEY, REFUSED], [], RAISES),
        # Nothing was refused, but the majority did not acknowledge it.
        ([], [{"code": 64}], RAISES),
        ([DUPLICATE_KEY], [{"code": 64}], RAISES),
    ],
)
def test_only_duplicates_are_passed_over(
    codes: list[int], unconfirmed: list[dict[str, int]], outcome: AbstractContextManager[Any]
) -> None:
    with outcome, duplicates_allowed():
        raise BulkWriteError({"writeErrors": [{"code": code} for code in codes], "writeConcernErrors": unconfirmed})
