"""Shortens long values for display: thousands of findings are held and written, and a value may have 16 MiB.

A shortened value has its length and a hash, so that two with the same beginning can be told apart.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import DatetimeMS, ObjectId
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, JSONOptions

from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.extended_json import dumped, json_value
from readmodel_pipelines.wording import cut, cut_at_difference

ALWAYS_WHOLE = 1_000
ROOM = 32 * 1024
"""If the values of a finding exceed this number of bytes together, the long ones are shortened."""

Pair = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Shortened:
    """StoredState for a value that is too long: a part of it as JSON, its bytes, and the SHA-256 of its canonical JSON.

    The bytes are those of a text; for any other value those of its canonical JSON.
    """

    part: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Its form in JSON, instead of the value."""
        return {"$shortened": {"part": self.part, "bytes": self.bytes, "sha256": self.sha256}}


def in_json(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A value of a finding as plain JSON types."""
    return value.as_json() if isinstance(value, Shortened) else json_value(value, options)


def shortened(value: Any) -> Any:
    """The value, or its shortened form."""
    if _size(value) <= ALWAYS_WHOLE:
        return value
    return _standing_for(value, cut(_text(value), ALWAYS_WHOLE))


def shortened_pairs(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """The pairs of values by name; long ones are shortened if all together are too large."""
    sizes = {name: (_size(one), _size(other)) for name, (one, other) in pairs.items()}
    if sum(map(sum, sizes.values())) <= ROOM:
        return dict(pairs)
    return {name: pair if max(sizes[name]) <= ALWAYS_WHOLE else _shorter(pair) for name, pair in pairs.items()}


def part_of(told: Any) -> str:
    """A value in JSON form as text for people; of a shortened one its part."""
    return str(told["$shortened"]["part"]) if _is_shortened(told) else json.dumps(told, ensure_ascii=False)


def in_text(told: Any) -> str:
    """The same, with a missing field in words."""
    return "(absent)" if told == {"$absent": True} else part_of(told)


def how_long(told: Any) -> str:
    """The length and hash of a shortened value; empty for a complete one."""
    if not _is_shortened(told):
        return ""
    about = told["$shortened"]
    return f" ({about['bytes']:,} bytes, SHA-256 {about['sha256'][:12]}…)"


def _is_shortened(told: Any) -> bool:
    return isinstance(told, dict) and told.keys() == {"$shortened"}


def _shorter(pair: Pair) -> Pair:
    # A short value beside a long one is complete in its part.
    parts = cut_at_difference(_text(pair[0]), _text(pair[1]), ALWAYS_WHOLE)
    one, other = (
        value if _size(value) <= ALWAYS_WHOLE else _standing_for(value, part)
        for value, part in zip(pair, parts, strict=True)
    )
    return one, other


def _standing_for(value: Any, part: str) -> Shortened:
    canonical = dumped(value, CANONICAL_JSON_OPTIONS).encode("utf-8", "surrogatepass")
    size = len(value.encode("utf-8", "surrogatepass") if type(value) is str else canonical)
    return Shortened(part, size, hashlib.sha256(canonical).hexdigest())


def _text(value: Any) -> str:
    if value is ABSENT:
        return ""
    text = dumped(value, RELAXED_JSON_OPTIONS)
    return text if text.isascii() and "\\" not in text else json.dumps(json.loads(text), ensure_ascii=False)


def _size(value: Any) -> int:
    """The approximate number of bytes as JSON or BSON; cheap, because every value is measured."""
    if isinstance(value, str | bytes):
        return len(value)
    if value is None or isinstance(value, int | float | DatetimeMS | ObjectId):
        return 8
    if isinstance(value, Mapping):
        return sum(len(str(name)) + _size(item) for name, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(repr(value))
