"""A second implementation of fold, times and integrity, written from DATA_CONTRACT.md alone.

It imports nothing of the package and does not use the driver's decoder either: it reads BSON byte by byte, so that a
symbol stays a symbol and a text that is no UTF-8 stays one. Slow and plain on purpose: it is what the fast one is
measured against.
"""

import struct
from calendar import isleap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Value(NamedTuple):
    """A BSON value: the name of its type, and what it holds in Python's terms."""

    kind: str
    value: Any

    def __hash__(self) -> int:
        return hash((self.kind, repr(self.value)))


NULL = Value("null", None)


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
            return Value("document", dict(inner)), end
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


# Values


class Bad(Exception):
    """A rule that an event breaks: its reason."""


def _missing(value: Value | None) -> bool:
    return value is None or value.kind == "null"


def text(value: Value | None) -> str:
    """A text, as «Values» has it."""
    if _missing(value):
        return ""
    assert value is not None
    if value.kind != "string":
        raise Bad("bad_field")
    return str(value.value)


def text_or_none(value: Value | None) -> str | None:
    return None if _missing(value) else text(value)


def boolean(value: Value | None) -> bool:
    if _missing(value):
        return False
    assert value is not None
    if value.kind == "bool" or (value.kind in ("int", "long", "double") and value.value in (0, 1)):
        return bool(value.value)
    raise Bad("bad_field")


def integer(value: Value | None, reason: str = "bad_field") -> int:
    if _missing(value):
        return 0
    assert value is not None
    held = value.value
    if value.kind in ("int", "long"):
        return int(held)
    if value.kind == "double" and held == held and abs(held) != float("inf") and held == int(held):
        whole = int(held)
        if -(2**63) <= whole < 2**63:
            return whole
    raise Bad(reason)


# Times: milliseconds since 1970, rounded down

NO_TIME = -62_135_596_800_000


def time(value: Value | None) -> int:
    """Milliseconds of a time, as «Times» has it."""
    if _missing(value):
        return NO_TIME
    assert value is not None
    if value.kind == "date":
        return int(value.value)
    if value.kind != "string":
        raise Bad("bad_field")
    return _rfc3339(value.value)


def time_or_none(value: Value | None) -> int | None:
    return None if _missing(value) else time(value)


def _digits(held: str, start: int, length: int) -> int:
    part = held[start : start + length]
    if len(part) != length or any(digit not in "0123456789" for digit in part):
        raise Bad("bad_field")
    return int(part)


def _mark(held: str, at: int, allowed: str) -> None:
    if held[at : at + 1] not in tuple(allowed):
        raise Bad("bad_field")


