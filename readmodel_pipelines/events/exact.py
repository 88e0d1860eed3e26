"""BSON byte by byte: for values that the driver changes, refuses to read, or cannot represent.

The driver reads a symbol as a text, undefined as null, and of a repeated field the last value. If a regular expression
contains invalid UTF-8, or a document contains a `$ref` of another form, it reads nothing at all. `read` keeps all of
these apart, and `written` is its inverse. Both are slow, for the few documents that the driver cannot handle.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS, unicode_decode_error_handler="surrogateescape"
)
"""Dates as milliseconds, for year 1 and beyond. A text that is not UTF-8 must not stop the scan; it is found later."""

# https://bsonspec.org/spec.html
_STRING, _DOCUMENT, _ARRAY, _BINARY, _REGEX, _DB_POINTER, _CODE, _SYMBOL, _CODE_WITH_SCOPE = (
    *(0x02, 0x03, 0x04, 0x05),
    *(0x0B, 0x0C, 0x0D, 0x0E, 0x0F),
)
_NAMES = {
    _DOCUMENT: "Reference",
    _BINARY: "Binary",
    0x06: "Undefined",
    _REGEX: "Regex",
    _DB_POINTER: "DBPointer",
    _CODE: "Code",
    _SYMBOL: "Symbol",
    _CODE_WITH_SCOPE: "CodeWithScope",
}
_SIZES = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}
_NOT_BSON = (BSONError, UnicodeEncodeError)


@dataclass(frozen=True, slots=True, repr=False)
class Odd:
    """A value that the driver does not return unchanged: the number of its BSON type, and its bytes."""

    kind: int
    raw: bytes

    @property
    def symbol(self) -> str | None:
        """The text of a symbol, which MongoDB considers equal to that text; None for other types."""
        return _text(self.raw) if self.kind == _SYMBOL else None

    @property
    def extended(self) -> dict[str, Any]:
        """Its Extended JSON, or the closest form."""
        if self.kind == 0x06:
            return {"$undefined": True}
        if self.kind == _DOCUMENT:
            return read(self.raw)
        if self.kind in (_SYMBOL, _CODE):
            return {"$symbol" if self.kind == _SYMBOL else "$code": _text(self.raw)}
        if self.kind == _DB_POINTER:
            return {"$dbPointer": {"$ref": _text(self.raw[:-12]), "$id": {"$oid": self.raw[-12:].hex()}}}
        return {"$bson": {"type": _NAMES.get(self.kind, hex(self.kind)), "bytes": self.raw.hex()}}

    def __repr__(self) -> str:
        held = repr(_text(self.raw)) if self.kind in (_SYMBOL, _CODE) else repr(self.raw) if self.raw else ""
        return f"{_NAMES.get(self.kind, hex(self.kind))}({held})"


@dataclass(frozen=True, slots=True)
class Repeated:
    """The values of a field that occurs more than once in its document: queries see the first, programs the last."""

    values: tuple[Any, ...]


def read(raw: bytes | memoryview, *, last_counts: bool = False) -> dict[str, Any]:
    """A document with every value unchanged; a field that occurs twice is `Repeated`, or its last value."""
    document: dict[str, Any] = {}
    # The driver makes a view of a large document instead of a copy.
    for name, value in _elements(bytes(raw), last_counts):
        if name in document and not last_counts:
            before = document[name]
            value = Repeated((*(before.values if isinstance(before, Repeated) else (before,)), value))
        document[name] = value
    return document


def has_repeated(value: Any) -> bool:
    """Whether a field occurs twice in the decoded document, at any depth."""
    if isinstance(value, dict):
        return any(map(has_repeated, value.values()))
    return isinstance(value, Repeated) or (isinstance(value, list) and any(map(has_repeated, value)))


def pieces(batch: bytes) -> Iterator[bytes]:
    """The documents of a batch, which lie one after the other."""
    at = 0
    while at < len(batch):
        end = at + _number(batch, at)
        yield batch[at:end]
        at = end


def written(document: Mapping[str, Any]) -> bytes:
    """The bytes of a decoded document, whatever it contains."""
    try:
        return bson.encode(document)
    except _NOT_BSON:
        inner = b"".join(_written(name, value) for name, value in document.items())
        return struct.pack("<i", len(inner) + 5) + inner + b"\0"


def sendable(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document in a form that the driver can send: as a filter, or to insert."""
    try:
        bson.encode(document)
    except _NOT_BSON:
        return RawBSONDocument(written(document))
    return document


def _elements(raw: bytes, last_counts: bool) -> Iterator[tuple[str, Any]]:
    at = 4
    while raw[at]:
        kind, named = raw[at], raw.index(0, at + 1)
        name, at = raw[at + 1 : named].decode("utf-8", "surrogateescape"), named + 1
        end = at + _size(kind, raw, at)
        yield name, _value(kind, raw[at:end], last_counts)
        at = end


def _size(kind: int, raw: bytes, at: int) -> int:
    match kind:
        case 0x02 | 0x0D | 0x0E:
            return 4 + _number(raw, at)
        case 0x03 | 0x04 | 0x0F:
            return _number(raw, at)
        case 0x05:
            return 5 + _number(raw, at)
        case 0x0B:
            return raw.index(0, raw.index(0, at) + 1) + 1 - at
        case 0x0C:
            return 16 + _number(raw, at)
    return _SIZES[kind]


def _value(kind: int, raw: bytes, last_counts: bool) -> Any:
    if kind == _STRING:
        return _text(raw)
    if kind == _DOCUMENT:
        document = read(raw, last_counts=last_counts)
        return Odd(kind, raw) if _is_reference(document) else document
    if kind == _ARRAY:
        return [value for _, value in _elements(raw, last_counts)]
    alone = _document([bytes([kind]), b"\0", raw])
    try:
        value = bson.decode(alone, CODEC)[""]
        return value if bson.encode({"": value}) == alone else Odd(kind, raw)
    except _NOT_BSON:
        return Odd(kind, raw)


def _is_reference(document: Mapping[str, Any]) -> bool:
    """Whether the driver would decode it as a reference."""
    named = type(document.get("$ref")) is str and type(document.get("$db", "")) is str
    return named and "$id" in document


def _written(name: str, value: Any) -> bytes:
    if isinstance(value, Repeated):
        return b"".join(_written(name, item) for item in value.values)
    named = name.encode("utf-8", "surrogateescape") + b"\0"
    if isinstance(value, Odd):
        return bytes([value.kind]) + named + value.raw
    if type(value) is str:
        text = value.encode("utf-8", "surrogateescape") + b"\0"
        return bytes([_STRING]) + named + struct.pack("<i", len(text)) + text
    if isinstance(value, Mapping):
        return bytes([_DOCUMENT]) + named + written(value)
    if isinstance(value, list | tuple):
        return bytes([_ARRAY]) + named + written({str(place): item for place, item in enumerate(value)})
    alone = bson.encode({"": value})
    return alone[4:5] + named + alone[6:-1]


def _document(parts: Iterable[bytes]) -> bytes:
    inner = b"".join(parts)
    return struct.pack("<i", len(inner) + 5) + inner + b"\0"


def _text(raw: bytes) -> str:
    return raw[4:-1].decode("utf-8", "surrogateescape")


def _number(raw: bytes, at: int) -> int:
    number: int = struct.unpack_from("<i", raw, at)[0]
    return number
