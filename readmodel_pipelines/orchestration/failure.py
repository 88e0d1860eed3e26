"""How a run fails for what a person can cause or must act on: in a sentence, and not tried again by itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.wording import storable


def failure(sentence: str, metadata: Mapping[str, Any] | None = None) -> dg.Failure:
    """The failure to raise."""
    return dg.Failure(storable(sentence), metadata, allow_retries=False)


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Raise this project's errors as failures: the sentence says it all, and a traceback behind it would bury it."""
    try:
        yield
    except ReadModelError as error:
        raise failure(str(error)) from None
