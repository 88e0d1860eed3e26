"""Sample events in the application's own form (`DATA_CONTRACT.md`), for the demo, the tests and the benchmarks.

The same arguments give the same documents, including ObjectIds, because nothing here reads a clock. Streams come in
order of aggregate id, then version. They are made one event at a time, so a million events need no memory.

Every stream could come from the application. It begins with the creation, and versions have no gaps. Only a discussion
changes its type, and only a bug has a severity. Only existing things are removed, and old values are the previous ones.
Growth is limited, so that a chat of a million events has a small state.
"""

from collections.abc import Callable, Iterator, Sequence

from readmodel_pipelines.demo.sample_stream import ODD_TIMES, Event, Stream, Values

# By type of chat; a new chat type begins with the first.
_STATUSES = {
    "discussion": ("",),
    "task": ("To Do", "In Progress", "Done"),
    "bug": ("New", "Investigating", "Fixed", "Verified"),
    "epic": ("Planned", "In Progress", "Completed"),
}
_TASK_STATUSES = ("Backlog", "To Do", "In Progress", "In Review", "Done", "Cancelled")
_PRIORITIES = ("Low", "Medium", "High", "Critical")
_SEVERITIES = ("Minor", "Major", "Critical", "Blocker")
_FIRST_TYPES = ("discussion",) * 7 + ("task", "bug", "epic")

_ODD_STATUSES = ("Backlog", "  in progress ", "DONE", "In Review", "Cancelled", "On Hold", "")
_ODD_PRIORITIES = ("high", " LOW ", "Urgent", "")
_ODD_SEVERITIES = (" Major ", "  ", "")
_MOST_PARTICIPANTS = 24


def chat_events(streams: int, *, seed: int = 0, mean_events: int = 20) -> Iterator[Event]:
    """The events of `streams` chats: event documents, ready to insert.

    Args:
        streams: the number of chats.
        seed: another seed gives other chats.
        mean_events: the average number of events per chat; a chat has up to 3 times as many.
    """
    return _streams(_chat_life, Values(seed, "chats"), streams, mean_events)


def task_events(streams: int, *, seed: int = 0, mean_events: int = 9) -> Iterator[Event]:
    """The events of that many legacy tasks; arguments as for `chat_events`."""
    return _streams(_task_life, Values(seed, "tasks"), streams, mean_events)


def long_stream(events: int, *, seed: int = 0) -> Iterator[Event]:
    """One stream of exactly that many events: a task that is renamed, moved, joined and left repeatedly."""
    _at_least("events", events, 1)
    values = Values(seed, "long")
    chat = _Chat(values, values.uuid())
    return (chat.some(_FLAT) if number else chat.created("task") for number in range(events))


def _streams(
    life: Callable[[Values, str, int], Iterator[Event]], values: Values, streams: int, mean_events: int
) -> Iterator[Event]:
    _at_least("streams", streams, 0)
    _at_least("mean_events", mean_events, 1)
    return (
        event
        for index in range(streams)
        # The square of a uniform draw has the mean 1/3: many short streams, a few long ones.
        for event in life(
            values, values.ascending_uuid(index, streams), 1 + int((3 * mean_events - 1) * values.random() ** 2)
        )
    )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}, but sample data needs at least {least}. Pass a larger number.")


