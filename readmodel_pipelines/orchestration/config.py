"""The base of every run config here: what Dagster's own check of types lets pass is refused in a sentence."""

# Without `from __future__ import annotations`: Dagster takes the class of a config field, not its name.
from typing import Any

import dagster as dg
from pydantic import ValidationError


class Config(dg.Config):
    """A config. The Launchpad checks types and choices; ranges are checked when the run starts, here."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc']))} is {item['input']!r}: {item['msg']}"
                for item in error.errors(include_url=False)
            )
            raise dg.Failure(
                f"This config cannot be used: {wrong}. Nothing was done. Correct it in the Launchpad and launch again.",
                allow_retries=False,
            ) from None
