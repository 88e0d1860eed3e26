# ruff: noqa: E501, RUF001 - tables of values, odd letters among them
"""Streams by a grammar: every event type, every BSON type in every place, missing and doubled fields, odd ids.

Most of a stream is what the application would write, so that the odd thing in it is what decides. It imports nothing
of the package, writes BSON byte by byte, and gives the same streams for the same seed.
"""

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from readmodel_pipelines_tests.support.oracle_values import NO_TIME
from readmodel_pipelines_tests.support.stored_values import NULL, Value

Fields = list[tuple[str, Value]]

_KINDS = {
    "double": 0x01, "string": 0x02, "broken string": 0x02, "document": 0x03, "array": 0x04, "binary": 0x05,
    "undefined": 0x06, "objectId": 0x07, "bool": 0x08, "date": 0x09, "null": 0x0A, "regex": 0x0B, "dbPointer": 0x0C,
    "code": 0x0D, "symbol": 0x0E, "codeWithScope": 0x0F, "int": 0x10, "timestamp": 0x11, "long": 0x12, "decimal": 0x13,
    "minKey": 0xFF, "maxKey": 0x7F,
}  # fmt: skip


def encoded(fields: Fields) -> bytes:
    """A document's bytes; a name may stand twice."""
    inner = b"".join(bytes([_KINDS[value.kind]]) + name.encode() + b"\0" + _bytes(value) for name, value in fields)
    return struct.pack("<i", len(inner) + 5) + inner + b"\0"


def _bytes(item: Value) -> bytes:
    kind, held = item
    match kind:
        case "double":
            return struct.pack("<d", held)
        case "string" | "code" | "symbol" | "broken string":
            text: bytes = held if isinstance(held, bytes) else held.encode()
            return struct.pack("<i", len(text) + 1) + text + b"\0"
        case "document":
            return encoded(held if isinstance(held, list) else list(held.items()))
        case "array":
            return encoded([(str(at), value) for at, value in enumerate(held)])
        case "binary":
            return struct.pack("<i", len(held) - 1) + bytes(held)
        case "objectId":
            return bytes.fromhex(held)
        case "bool":
            return bytes([held])
        case "date" | "long":
            return struct.pack("<q", held)
        case "timestamp":
            return struct.pack("<Q", held)
        case "int":
            return struct.pack("<i", held)
        case "dbPointer":
            return _bytes(Value("string", held[0])) + bytes(held[1])
        case "regex":
            return bytes(held) + b"\0"
        case "codeWithScope" | "decimal":
            return bytes(held)
    return b""


def string(held: str) -> Value:
    """A text."""
    return Value("string", held)


_SCOPE = _bytes(string("x")) + encoded([])
ODD: Sequence[Value] = (
    Value("double", 1.5), Value("double", float("nan")), Value("double", float("inf")), Value("double", 2.0**63),
    Value("double", 7.0), Value("double", -0.0), Value("double", 1.0), Value("int", 0), Value("int", 1), Value("int", 7),
    Value("long", 2**62), Value("long", -3), Value("bool", True), Value("bool", False), string(""), string("yes"),
    string("7"), string("\u0000x"), string("ſtraße \U0001f600"), Value("broken string", b"half \xf0\x9f"),
    Value("document", []), Value("array", []),
    Value("array", [string("a"), NULL]), Value("binary", b"\x00abc"), Value("binary", b"\x04" + bytes(16)),
    Value("objectId", "5f" * 12), Value("date", 0), Value("date", NO_TIME - 1),
    Value("date", 2**62), NULL, Value("regex", b"a\0i"), Value("dbPointer", ("x.y", bytes(12))), Value("code", "x"),
    Value("codeWithScope", struct.pack("<i", len(_SCOPE) + 4) + _SCOPE),
    Value("timestamp", 5 << 32), Value("decimal", bytes(14) + b"\x40\x30"), Value("minKey", None), Value("maxKey", None),
    Value("symbol", "x"), Value("undefined", None), Value("document", [("$ref", Value("int", 5))]),
)  # fmt: skip


def odd_key(chance: random.Random, *, as_id: bool = False) -> Value:
    """A value of some BSON type, unlike every other such value; no text, or one that is no UTF-8.

    `as_id`: one that MongoDB takes for an `_id`.
    """
    own = chance.randbytes(12)
    number = int.from_bytes(own[:6], "big")
    name = own.hex()
    values = [
        Value("int", number % 2**31), Value("long", number), Value("double", number + 0.5), Value("date", number),
        Value("objectId", name), Value("binary", b"\x00" + own), Value("code", name), Value("timestamp", number),
        Value("document", [("a", string(name))]), Value("broken string", b"\xff" + own.hex().encode()),
        Value("decimal", own[:6] + bytes(8) + b"\x40\x30"), Value("dbPointer", ("x.y", own)),
    ]  # fmt: skip
    if not as_id:
        values += [Value("array", [string(name), NULL]), Value("regex", name.encode() + b"\0i")]
    return chance.choice(values)


