"""Values as they are stored, read byte by byte by a second implementation.

It imports nothing of the package and does not use the driver's decoder either: a symbol stays a symbol, and a text
that is no UTF-8 stays one. Slow and plain on purpose.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Value(NamedTuple):
    """A BSON value: the name of its type, and what it holds in Python's terms."""

    kind: str
    value: Any

    def __hash__(self) -> int:
        return hash((self.kind, repr(self.value)))


NULL = Value("null", None)


class Fields(dict[str, Value]):
    """The fields of a document; of one that stands `twice` the last, as the application's driver has it."""

    def __init__(self, found: Sequence[tuple[str, Value]]) -> None:
        super().__init__(found)
        self.twice = {name for name, number in Counter(name for name, _ in found).items() if number > 1}


# BSON, https://bsonspec.org/spec.html


def document(raw: bytes) -> dict[str, Value]:
    """The fields of a document; of one that stands twice the last, as the application's driver has it."""
    return dict(_fields(raw, 0)[0])


def elements(raw: bytes) -> list[tuple[str, Value, bytes]]:
    """The fields of a document as they stand there, with their bytes."""
    return list(_elements(raw, 0))


def _fields(raw: bytes, start: int) -> tuple[list[tuple[str, Value]], int]:
    found = [(name, value) for name, value, _ in _elements(raw, start)]
    return found, start + struct.unpack_from("<i", raw, start)[0]


def _elements(raw: bytes, start: int) -> Iterator[tuple[str, Value, bytes]]:
    at = start + 4
    while raw[at]:
        first = at
        stop = raw.index(0, at + 1)
        name = raw[at + 1 : stop].decode("utf-8", "backslashreplace")
        value, at = _value(raw[first], raw, stop + 1)
        yield name, value, raw[first:at]


def _text(raw: bytes, at: int) -> tuple[Any, int]:
    length = struct.unpack_from("<i", raw, at)[0]
    held = raw[at + 4 : at + 4 + length - 1]
    try:
        return held.decode(), at + 4 + length
    except UnicodeDecodeError:
        return held, at + 4 + length


def _fixed(kind: str, form: str, raw: bytes, at: int) -> tuple[Value, int]:
    return Value(kind, struct.unpack_from(form, raw, at)[0]), at + struct.calcsize(form)


def _value(kind: int, raw: bytes, at: int) -> tuple[Value, int]:
    match kind:
        case 0x01:
            return _fixed("double", "<d", raw, at)
        case 0x02 | 0x0D | 0x0E:
            held, end = _text(raw, at)
            name = {0x02: "string", 0x0D: "code", 0x0E: "symbol"}[kind]
            return Value(name if isinstance(held, str) else f"broken {name}", held), end
        case 0x03:
            inner, end = _fields(raw, at)
            return Value("document", Fields(inner)), end
        case 0x04:
            inner, end = _fields(raw, at)
            return Value("array", [item for _, item in inner]), end
        case 0x05:
            length = struct.unpack_from("<i", raw, at)[0]
            return Value("binary", raw[at + 4 : at + 5 + length]), at + 5 + length
        case 0x06:
            return Value("undefined", None), at
        case 0x07:
            return Value("objectId", raw[at : at + 12].hex()), at + 12
        case 0x08:
            return Value("bool", raw[at] == 1), at + 1
        case 0x09:
            return _fixed("date", "<q", raw, at)
        case 0x0A:
            return NULL, at
        case 0x0B:
            middle = raw.index(0, at)
            end = raw.index(0, middle + 1)
            return Value("regex", raw[at:end]), end + 1
        case 0x0C:
            held, end = _text(raw, at)
            return Value("dbPointer", (held, raw[end : end + 12])), end + 12
        case 0x0F:
            length = struct.unpack_from("<i", raw, at)[0]
            return Value("codeWithScope", raw[at : at + length]), at + length
        case 0x10:
            return _fixed("int", "<i", raw, at)
        case 0x11:
            return _fixed("timestamp", "<Q", raw, at)
        case 0x12:
            return _fixed("long", "<q", raw, at)
        case 0x13:
            return Value("decimal", raw[at : at + 16]), at + 16
        case 0xFF | 0x7F:
            return Value("minKey" if kind == 0xFF else "maxKey", None), at
    raise ValueError(f"BSON type {kind}")


# Order


def in_order(events: Iterable[Mapping[str, Value]]) -> list[Mapping[str, Value]]:
    """Events of a stream in the order that the server gives them: by version, types as BSON orders them."""
    return sorted(events, key=lambda event: _rank(event.get("version")))


_RANKS = [
    "minKey",
    "undefined",
    "null",
    "number",
    "string",
    "document",
    "array",
    "binary",
    "objectId",
    "bool",
    "date",
    "timestamp",
    "regex",
]


def _decimal(held: bytes) -> float:
    """Near enough to sort by: the exponent that finite numbers of few digits have."""
    bits = int.from_bytes(held, "little")
    exponent = (bits >> 113) % (1 << 14) - 6176
    return float((-1) ** (bits >> 127) * (bits % (1 << 113)) * 10.0**exponent)


def _rank(value: Value | None) -> tuple[int, float]:
    if value is None:
        return _RANKS.index("null"), 0.0
    if value.kind == "array":
        # By its least element; an empty one comes before null.
        return min((_rank(item) for item in value.value), default=(_RANKS.index("undefined"), 0.0))
    if value.kind == "decimal":
        return _RANKS.index("number"), _decimal(value.value)
    if value.kind in ("int", "long", "double"):
        # NaN comes before every number.
        return _RANKS.index("number"), float("-inf") if value.value != value.value else value.value
    kind = "string" if value.kind == "symbol" else value.kind
    return (_RANKS.index(kind) if kind in _RANKS else len(_RANKS)), 0.0
