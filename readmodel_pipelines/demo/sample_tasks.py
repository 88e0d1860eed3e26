"""The life of one legacy task, as the application's first generation stored it: streams of aggregate type `Task`.

Fields have Go's names, null stands for «none», and `data.version` stays at 1 whatever the event's version. Each stream
begins with `task.created` and has a chat id that no other stream has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from readmodel_pipelines.demo.sample_chats import PRIORITIES, a_file
from readmodel_pipelines.demo.sample_stream import Aggregate, Event, Stream, next_event
from readmodel_pipelines.demo.sample_values import Values

TASK_STATUSES = ("Backlog", "To Do", "In Progress", "In Review", "Done", "Cancelled")


class _Task(Aggregate):
    """One task and the stream it writes. Each method gives the next event, or None when it cannot happen now."""

    def __init__(self, values: Values, stream: Stream) -> None:
        super().__init__(values, stream)
        self.status = "To Do"
        self.priority = values.pick(PRIORITIES)
        self.assignee: str | None = None
        self.due_date: str | None = None

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
        return self.stream.traced("task.created", own)

    def updated(self) -> Event | None:
        return self.stream.requested("task.updated", {"Title": self.values.title()}, self.values.user())

    def status_changed(self) -> Event | None:
        return self._changed("status", "Status", self.values.pick(TASK_STATUSES))

    def assignee_changed(self) -> Event | None:
        nobody = self.assignee is not None and self.values.chance(0.4)
        return self._changed("assignee", "Assignee", None if nobody else self.values.user())

    def priority_changed(self) -> Event | None:
        return self._changed("priority", "Priority", self.values.pick(PRIORITIES))

    def due_date_changed(self) -> Event | None:
        none = self.due_date is not None and self.values.chance(0.4)
        return self._changed("due_date", "DueDate", None if none else self.values.due_date())

    def custom_field_set(self) -> Event | None:
        own = {"Key": self.values.pick(("estimate", "team", "customer")), "Value": self.values.title()}
        return self.stream.requested("task.custom_field_set", own, self.values.user())

    def attachment_added(self) -> Event | None:
        file_id = self.attached()
        if file_id is None:
            return None
        actor = self.values.user()
        own = {"file_id": file_id, **a_file(self.values), "added_by": actor}
        return self.stream.requested("task.attachment.added", own, actor)

    def attachment_removed(self) -> Event | None:
        file_id = self.detached()
        if file_id is None:
            return None
        actor = self.values.user()
        return self.stream.requested("task.attachment.removed", {"file_id": file_id, "removed_by": actor}, actor)

    def deleted(self) -> Event:
        return self.stream.requested("task.deleted", {}, self.values.user())

    def _changed(self, name: str, of_go: str, new: str | None) -> Event:
        own = {f"Old{of_go}": getattr(self, name), f"New{of_go}": new, "ChangedBy": self.values.user()}
        setattr(self, name, new)
        return self.stream.traced(f"task.{name}_changed", own)


_ACTIONS: tuple[Callable[[_Task], Event | None], ...] = (
    *(_Task.status_changed,) * 5,
    *(_Task.assignee_changed,) * 4,
    *(_Task.priority_changed,) * 3,
    *(_Task.due_date_changed,) * 4,
    *(_Task.updated,) * 2,
    *(_Task.custom_field_set,) * 2,
    *(_Task.attachment_added,) * 3,
    *(_Task.attachment_removed,) * 2,
)


def task_life(values: Values, task_id: str, events: int) -> Iterator[Event]:
    """The stream of one legacy task: that many events, of every type that fits."""
    task = _Task(values, Stream(values, task_id, "Task", stale_data_version=True))
    delete_last = values.chance(0.15)
    yield task.created()
    for version in range(2, events + 1):
        yield task.deleted() if version == events and delete_last else next_event(task, _ACTIONS)