class _Chat(Stream):
    """One chat."""

    aggregate_type = "Chat"
    type = "discussion"
    title = status = priority = severity = ""

    def __init__(self, values: Values, chat_id: str) -> None:
        super().__init__(values, chat_id)
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
            "created_at": values.pick(ODD_TIMES) if values.chance(0.08) else self.now(),
        }
        return self.event("chat.created", own)

    def joined(self, user: str, role: str) -> Event:
        return self.event("chat.participant_added", {"user_id": user, "role": role, "joined_at": self.now()})

    def participant_added(self) -> Event | None:
        if len(self.participants) >= _MOST_PARTICIPANTS:
            return None
        repeated = bool(self.participants) and self.values.chance(0.1)
        user = self.values.pick(self.participants) if repeated else self.values.user()
        self.participants.append(user)
        return self.joined(user, "admin" if self.values.chance(0.3) else "member")

    def participant_removed(self) -> Event | None:
        if not self.participants:
            return None
        user = self.values.pick(self.participants)
        self.participants = [other for other in self.participants if other != user]
        return self.event("chat.participant_removed", {"user_id": user})

    def type_changed(self) -> Event | None:
        if self.type != "discussion":
            return None
        self.type = self.values.pick(("task", "bug", "epic"))
        self.title = self.values.title()
        self.status = _STATUSES[self.type][0]
        own = {"old_type": "discussion", "new_type": self.type, "title": self.title}
        return self.traced("chat.type_changed", own, self.values.user())

    def status_changed(self) -> Event:
        return self._changed("chat.status_changed", "status", _ODD_STATUSES, 0.03, _STATUSES[self.type])

    def user_assigned(self) -> Event:
        self.assignee = self.values.user()
        return self._by_someone("chat.user_assigned", {"assignee_id": self.assignee}, "assigned_by")

    def assignee_removed(self) -> Event | None:
        return self._removed("chat.assignee_removed", "assignee", "previous_assignee_id")

    def priority_set(self) -> Event:
        return self._changed("chat.priority_set", "priority", _ODD_PRIORITIES, 0.03, _PRIORITIES)

    def severity_set(self) -> Event | None:
        if self.type != "bug":
            return None
        return self._changed("chat.severity_set", "severity", _ODD_SEVERITIES, 0.06, _SEVERITIES)

    def due_date_set(self) -> Event:
        own = {} if self.due_date is None else {"old_due_date": self.due_date}
        self.due_date = own["new_due_date"] = self.values.due_date()
        return self._by_someone("chat.due_date_set", own, "changed_by")

    def due_date_removed(self) -> Event | None:
        return self._removed("chat.due_date_removed", "due_date", "previous_due_date")

    def attachment_added(self) -> Event | None:
        own = self.attached()
        return own and self._by_someone("chat.attachment_added", own | self.a_file(), "added_by")

    def attachment_removed(self) -> Event | None:
        own = self.detached()
        return own and self._by_someone("chat.attachment_removed", own, "removed_by")

    def renamed(self) -> Event:
        old, self.title = self.title, self.values.title()
        return self._by_someone("chat.renamed", {"old_title": old, "new_title": self.title}, "renamed_by")

    def closed_or_reopened(self) -> Event:
        actor, now = self.values.user(), self.now()
        if self.status == "Closed":
            self.status = _STATUSES[self.type][0]
            return self.event("chat.reopened", {"reopened_by": actor, "new_status": self.status, "reopened_at": now})
        own = {"closed_by": actor, "previous_status": self.status, "closed_at": now}
        self.status = "Closed"
        return self.event("chat.closed", own)

    def deleted(self) -> Event:
        return self.event("chat.deleted", {"deleted_by": self.values.user(), "deleted_at": self.now()})

    def _changed(self, event_type: str, name: str, odd: Sequence[str], share: float, usual: Sequence[str]) -> Event:
        old, new = getattr(self, name), self.values.pick(odd if self.values.chance(share) else usual)
        setattr(self, name, new)
        return self._by_someone(event_type, {f"old_{name}": old, f"new_{name}": new}, "changed_by")

    def _by_someone(self, event_type: str, own: Event, actor_field: str) -> Event:
        actor = own[actor_field] = self.values.user()
        return self.traced(event_type, own, actor)

    def _removed(self, event_type: str, name: str, previous: str) -> Event | None:
        old = getattr(self, name)
        if old is None:
            return None
        setattr(self, name, None)
        return self._by_someone(event_type, {previous: old}, "removed_by")


