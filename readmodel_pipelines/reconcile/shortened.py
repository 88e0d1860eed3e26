"""Long values, shortened for showing: findings are held and written by the thousand, and a value may have 16 MiB.

A shortened one says how long the value is, and has a hash, so that two that begin alike are told apart.
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
from readmodel_pipelines.wording import cut, cut_where_they_part

ALWAYS_WHOLE = 1_000
ROOM = 32 * 1024
"""The values of one finding are shown whole when they have no more bytes than that together, and short ones anyway."""

Pair = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Shortened:
    """Stands for a value that is too long: a part of it as JSON, its bytes, and the SHA-256 of its canonical JSON.

    The bytes are those of a text, and of any other value those of its canonical JSON.
    """

    part: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in the place of the value."""
        return {"$shortened": {"part": self.part, "bytes": self.bytes, "sha256": self.sha256}}


def in_json(value: Any, options: JSONOptions = RELAXED_JSON_OPTIONS) -> Any:
    """A value of a finding as plain JSON types."""
    return value.as_json() if isinstance(value, Shortened) else json_value(value, options)


def shortened(value: Any) -> Any:
    """The value, or what stands for it."""
    if _size(value) <= ALWAYS_WHOLE:
        return value
    return _standing_for(value, cut(_text(value), ALWAYS_WHOLE))


def shortened_pairs(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """The pairs of values by name; long ones are shortened where all together are too much."""
    sizes = {name: (_size(one), _size(other)) for name, (one, other) in pairs.items()}
    if sum(map(sum, sizes.values())) <= ROOM:
        return dict(pairs)
    return {name: pair if max(sizes[name]) <= ALWAYS_WHOLE else _shorter(pair) for name, pair in pairs.items()}


def part_of(told: Any) -> str:
    """A value in JSON form as text for people; of a shortened one its part."""
    return str(told["$shortened"]["part"]) if _is_shortened(told) else json.dumps(told, ensure_ascii=False)


def in_text(told: Any) -> str:
    """The same, with a field that is not there in words."""
    return "(absent)" if told == {"$absent": True} else part_of(told)


def how_long(told: Any) -> str:
    """What is said behind that part; nothing of a value that is whole."""
    if not _is_shortened(told):
        return ""
    about = told["$shortened"]
    return f" ({about['bytes']:,} bytes, SHA-256 {about['sha256'][:12]}…)"


def _is_shortened(told: Any) -> bool:
    return isinstance(told, dict) and told.keys() == {"$shortened"}


def _shorter(pair: Pair) -> Pair:
    # A short one beside a long one is whole in its part.
    parts = cut_where_they_part(_text(pair[0]), _text(pair[1]), ALWAYS_WHOLE)
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
    """About how many bytes it has, as JSON or BSON: what is asked of every value is cheap."""
    if isinstance(value, str | bytes):
        return len(value)
    if value is None or isinstance(value, int | float | DatetimeMS | ObjectId):
        return 8
    if isinstance(value, Mapping):
        return sum(len(str(name)) + _size(item) for name, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(repr(value))