TIMES = (
    "2026-03-01T08:00:00Z", "2026-03-01T08:00:00.123999999Z", "1969-12-31T23:59:59.9999Z", "0001-01-01T00:00:00Z",
    "0000-02-29T00:00:00Z", "9999-12-31T23:59:59.999999999-23:59", "0001-01-01T00:00:00+05:00", "2024-02-29t12:00:00z",
    "2026-03-01T08:00:00.1+05:30", "2026-03-01T08:00:00-00:00",
)  # fmt: skip
NO_TIMES = (
    "2026-03-01T08:00:00", "2026-03-01 08:00:00Z", "2026-02-29T08:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T08:00:60Z",
    "2026-03-01T08:00:00.1234567890Z", "2026-03-01T08:00:00.Z", "2026-03-01T08:00:00,5Z", "2026-03-01T08:00:00+24:00",
    "2026-03-01T08:00:00+0500", "", " 2026-03-01T08:00:00Z", "２026-03-01T08:00:00Z", "2026-13-01T08:00:00Z",
)  # fmt: skip

TEXT, BOOL, WHOLE, TIME = "text", "bool", "whole", "time"
"""What a field of an event holds when the application writes it."""

_USER = ("ann", "bob", "", "cy ", "\u00fc")
_WORDS = {
    "type": ("task", "bug", "epic", "discussion", "Discussion", "", "other"),
    "new_type": ("task", "bug", "epic", "discussion", ""),
    "EntityType": ("task", "bug", "epic"),
    "new_status": ("To Do", " in progress ", "FIXED", "closed", "\x1fdone", "\u2003Verified", "x", ""),
    "new_priority": ("Low", "medium", " HIGH", "critical", "urgent", ""),
    "new_severity": ("major", " ", "", "\u2003", "minor "),
    "file_id": ("f1", "f2", "f3"),
}
EVENTS: dict[str, dict[str, str]] = {
    "chat.created": {"workspace_id": TEXT, "type": TEXT, "is_public": BOOL, "created_by": TEXT, "created_at": TIME},
    "chat.participant_added": {"user_id": TEXT, "role": TEXT, "joined_at": TIME},
    "chat.participant_removed": {"user_id": TEXT},
    "chat.type_changed": {"old_type": TEXT, "new_type": TEXT, "title": TEXT},
    "chat.status_changed": {"old_status": TEXT, "new_status": TEXT, "changed_by": TEXT},
    "chat.user_assigned": {"assignee_id": TEXT, "assigned_by": TEXT},
    "chat.assignee_removed": {"previous_assignee_id": TEXT, "removed_by": TEXT},
    "chat.priority_set": {"old_priority": TEXT, "new_priority": TEXT, "changed_by": TEXT},
    "chat.due_date_set": {"old_due_date": TIME, "new_due_date": TIME, "changed_by": TEXT},
    "chat.due_date_removed": {"previous_due_date": TIME, "removed_by": TEXT},
    "chat.attachment_added": {"file_id": TEXT, "file_name": TEXT, "file_size": WHOLE, "mime_type": TEXT, "added_by": TEXT},
    "chat.attachment_removed": {"file_id": TEXT, "removed_by": TEXT},
    "chat.renamed": {"old_title": TEXT, "new_title": TEXT, "renamed_by": TEXT},
    "chat.severity_set": {"old_severity": TEXT, "new_severity": TEXT, "changed_by": TEXT},
    "chat.deleted": {"deleted_by": TEXT, "deleted_at": TIME},
    "chat.closed": {"closed_by": TEXT, "previous_status": TEXT, "closed_at": TIME},
    "chat.reopened": {"reopened_by": TEXT, "new_status": TEXT, "reopened_at": TIME},
    "task.created": {
        "ChatID": TEXT, "Title": TEXT, "EntityType": TEXT, "Status": TEXT, "Priority": TEXT, "AssigneeID": TEXT,
        "DueDate": TIME, "CreatedBy": TEXT,
    },
    "task.updated": {"Title": TEXT},
    "task.status_changed": {"OldStatus": TEXT, "NewStatus": TEXT, "ChangedBy": TEXT},
    "task.assignee_changed": {"OldAssignee": TEXT, "NewAssignee": TEXT, "ChangedBy": TEXT},
    "task.priority_changed": {"OldPriority": TEXT, "NewPriority": TEXT, "ChangedBy": TEXT},
    "task.due_date_changed": {"OldDueDate": TIME, "NewDueDate": TIME, "ChangedBy": TEXT},
    "task.custom_field_set": {"Key": TEXT, "Value": TEXT},
    "task.attachment.added": {"file_id": TEXT, "file_name": TEXT, "file_size": WHOLE},
    "task.attachment.removed": {"file_id": TEXT},
    "task.deleted": {},
}  # fmt: skip
_CHAT = [name for name in EVENTS if name.startswith("chat.")]
_TASK = [name for name in EVENTS if name.startswith("task.")]


@dataclass(frozen=True)
class Stream:
    """A stream as it lies in the collection: its id, its aggregate type, its events' bytes in order of appending."""

    aggregate_id: Value
    aggregate_type: str
    events: list[bytes]


