"""Failed runs: an error of this project fails its run with a sentence, and the run is not retried.

If the error is transient but lasted longer than a run waits, the step is retried and resumes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from readmodel_pipelines.errors import MongoUnavailable, ReadModelError
from readmodel_pipelines.wording import storable

_RETRIES = 3
_SECONDS_BETWEEN = 60


def failure(sentence: str, metadata: Mapping[str, Any] | None = None) -> dg.Failure:
    """A failure to raise, with this text and metadata."""
    return dg.Failure(storable(sentence), metadata, allow_retries=False)


class Failed(dg.Failure):
    """One of this project's errors as a failure; `error` holds the original."""

    def __init__(self, error: ReadModelError) -> None:
        super().__init__(str(error), allow_retries=False)
        self.error = error


@contextmanager
def failing_in_words(*, retried: bool = False) -> Iterator[None]:
    """Raise this project's errors as failures without a traceback, which would hide the sentence.

    In a step that may be `retried`, a transient error requests a retry.
    """
    try:
        yield
    except ReadModelError as error:
        if retried and isinstance(error, MongoUnavailable) and error.passes:
            raise dg.RetryRequested(_RETRIES, _SECONDS_BETWEEN) from Failed(error)
        raise Failed(error) from None
