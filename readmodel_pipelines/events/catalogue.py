"""The event catalogue: every event type of the application, and the own fields that a fold reads from it.

The reader asks MongoDB for these fields and no others, so a fold must not read a field that is not named here; a test
holds every fold to that. The types and fields are DATA_CONTRACT.md, «Events».
"""

from __future__ import annotations

from collections.abc import Mapping

Catalogue = Mapping[str, tuple[str, ...]]

CHAT_EVENTS: Catalogue = {
    "chat.created": ("workspace_id", "type", "is_public", "created_by", "created_at"),
    "chat.participant_added": ("user_id",),
    "chat.participant_removed": ("user_id",),
    "chat.type_changed": ("new_type", "title"),
    "chat.status_changed": ("new_status",),
    "chat.user_assigned": ("assignee_id",),
    "chat.assignee_removed": (),
    "chat.priority_set": ("new_priority",),
    "chat.due_date_set": ("new_due_date",),
    "chat.due_date_removed": (),
    "chat.attachment_added": ("file_id", "file_name", "file_size", "mime_type"),
    "chat.attachment_removed": ("file_id",),
    "chat.renamed": ("new_title",),
    "chat.severity_set": ("new_severity",),
    "chat.deleted": (),
    "chat.closed": (),
    "chat.reopened": ("new_status",),
}

TASK_EVENTS: Catalogue = {
    "task.created": ("ChatID", "Title", "EntityType", "Status", "Priority", "AssigneeID", "DueDate", "CreatedBy"),
    "task.updated": (),
    "task.status_changed": ("NewStatus",),
    "task.assignee_changed": ("NewAssignee",),
    "task.priority_changed": ("NewPriority",),
    "task.due_date_changed": ("NewDueDate",),
    "task.custom_field_set": (),
    "task.attachment.added": (),
    "task.attachment.removed": (),
    "task.deleted": (),
}