class Grammar:
    """Makes streams; the same ones for the same seed. `odd` is how often a place holds something odd."""

    def __init__(self, seed: int, odd: float = 0.02) -> None:
        self._random = random.Random(seed)
        self._odd = odd

    def streams(self, number: int, kind: str = "Chat") -> Iterator[Stream]:
        """So many streams of an aggregate type, `Chat` or `Task`."""
        for _ in range(number):
            yield self._stream(kind)

    def _is(self, share: float) -> bool:
        return self._random.random() < share

    def _stream(self, kind: str) -> Stream:
        choose = self._random.choice
        aggregate_id = self._id()
        first, types = ("chat.created", _CHAT) if kind == "Chat" else ("task.created", _TASK)
        names = [] if self._is(self._odd) else [first]
        names += [choose(types) for _ in range(self._random.choice((0, 1, 2, 4, 8, 16)))]
        if self._is(self._odd) or not names:
            names.append(
                choose(
                    ["chat.unheard_of", "task.updated" if kind == "Chat" else "chat.renamed", "Chat.created", "renamed"]
                )
            )
        if self._is(self._odd):
            self._random.shuffle(names)
        spelled = kind.lower() if self._is(0.1) else kind
        versions = self._versions(len(names))
        return Stream(
            aggregate_id,
            kind,
            [encoded(self._event(aggregate_id, spelled, *item)) for item in zip(names, versions, strict=True)],
        )

    def _id(self) -> Value:
        plain = str(UUID(int=self._random.getrandbits(128), version=4))
        if not self._is(self._odd):
            return string(plain)
        texts = [plain.upper(), plain.replace("-", ""), f"{{{plain}}}", "~draft"]
        return self._random.choice([*map(string, texts), Value("symbol", plain), *[odd_key(self._random)] * 3])

    def _versions(self, number: int) -> list[Value]:
        versions = list(range(1, number + 1))
        if number and self._is(self._odd):
            at = self._random.randrange(number)
            match self._random.randrange(3):
                case 0:
                    versions[at:] = [version + 1 for version in versions[at:]]
                case 1:
                    versions[at] = self._random.choice([0, -1, 2**33])
                case 2:
                    versions[at] = max(1, versions[at] - 1)
        made = [Value("int", version) if abs(version) < 2**31 else Value("long", version) for version in versions]
        if number and self._is(self._odd):
            made[self._random.randrange(number)] = self._random.choice(ODD)
        return [
            self._random.choice([item, Value("double", float(item.value))])
            if item.kind == "int" and self._is(0.05)
            else item
            for item in made
        ]

    def _event(self, aggregate_id: Value, kind: str, event_type: str, version: Value) -> Fields:
        data: Fields = [
            (name, held) for name, way in EVENTS.get(event_type, {}).items() for held in self._values(name, way)
        ]
        self._random.shuffle(data)
        # The envelope repeated, and stale.
        data += [("version", Value("double", 99.0)), ("aggregate_id", string("stale"))]
        held = self._random.choice(ODD) if self._is(self._odd / 4) else Value("document", data)
        named = self._random.choice(ODD) if self._is(self._odd / 8) else string(event_type)
        event: Fields = [
            ("_id", Value("objectId", self._random.randbytes(12).hex())),
            ("aggregate_id", aggregate_id),
            ("aggregate_type", self._kind(kind)),
            ("event_type", named),
            ("version", version),
            ("data", held),
            ("metadata", Value("document", [("correlation_id", string(""))])),
            ("occurred_at", Value("date", self._random.randrange(10**12))),
            ("created_at", Value("date", 10**12)),
        ]
        without = (
            self._random.choice(["version", "data", "event_type", "occurred_at"]) if self._is(self._odd / 4) else ""
        )
        return [field for field in event if field[0] != without]

    def _kind(self, kind: str) -> Value:
        """The aggregate type, perhaps of a type by which a query finds it all the same."""
        if not self._is(self._odd / 8):
            return string(kind)
        odd = (Value("symbol", kind), Value("code", kind), Value("array", [string(kind), NULL]))
        return self._random.choice(odd)

    def _values(self, name: str, way: str) -> list[Value]:
        if self._is(self._odd):
            match self._random.randrange(4):
                case 0:
                    return []
                case 1:
                    # Twice: the last one counts.
                    return [self._random.choice(ODD), self._value(name, way)]
                case _:
                    return [self._random.choice(ODD)]
        return [self._value(name, way)]

    def _value(self, name: str, way: str) -> Value:
        choose = self._random.choice
        match way:
            case "bool":
                return Value("bool", choose([True, False]))
            case "whole":
                return Value("double", float(self._random.randrange(10**6)))
            case "time":
                return string(choose(NO_TIMES if self._is(self._odd) else TIMES))
        if name == "ChatID":
            # Few streams claim what another claims.
            return string(choose(_USER) if self._is(self._odd) else str(UUID(int=self._random.getrandbits(128))))
        if name in ("user_id", "assignee_id", "AssigneeID"):
            return string(choose(_USER))
        return string(choose(_WORDS[name]) if name in _WORDS else f"{name} {self._random.randrange(100)}")
