"""Chats: the fold of a chat stream, and the `chats_read_model` document.

The fold keeps the values for all read models made from chats. It validates all of them for every read model, so that a
stream is malformed for all of them or for none. DATA_CONTRACT.md, «Chats», has the rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

from readmodel_pipelines.events.stream import EventType, Fold, sets
from readmodel_pipelines.events.values import ZERO_TIME_MS, Event, flag, integer, text, time_ms
from readmodel_pipelines.projections.names import CHAT
from readmodel_pipelines.projections.projection import Document, Projection

FIRST_STATUS = {"task": "To Do", "bug": "New", "epic": "Planned"}


@dataclass(slots=True, eq=False)
class Chat:
    """The state of a chat stream. Mutable and with slots, because every event of the hot path changes one."""

    created: bool = False
    deleted: bool = False
    version: int = 0
    workspace_id: str = ""
    type: str = ""
    title: str = ""
    status: str = ""
    priority: str = ""
    severity: str = ""
    created_by: str = ""
    is_public: bool = False
    created_at: int = ZERO_TIME_MS
    assignee: str | None = None
    due_date: int | None = None
    attachments: dict[str, Document] = field(default_factory=dict)
    # Entries by number, so that joining and leaving cost the same with any number of participants.
    _joined: dict[int, str] = field(default_factory=dict)
    _entries_of: dict[str, list[int]] = field(default_factory=dict)
    _next_entry: int = 0

    @property
    def participants(self) -> list[str]:
        """User ids in order of joining; a user who was added twice occurs twice."""
        return list(self._joined.values())

    def join(self, user: str) -> None:
        """Append an entry of the user."""
        self._joined[self._next_entry] = user
        self._entries_of.setdefault(user, []).append(self._next_entry)
        self._next_entry += 1

    def leave(self, user: str) -> None:
        """Remove all entries of the user."""
        for entry in self._entries_of.pop(user, ()):
            del self._joined[entry]


def _created(chat: Chat, event: Event) -> None:
    chat.created = True
    chat.workspace_id = text(event, "workspace_id")
    chat.type = text(event, "type")
    chat.is_public = flag(event, "is_public")
    chat.created_by = text(event, "created_by")
    chat.created_at = time_ms(event, "created_at")


def _type_changed(chat: Chat, event: Event) -> None:
    chat.type = text(event, "new_type")
    chat.title = text(event, "title")
    chat.status = FIRST_STATUS.get(chat.type, "")


def _attachment_added(chat: Chat, event: Event) -> None:
    file_id = text(event, "file_id")
    attachment = {
        "file_id": file_id,
        "file_name": text(event, "file_name"),
        "file_size": Int64(integer(event, "file_size")),
        "mime_type": text(event, "mime_type"),
    }
    chat.attachments.setdefault(file_id, attachment)


def _attachment_removed(chat: Chat, event: Event) -> None:
    chat.attachments.pop(text(event, "file_id"), None)


_EVENTS: Mapping[str, EventType[Chat]] = {
    "chat.created": EventType(_created, ("workspace_id", "type", "is_public", "created_by", "created_at")),
    "chat.participant_added": EventType(lambda chat, event: chat.join(text(event, "user_id")), ("user_id",)),
    "chat.participant_removed": EventType(lambda chat, event: chat.leave(text(event, "user_id")), ("user_id",)),
    "chat.type_changed": EventType(_type_changed, ("new_type", "title")),
    "chat.status_changed": sets("status", text, "new_status"),
    "chat.user_assigned": sets("assignee", text, "assignee_id"),
    "chat.assignee_removed": EventType(lambda chat, _: setattr(chat, "assignee", None)),
    "chat.priority_set": sets("priority", text, "new_priority"),
    "chat.due_date_set": sets("due_date", time_ms, "new_due_date"),
    "chat.due_date_removed": EventType(lambda chat, _: setattr(chat, "due_date", None)),
    "chat.attachment_added": EventType(_attachment_added, ("file_id", "file_name", "file_size", "mime_type")),
    "chat.attachment_removed": EventType(_attachment_removed, ("file_id",)),
    "chat.renamed": sets("title", text, "new_title"),
    "chat.severity_set": sets("severity", text, "new_severity"),
    "chat.deleted": EventType(lambda chat, _: setattr(chat, "deleted", True)),
    "chat.closed": EventType(lambda chat, _: setattr(chat, "status", "Closed")),
    "chat.reopened": sets("status", text, "new_status"),
}

CHAT_FOLD: Fold[Chat] = Fold(
    aggregate_type="chat", stored_as=("Chat", "chat"), prefix="chat.", events=_EVENTS, start=Chat
)
"""The fold of chat streams, for read models of your own too."""


def chat_document(aggregate_id: str, chat: Chat) -> Document:
    """The `chats_read_model` document of a chat; a deleted chat keeps its document."""
    document: dict[str, Any] = {
        "chat_id": aggregate_id,
        "workspace_id": chat.workspace_id,
        "type": chat.type,
        "title": chat.title,
        "is_public": chat.is_public,
        "created_by": chat.created_by,
        "created_at": DatetimeMS(chat.created_at),
        "participants": chat.participants,
    }
    if chat.type != "discussion":
        document["status"] = chat.status
        document["priority"] = chat.priority
        if chat.assignee is not None:
            document["assigned_to"] = chat.assignee
        if chat.due_date is not None:
            document["due_date"] = DatetimeMS(chat.due_date)
        if chat.type == "bug" and chat.severity:
            document["severity"] = chat.severity
    return document


CHATS = Projection(
    name=CHAT,
    read_model="chats_read_model",
    fold=CHAT_FOLD,
    key="chat_id",
    # A bug with all values set has every possible field.
    owned=tuple(chat_document("", Chat(type="bug", severity="any", assignee="", due_date=0))),
    document=chat_document,
    description="One document per chat, as lists and searches show it.",
)
