"""Tasks: the `tasks_read_model` document, from chat streams (current) or from legacy task streams.

Two generations of the application fill this read model; the setting `task_source` chooses between the two projections
at the end of this file. DATA_CONTRACT.md, «Tasks», has the rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.events.stream import EventType, Fold, sets
from readmodel_pipelines.events.values import ZERO_TIME_MS, Event, occurred_at_ms, optional_text, optional_time_ms, text
from readmodel_pipelines.projections.chat import CHAT_FOLD, Chat
from readmodel_pipelines.projections.names import TASK
from readmodel_pipelines.projections.projection import Document, Projection, stored_version

# White space in the application's language; in Python it also includes \x1c to \x1f.
_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

_TASK_STATUS = {
    "": "To Do",
    "new": "To Do",
    "planned": "To Do",
    "investigating": "In Progress",
    "fixed": "In Review",
    "verified": "Done",
    "completed": "Done",
    "closed": "Done",
    "backlog": "Backlog",
    "to do": "To Do",
    "in progress": "In Progress",
    "in review": "In Review",
    "done": "Done",
    "cancelled": "Cancelled",
}
_TASK_PRIORITY = {"low": "Low", "medium": "Medium", "high": "High", "critical": "Critical"}


def task_document_of_chat(aggregate_id: str, chat: Chat) -> Document | None:
    """The `tasks_read_model` document of a chat, or None for a discussion and for a deleted chat."""
    if chat.deleted or chat.type == "discussion":
        return None
    has_severity = chat.type == "bug" and chat.severity.strip(_SPACE)
    return {
        "task_id": aggregate_id,
        "chat_id": aggregate_id,
        "title": chat.title,
        "entity_type": chat.type,
        "status": _TASK_STATUS.get(chat.status.strip(_SPACE).lower(), "To Do"),
        "priority": _TASK_PRIORITY.get(chat.priority.strip(_SPACE).lower(), "Medium"),
        "severity": chat.severity if has_severity else None,
        "assigned_to": chat.assignee,
        "due_date": _date(chat.due_date),
        "created_by": chat.created_by,
        "created_at": DatetimeMS(chat.created_at),
        "version": stored_version(chat.version),
        "attachments": list(chat.attachments.values()),
    }


@dataclass(slots=True, eq=False)
class Task:
    """The state of a legacy task stream."""

    created: bool = False
    version: int = 0
    chat_id: str = ""
    title: str = ""
    entity_type: str = ""
    status: str = ""
    priority: str = ""
    created_by: str = ""
    created_at: int = ZERO_TIME_MS
    assignee: str | None = None
    due_date: int | None = None


def _created(task: Task, event: Event) -> None:
    task.created = True
    task.chat_id = text(event, "ChatID")
    task.title = text(event, "Title")
    task.entity_type = text(event, "EntityType")
    task.status = text(event, "Status")
    task.priority = text(event, "Priority")
    task.assignee = optional_text(event, "AssigneeID")
    task.due_date = optional_time_ms(event, "DueDate")
    task.created_by = text(event, "CreatedBy")
    task.created_at = occurred_at_ms(event)


# They change nothing in the read model, but count in the version.
_ONLY_COUNTED: EventType[Task] = EventType(lambda _task, _event: None)

_EVENTS: Mapping[str, EventType[Task]] = {
    "task.created": EventType(
        _created, ("ChatID", "Title", "EntityType", "Status", "Priority", "AssigneeID", "DueDate", "CreatedBy")
    ),
    "task.updated": _ONLY_COUNTED,
    "task.status_changed": sets("status", text, "NewStatus"),
    "task.assignee_changed": sets("assignee", optional_text, "NewAssignee"),
    "task.priority_changed": sets("priority", text, "NewPriority"),
    "task.due_date_changed": sets("due_date", optional_time_ms, "NewDueDate"),
    "task.custom_field_set": _ONLY_COUNTED,
    "task.attachment.added": _ONLY_COUNTED,
    "task.attachment.removed": _ONLY_COUNTED,
    "task.deleted": _ONLY_COUNTED,
}

TASK_FOLD: Fold[Task] = Fold(
    aggregate_type="task",
    stored_as=("Task", "task"),
    prefix="task.",
    events=_EVENTS,
    start=Task,
    envelope=("occurred_at",),
)
"""The fold of legacy task streams, for read models of your own too."""


def task_document(aggregate_id: str, task: Task) -> Document:
    """The `tasks_read_model` document of a legacy task stream; it has neither severity nor attachments."""
    return {
        "task_id": aggregate_id,
        "chat_id": task.chat_id,
        "title": task.title,
        "entity_type": task.entity_type,
        "status": task.status,
        "priority": task.priority,
        "assigned_to": task.assignee,
        "due_date": _date(task.due_date),
        "created_by": task.created_by,
        "created_at": DatetimeMS(task.created_at),
        "version": stored_version(task.version),
    }


def _date(milliseconds: int | None) -> DatetimeMS | None:
    return None if milliseconds is None else DatetimeMS(milliseconds)


# A task of a chat has every possible field.
_OWNED = tuple(task_document_of_chat("", Chat()) or ())

TASKS_OF_CHATS = Projection(
    name=TASK,
    read_model="tasks_read_model",
    fold=CHAT_FOLD,
    key="task_id",
    unique=("chat_id",),
    owned=_OWNED,
    document=task_document_of_chat,
    optional=True,
    decided_by={"chat.created": ("type",), "chat.type_changed": ("new_type",), "chat.deleted": ()},
    description="One document per task, bug or epic, made from its chat's stream.",
)

TASKS_OF_LEGACY_STREAMS = Projection(
    name=TASK,
    read_model="tasks_read_model",
    fold=TASK_FOLD,
    key="task_id",
    unique=("chat_id",),
    claims=("task.created", "ChatID"),
    owned=_OWNED,
    document=task_document,
    description="One document per task, made from its legacy task stream.",
)