class _Task(Stream):
    """One legacy task, as the application's first generation stored it: fields have Go's names, null means «none»."""

    aggregate_type = "Task"
    status = "To Do"

    def __init__(self, values: Values, task_id: str) -> None:
        super().__init__(values, task_id)
        self.priority = values.pick(_PRIORITIES)

    def created(self) -> Event:
        values = self.values
        self.assignee = values.user() if values.chance(0.5) else None
        self.due_date = values.due_date() if values.chance(0.45) else None
        own = {
            "ChatID": values.uuid(),
            "Title": values.title(),
            "EntityType": values.pick(("task", "bug", "epic")),
            "Status": self.status,
            "Priority": self.priority,
            "AssigneeID": self.assignee,
            "DueDate": self.due_date,
            "CreatedBy": values.user(),
        }
        return self.traced("task.created", own)

    def updated(self) -> Event:
        return self.requested("task.updated", {"Title": self.values.title()}, self.values.user())

    def status_changed(self) -> Event:
        return self._changed("status", "Status", self.values.pick(_TASK_STATUSES))

    def assignee_changed(self) -> Event:
        nobody = self.assignee is not None and self.values.chance(0.4)
        return self._changed("assignee", "Assignee", None if nobody else self.values.user())

    def priority_changed(self) -> Event:
        return self._changed("priority", "Priority", self.values.pick(_PRIORITIES))

    def due_date_changed(self) -> Event:
        none = self.due_date is not None and self.values.chance(0.4)
        return self._changed("due_date", "DueDate", None if none else self.values.due_date())

    def custom_field_set(self) -> Event:
        own = {"Key": self.values.pick(("estimate", "team", "customer")), "Value": self.values.title()}
        return self.requested("task.custom_field_set", own, self.values.user())

    def attachment_added(self) -> Event | None:
        own = self.attached()
        if own is None:
            return None
        actor = self.values.user()
        return self.requested("task.attachment.added", own | self.a_file() | {"added_by": actor}, actor)

    def attachment_removed(self) -> Event | None:
        own = self.detached()
        if own is None:
            return None
        actor = self.values.user()
        return self.requested("task.attachment.removed", own | {"removed_by": actor}, actor)

    def deleted(self) -> Event:
        return self.requested("task.deleted", {}, self.values.user())

    def _changed(self, name: str, of_go: str, new: str | None) -> Event:
        own = {f"Old{of_go}": getattr(self, name), f"New{of_go}": new, "ChangedBy": self.values.user()}
        setattr(self, name, new)
        return self.traced(f"task.{name}_changed", own)


_PEOPLE = (*(_Chat.participant_added,) * 4, *(_Chat.participant_removed,) * 3)
_FILES = (*(_Chat.attachment_added,) * 4, *(_Chat.attachment_removed,) * 2)
_IN_A_DISCUSSION = (*_PEOPLE, *(_Chat.renamed,) * 3, *(_Chat.type_changed,) * 3)
_IN_WORK = (
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
_FLAT = (*_PEOPLE, *_FILES, *(_Chat.renamed,) * 3, *(_Chat.status_changed,) * 3)
_OF_TASKS = (
    *(_Task.status_changed,) * 5,
    *(_Task.assignee_changed,) * 4,
    *(_Task.priority_changed,) * 3,
    *(_Task.due_date_changed,) * 4,
    *(_Task.updated,) * 2,
    *(_Task.custom_field_set,) * 2,
    *(_Task.attachment_added,) * 3,
    *(_Task.attachment_removed,) * 2,
)


def _chat_life(values: Values, chat_id: str, events: int) -> Iterator[Event]:
    chat = _Chat(values, chat_id)
    # One in four deleted chats continues afterwards, which the application does not forbid.
    delete_at = events - 2 * values.chance(0.25) if values.chance(0.1) else 0
    yield chat.created(values.pick(_FIRST_TYPES))
    for version in range(2, events + 1):
        if version == 2:
            yield chat.joined(chat.participants[0], "admin")
        elif version == delete_at:
            yield chat.deleted()
        else:
            yield chat.some(_IN_A_DISCUSSION if chat.type == "discussion" else _IN_WORK)


def _task_life(values: Values, task_id: str, events: int) -> Iterator[Event]:
    task = _Task(values, task_id)
    delete_last = values.chance(0.15)
    yield task.created()
    for version in range(2, events + 1):
        yield task.deleted() if version == events and delete_last else task.some(_OF_TASKS)