def _rfc3339(held: str) -> int:
    for at, mark in ((4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")):
        _mark(held, at, mark)
    year, month, day = _digits(held, 0, 4), _digits(held, 5, 2), _digits(held, 8, 2)
    hour, minute, second = _digits(held, 11, 2), _digits(held, 14, 2), _digits(held, 17, 2)
    lengths = [31, 29 if isleap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    if not 1 <= month <= 12 or not 1 <= day <= lengths[month - 1] or hour > 23 or minute > 59 or second > 59:
        raise Bad("bad_field")
    rest, fraction = held[19:], ""
    if rest.startswith("."):
        while rest[1 + len(fraction) : 2 + len(fraction)] in tuple("0123456789"):
            fraction += rest[1 + len(fraction)]
        rest = rest[1 + len(fraction) :]
        if not 1 <= len(fraction) <= 9:
            raise Bad("bad_field")
    milliseconds = int((fraction + "000")[:3])
    return (
        _days(year, month, day, lengths) * 86_400 + hour * 3600 + minute * 60 + second - _offset(rest)
    ) * 1000 + milliseconds


def _days(year: int, month: int, day: int, lengths: Sequence[int]) -> int:
    """Days since 1970 in the proleptic Gregorian calendar, counted year by year."""
    years = sum(365 + isleap(item) for item in range(1970, year)) - sum(
        365 + isleap(item) for item in range(year, 1970)
    )
    return years + sum(lengths[: month - 1]) + day - 1


def _offset(rest: str) -> int:
    if rest in ("Z", "z"):
        return 0
    if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":":
        raise Bad("bad_field")
    hours, minutes = _digits(rest, 1, 2), _digits(rest, 4, 2)
    if hours > 23 or minutes > 59:
        raise Bad("bad_field")
    return (1 if rest[0] == "+" else -1) * (hours * 3600 + minutes * 60)


# Folding

CHAT_EVENTS = {
    "chat.created",
    "chat.participant_added",
    "chat.participant_removed",
    "chat.type_changed",
    "chat.status_changed",
    "chat.user_assigned",
    "chat.assignee_removed",
    "chat.priority_set",
    "chat.due_date_set",
    "chat.due_date_removed",
    "chat.attachment_added",
    "chat.attachment_removed",
    "chat.renamed",
    "chat.severity_set",
    "chat.deleted",
    "chat.closed",
    "chat.reopened",
}
TASK_EVENTS = {
    "task.created",
    "task.updated",
    "task.status_changed",
    "task.assignee_changed",
    "task.priority_changed",
    "task.due_date_changed",
    "task.custom_field_set",
    "task.attachment.added",
    "task.attachment.removed",
    "task.deleted",
}
FIRST_STATUS = {"task": "To Do", "bug": "New", "epic": "Planned"}


class Chat:
    """What a chat stream folds to."""

    def __init__(self) -> None:
        self.workspace_id = self.type = self.title = self.created_by = self.status = self.priority = self.severity = ""
        self.is_public = self.deleted = False
        self.created_at = NO_TIME
        self.participants: list[str] = []
        self.assignee: str | None = None
        self.due_date: int | None = None
        self.attachments: list[tuple[str, str, int, str]] = []

    def apply(self, event_type: str, data: Mapping[str, Value]) -> None:
        """One event; all of its fields are read before anything changes."""
        get = data.get
        match event_type.removeprefix("chat."):
            case "created":
                self.workspace_id, self.type = text(get("workspace_id")), text(get("type"))
                self.is_public, self.created_by = boolean(get("is_public")), text(get("created_by"))
                self.created_at = time(get("created_at"))
            case "participant_added":
                self.participants.append(text(get("user_id")))
            case "participant_removed":
                user = text(get("user_id"))
                self.participants = [item for item in self.participants if item != user]
            case "type_changed":
                self.type, self.title = text(get("new_type")), text(get("title"))
                self.status = FIRST_STATUS.get(self.type, "")
            case "status_changed" | "reopened":
                self.status = text(get("new_status"))
            case "closed":
                self.status = "Closed"
            case "user_assigned":
                self.assignee = text(get("assignee_id"))
            case "assignee_removed":
                self.assignee = None
            case "priority_set":
                self.priority = text(get("new_priority"))
            case "severity_set":
                self.severity = text(get("new_severity"))
            case "renamed":
                self.title = text(get("new_title"))
            case "due_date_set":
                self.due_date = time(get("new_due_date"))
            case "due_date_removed":
                self.due_date = None
            case "attachment_added":
                file_id, name = text(get("file_id")), text(get("file_name"))
                added = (file_id, name, integer(get("file_size")), text(get("mime_type")))
                if all(item[0] != file_id for item in self.attachments):
                    self.attachments.append(added)
            case "attachment_removed":
                file_id = text(get("file_id"))
                self.attachments = [item for item in self.attachments if item[0] != file_id]
            case "deleted":
                self.deleted = True


class Task:
    """What a legacy task stream folds to."""

    def __init__(self) -> None:
        self.chat_id = self.title = self.type = self.status = self.priority = self.created_by = ""
        self.assignee: str | None = None
        self.due_date: int | None = None
        self.created_at = NO_TIME

    def apply(self, event_type: str, data: Mapping[str, Value], occurred_at: Value | None) -> None:
        get = data.get
        match event_type.removeprefix("task."):
            case "created":
                self.chat_id, self.title, self.type = text(get("ChatID")), text(get("Title")), text(get("EntityType"))
                self.status, self.priority = text(get("Status")), text(get("Priority"))
                self.assignee, self.due_date = text_or_none(get("AssigneeID")), time_or_none(get("DueDate"))
                self.created_by, self.created_at = text(get("CreatedBy")), time(occurred_at)
            case "status_changed":
                self.status = text(get("NewStatus"))
            case "priority_changed":
                self.priority = text(get("NewPriority"))
            case "assignee_changed":
                self.assignee = text_or_none(get("NewAssignee"))
            case "due_date_changed":
                self.due_date = time_or_none(get("NewDueDate"))


# Documents


def _string(held: str | None) -> Value:
    return NULL if held is None else Value("string", held)


def _date(held: int | None) -> Value:
    return NULL if held is None else Value("date", held)


def _number(held: int) -> Value:
    return Value("int" if -(2**31) <= held < 2**31 else "long", held)


def chat_document(chat_id: str, chat: Chat) -> dict[str, Value]:
    """«Chats»."""
    made = {
        "chat_id": _string(chat_id),
        "workspace_id": _string(chat.workspace_id),
        "type": _string(chat.type),
        "title": _string(chat.title),
        "created_by": _string(chat.created_by),
        "is_public": Value("bool", chat.is_public),
        "created_at": _date(chat.created_at),
        "participants": Value("array", [_string(user) for user in chat.participants]),
    }
    if chat.type != "discussion":
        made |= {"status": _string(chat.status), "priority": _string(chat.priority)}
        made |= {} if chat.assignee is None else {"assigned_to": _string(chat.assignee)}
        made |= {} if chat.due_date is None else {"due_date": _date(chat.due_date)}
    if chat.type == "bug" and chat.severity != "":
        made["severity"] = _string(chat.severity)
    return made


STATUSES = {
    "": "To Do",
    "new": "To Do",
    "planned": "To Do",
    "to do": "To Do",
    "investigating": "In Progress",
    "in progress": "In Progress",
    "fixed": "In Review",
    "in review": "In Review",
    "verified": "Done",
    "completed": "Done",
    "closed": "Done",
    "done": "Done",
    "backlog": "Backlog",
    "cancelled": "Cancelled",
}
PRIORITIES = {"low": "Low", "medium": "Medium", "high": "High", "critical": "Critical"}
# Unicode's White_Space; Python's own `strip` takes U+001C to U+001F besides.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def task_document(chat_id: str, chat: Chat, version: int) -> dict[str, Value] | None:
    """«Tasks», from chats."""
    if chat.deleted or chat.type == "discussion":
        return None
    files = [
        Value(
            "document",
            {
                "file_id": _string(file_id),
                "file_name": _string(name),
                "file_size": Value("long", size),
                "mime_type": _string(mime),
            },
        )
        for file_id, name, size, mime in chat.attachments
    ]
    severe = chat.type == "bug" and chat.severity.strip(BLANKS) != ""
    return {
        "task_id": _string(chat_id),
        "chat_id": _string(chat_id),
        "title": _string(chat.title),
        "entity_type": _string(chat.type),
        "status": _string(STATUSES.get(chat.status.strip(BLANKS).lower(), "To Do")),
        "priority": _string(PRIORITIES.get(chat.priority.strip(BLANKS).lower(), "Medium")),
        "severity": _string(chat.severity if severe else None),
        "assigned_to": _string(chat.assignee),
        "due_date": _date(chat.due_date),
        "created_by": _string(chat.created_by),
        "created_at": _date(chat.created_at),
        "version": _number(version),
        "attachments": Value("array", files),
    }


def legacy_document(task_id: str, task: Task, version: int) -> dict[str, Value]:
    """«Tasks», from legacy task streams."""
    return {
        "task_id": _string(task_id),
        "chat_id": _string(task.chat_id),
        "title": _string(task.title),
        "entity_type": _string(task.type),
        "status": _string(task.status),
        "priority": _string(task.priority),
        "assigned_to": _string(task.assignee),
        "due_date": _date(task.due_date),
        "created_by": _string(task.created_by),
        "created_at": _date(task.created_at),
        "version": _number(version),
    }


# Streams


def claims(event: Mapping[str, Value]) -> str | None:
    """The ChatID that an event of a legacy stream claims; a damaged one claims nothing."""
    event_type, data = event.get("event_type"), event.get("data")
    sound = event_type == Value("string", "task.created") and event["aggregate_type"].kind == "string"
    if not sound or data is None or data.kind != "document":
        return None
    try:
        return text(data.value.get("ChatID"))
    except Bad:
        return None


@dataclass(frozen=True)
class Expected:
    """What a read model ought to hold for a stream: a document, none, or nothing that can be said (`reason`)."""

    document: dict[str, Value] | None = None
    reason: str = ""
    event_id: Value | None = None


def _is_uuid(held: str) -> bool:
    shape = [len(part) for part in held.split("-")]
    return shape == [8, 4, 4, 4, 12] and all(letter in "0123456789abcdef-" for letter in held)


def expected(
    aggregate_id: Value, events: Sequence[Mapping[str, Value]], kind: str, allowed: Collection[str] = ()
) -> dict[str, Expected]:
    """By read model what a stream wants, its events in order of version; `kind` is `Chat` or `Task`.

    Claims of other streams on the same key are not looked at here. `allowed` are kinds of malformed streams to fold.
    """
    models = ("chats_read_model", "tasks_read_model") if kind == "Chat" else ("tasks_read_model",)
    if aggregate_id.kind != "string" or not _is_uuid(aggregate_id.value):
        return dict.fromkeys(models, Expected(None, "bad_aggregate_id", events[0].get("_id")))
    chat, task, last, counted, created = Chat(), Task(), 0, 0, False
    for event in events:
        try:
            last = _next_version(event.get("version"), last, allowed)
            data = event.get("data")
            if data is None or data.kind != "document":
                raise Bad("bad_data")
            if event["aggregate_type"].kind != "string":
                raise Bad("bad_field")
            event_type = event.get("event_type")
            known = CHAT_EVENTS if kind == "Chat" else TASK_EVENTS
            if event_type is None or event_type.kind not in ("string", "broken string"):
                raise Bad("unknown_event_type")
            name = event_type.value
            if name not in known and "unknown_event_type" not in allowed:
                raise Bad("unknown_event_type")
            if (name if isinstance(name, bytes) else name.encode()).startswith(f"{kind.lower()}.".encode()):
                counted = last
            if name not in known:
                continue
            if kind == "Chat":
                chat.apply(name, data.value)
            else:
                task.apply(name, data.value, event.get("occurred_at"))
            created |= name in ("chat.created", "task.created")
        except Bad as bad:
            return dict.fromkeys(models, Expected(None, str(bad), event.get("_id")))
    if not created:
        return dict.fromkeys(models, Expected(None, "no_created_event", events[0].get("_id")))
    if kind == "Task":
        return {"tasks_read_model": Expected(legacy_document(aggregate_id.value, task, counted))}
    return {
        "chats_read_model": Expected(chat_document(aggregate_id.value, chat)),
        "tasks_read_model": Expected(task_document(aggregate_id.value, chat, counted)),
    }


def _next_version(value: Value | None, last: int, allowed: Collection[str]) -> int:
    if _missing(value):
        raise Bad("missing_version")
    version = integer(value, "bad_version")
    if version < 1:
        raise Bad("bad_version")
    if version <= last:
        raise Bad("repeated_version")
    if version > last + 1 and "version_gap" not in allowed:
        raise Bad("version_gap")
    return version


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
