"""The coverage of a verification: all aggregates, or a sample, a bucket, and the changed ones."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.events.ids import byte_order
from readmodel_pipelines.wording import cut

_BUCKET = re.compile(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*")
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """Bucket `number`, from 1, of `of`. Ids are spread evenly by a hash."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Bucket:
        """Parse the form `3/7`.

        Raises:
            UsageError: the text is no bucket.
        """
        match = _BUCKET.fullmatch(text)
        number, of = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= of:
            raise UsageError(
                f"{cut(text, _LONGEST)!r} is no bucket.",
                hint="Give it as K/N with K from 1 to N, and N at most 999999, for example 3/7.",
            )
        return cls(number, of)

    @classmethod
    def of_day(cls, day: int, of: int) -> Bucket:
        """The bucket of a day, given as a number of days; `of` consecutive days cover everything."""
        return cls(day % of + 1, of)

    def holds(self, aggregate_id: str) -> bool:
        """Whether the aggregate belongs to this bucket."""
        return zlib.crc32(byte_order(aggregate_id)) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """The requested coverage; by default every aggregate.

    `since_last`: aggregates with events since the last verification, and those with open findings.
    """

    sample: int | None = None
    bucket: Bucket | None = None
    since_last: bool = False

    @property
    def everything(self) -> bool:
        """Whether it covers every aggregate."""
        return self.sample is None and self.bucket is None and not self.since_last

    @property
    def kind(self) -> str:
        """The kind as one word, without its size; the numbers of one kind can be compared."""
        parts = [("changed", self.since_last), ("bucket", self.bucket), ("sample", self.sample)]
        return "_and_".join(name for name, asked in parts if asked not in (None, False)) or "everything"

    def __str__(self) -> str:
        if self.everything:
            return "every aggregate"
        parts = [
            f"a sample of {self.sample:,}" if self.sample is not None else "",
            f"bucket {self.bucket}" if self.bucket else "",
            "changes since the last verification" if self.since_last else "",
        ]
        return " and ".join(part for part in parts if part)
