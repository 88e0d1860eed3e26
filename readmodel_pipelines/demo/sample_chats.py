"""The life of one sample chat: what can happen to it next, given what happened before.

Every stream is one that the application could have written: it begins with `chat.created`, only a discussion changes
its type, only a bug has a severity, nothing is removed that is not there, and old values are those that stood. What
grows is capped, so that a chat of a million events keeps a small state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from readmodel_pipelines.demo.sample_stream import Aggregate, Event, Stream, next_event
from readmodel_pipelines.demo.sample_values import ODD_TIMES, Values

STATUSES = {
    "discussion": ("",),
    "task": ("To Do", "In Progress", "Done"),
    "bug": ("New", "Investigating", "Fixed", "Verified"),
    "epic": ("Planned", "In Progress", "Completed"),
}
"""Statuses by type of chat; the first is the one that a new type begins with."""

PRIORITIES = ("Low", "Medium", "High", "Critical")
SEVERITIES = ("Minor", "Major", "Critical", "Blocker")
MIME_TYPES = ("application/pdf", "image/png", "image/jpeg", "text/plain; charset=utf-8", "video/mp4")

_ODD_STATUSES = ("Backlog", "  in progress ", "DONE", "In Review", "Cancelled", "On Hold", "")
_ODD_PRIORITIES = ("high", " LOW ", "Urgent", "")
_ODD_SEVERITIES = (" Major ", "  ", "")
_ODD_SIZES = (0.0, 1.0, 2147483647.0, 2147483648.0, 4294967297.0, 9007199254740991.0)
_MOST_PARTICIPANTS = 24


class _Chat(Aggregate):
    """One chat and the stream it writes. Each method gives the next event, or None when it cannot happen now."""

    def __init__(self, values: Values, stream: Stream) -> None:
        super().__init__(values, stream)
        self.type = "discussion"
        self.title = self.status = self.priority = self.severity = ""
        self.assignee: str | None = None
        self.due_date: str | None = None
        self.participants: list[str] = []

    def created(self, chat_type: str) -> Event:
        values = self.values
        creator = values.user()
        self.participants.append(creator)
        self.type = chat_type
        own = {
            "workspace_id": values.user(),
            "type": chat_type,
            "is_public": values.chance(0.5),
            "created_by": creator,
            "created_at": values.pick(ODD_TIMES) if values.chance(0.08) else self.stream.now(),
        }
        return self.stream.bare("chat.created", own)

    def creator_joined(self) -> Event:
        return self._joined(self.participants[0], "admin")

    def participant_added(self) -> Event | None:
        if len(self.participants) >= _MOST_PARTICIPANTS:
            return None
        repeated = bool(self.participants) and self.values.chance(0.1)
        user = self.values.pick(self.participants) if repeated else self.values.user()
        self.participants.append(user)
        return self._joined(user, "admin" if self.values.chance(0.3) else "member")

    def participant_removed(self) -> Event | None:
        if not self.participants:
            return None
        user = self.values.pick(self.participants)
        self.participants = [other for other in self.participants if other != user]
        return self.stream.bare("chat.participant_removed", {"user_id": user})

    def type_changed(self) -> Event | None:
        if self.type != "discussion":
            return None
        self.type = self.values.pick(("task", "bug", "epic"))
        self.title = self.values.title()
        self.status = STATUSES[self.type][0]
        own = {"old_type": "discussion", "new_type": self.type, "title": self.title}
        return self.stream.traced("chat.type_changed", own, self.values.user())

    def status_changed(self) -> Event | None:
        return self._changed("chat.status_changed", "status", _ODD_STATUSES, 0.03, STATUSES[self.type])

    def user_assigned(self) -> Event | None:
        self.assignee = self.values.user()
        return self._by_someone("chat.user_assigned", {"assignee_id": self.assignee}, "assigned_by")

    def assignee_removed(self) -> Event | None:
        return self._removed("chat.assignee_removed", "assignee", "previous_assignee_id")

    def priority_set(self) -> Event | None:
        return self._changed("chat.priority_set", "priority", _ODD_PRIORITIES, 0.03, PRIORITIES)

    def severity_set(self) -> Event | None:
        if self.type != "bug":
            return None
        return self._changed("chat.severity_set", "severity", _ODD_SEVERITIES, 0.06, SEVERITIES)

    def due_date_set(self) -> Event | None:
        own = {} if self.due_date is None else {"old_due_date": self.due_date}
        self.due_date = own["new_due_date"] = self.values.due_date()
        return self._by_someone("chat.due_date_set", own, "changed_by")

    def due_date_removed(self) -> Event | None:
        return self._removed("chat.due_date_removed", "due_date", "previous_due_date")

    def attachment_added(self) -> Event | None:
        file_id = self.attached()
        if file_id is None:
            return None
        return self._by_someone("chat.attachment_added", {"file_id": file_id, **a_file(self.values)}, "added_by")

    def attachment_removed(self) -> Event | None:
        file_id = self.detached()
        if file_id is None:
            return None
        return self._by_someone("chat.attachment_removed", {"file_id": file_id}, "removed_by")

    def renamed(self) -> Event | None:
        old = self.title
        self.title = self.values.title()
        return self._by_someone("chat.renamed", {"old_title": old, "new_title": self.title}, "renamed_by")

    def closed_or_reopened(self) -> Event | None:
        actor, now = self.values.user(), self.stream.now()
        if self.status == "Closed":
            self.status = STATUSES[self.type][0]
            own = {"reopened_by": actor, "new_status": self.status, "reopened_at": now}
            return self.stream.bare("chat.reopened", own)
        own = {"closed_by": actor, "previous_status": self.status, "closed_at": now}
        self.status = "Closed"
        return self.stream.bare("chat.closed", own)

    def deleted(self) -> Event:
        own = {"deleted_by": self.values.user(), "deleted_at": self.stream.now()}
        return self.stream.bare("chat.deleted", own)

    def _joined(self, user: str, role: str) -> Event:
        own = {"user_id": user, "role": role, "joined_at": self.stream.now()}
        return self.stream.bare("chat.participant_added", own)

    def _changed(self, event_type: str, name: str, odd: Sequence[str], share: float, usual: Sequence[str]) -> Event:
        old, new = getattr(self, name), self.values.pick(odd if self.values.chance(share) else usual)
        setattr(self, name, new)
        return self._by_someone(event_type, {f"old_{name}": old, f"new_{name}": new}, "changed_by")

    def _removed(self, event_type: str, name: str, previous: str) -> Event | None:
        old = getattr(self, name)
        if old is None:
            return None
        setattr(self, name, None)
        return self._by_someone(event_type, {previous: old}, "removed_by")

    def _by_someone(self, event_type: str, own: Event, actor_field: str) -> Event:
        actor = self.values.user()
        own[actor_field] = actor
        return self.stream.traced(event_type, own, actor)


def a_file(values: Values) -> Event:
    """Name, size (bytes) and MIME type of an attachment, under the names that an event uses."""
    size = values.pick(_ODD_SIZES) if values.chance(0.1) else float(int(values.random() * 30_000_000))
    return {"file_name": f"{values.title()}.bin", "file_size": size, "mime_type": values.pick(MIME_TYPES)}


_Action = Callable[[_Chat], Event | None]

_PEOPLE: tuple[_Action, ...] = (_Chat.participant_added,) * 4 + (_Chat.participant_removed,) * 3
_FILES: tuple[_Action, ...] = (_Chat.attachment_added,) * 4 + (_Chat.attachment_removed,) * 2
_IN_A_DISCUSSION: tuple[_Action, ...] = (*_PEOPLE, *(_Chat.renamed,) * 3, *(_Chat.type_changed,) * 3)
_IN_WORK: tuple[_Action, ...] = (
    *_PEOPLE,
    *_FILES,
    *(_Chat.renamed,) * 2,
    *(_Chat.status_changed,) * 5,
    *(_Chat.user_assigned,) * 4,
    *(_Chat.assignee_removed,) * 2,
    *(_Chat.priority_set,) * 3,
    *(_Chat.severity_set,) * 3,
    *(_Chat.due_date_set,) * 4,
    *(_Chat.due_date_removed,) * 2,
    *(_Chat.closed_or_reopened,) * 3,
)
_FLAT: tuple[_Action, ...] = (*_PEOPLE, *_FILES, *(_Chat.renamed,) * 3, *(_Chat.status_changed,) * 3)
_FIRST_TYPES = ("discussion",) * 7 + ("task", "bug", "epic")


def chat_life(values: Values, chat_id: str, events: int) -> Iterator[Event]:
    """The stream of one chat: that many events, of every type that fits."""
    chat = _Chat(values, Stream(values, chat_id, "Chat", stale_data_version=False))
    # One in four deleted chats goes on afterwards: the application does not forbid it.
    delete_at = events - 2 * values.chance(0.25) if values.chance(0.1) else 0
    yield chat.created(values.pick(_FIRST_TYPES))
    for version in range(2, events + 1):
        if version == 2:
            yield chat.creator_joined()
        elif version == delete_at:
            yield chat.deleted()
        else:
            yield next_event(chat, _IN_A_DISCUSSION if chat.type == "discussion" else _IN_WORK)


def long_chat_life(values: Values, chat_id: str, events: int) -> Iterator[Event]:
    """The stream of one task that is renamed, moved, joined and left, given files and rid of them, all the time."""
    chat = _Chat(values, Stream(values, chat_id, "Chat", stale_data_version=False))
    yield chat.created("task")
    for _ in range(events - 1):
        yield next_event(chat, _FLAT)
