"""A second implementation of fold and integrity, written from DATA_CONTRACT.md alone.

It imports nothing of the package, and reads values as `stored_values` and `oracle_values` have them. Slow and plain on
purpose: it is what the fast one is measured against.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from readmodel_pipelines_tests.support.oracle_values import (
    NO_TIME,
    Bad,
    boolean,
    integer,
    is_missing,
    text,
    text_or_none,
    time,
    time_or_none,
)
from readmodel_pipelines_tests.support.stored_values import NULL, Value

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


TWO_KEYS = object()


def claims(event: Mapping[str, Value]) -> object:
    """The ChatID that an event of a legacy stream claims; None for a damaged one, and `TWO_KEYS`."""
    event_type, data = event.get("event_type"), event.get("data")
    sound = event_type == Value("string", "task.created") and event["aggregate_type"].kind == "string"
    if not sound or data is None or data.kind != "document":
        return None
    if "ChatID" in data.value.twice:
        return TWO_KEYS
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
    if is_missing(value):
        raise Bad("missing_version")
    version = integer(value, "bad_version")
    if version < 1:
        raise Bad("bad_version")
    if version <= last:
        raise Bad("repeated_version")
    if version > last + 1 and "version_gap" not in allowed:
        raise Bad("version_gap")
    return version
