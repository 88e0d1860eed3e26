"""How a run fails for what a person can cause or must act on: in a sentence, and not tried again by itself.

What passes by itself, but took longer than a run waits, has the step tried again: it goes on where it was.
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
    """The failure to raise."""
    return dg.Failure(storable(sentence), metadata, allow_retries=False)


class Failed(dg.Failure):
    """One of this project's errors, as a failure; whoever decides by it asks `error`."""

    def __init__(self, error: ReadModelError) -> None:
        super().__init__(str(error), allow_retries=False)
        self.error = error


@contextmanager
def failing_in_words(*, retried: bool = False) -> Iterator[None]:
    """Raise this project's errors as failures: the sentence says it all, and a traceback behind it would bury it.

    In a step that may be `retried` one that passes asks for that.
    """
    try:
        yield
    except ReadModelError as error:
        if retried and isinstance(error, MongoUnavailable) and error.passes:
            raise dg.RetryRequested(_RETRIES, _SECONDS_BETWEEN) from Failed(error)
        raise Failed(error) from None
