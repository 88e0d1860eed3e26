"""The `tasks_read_model` document, from chat streams and from legacy task streams."""

from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64

from readmodel_pipelines.projections.chat import CHAT_FOLD, Chat
from readmodel_pipelines.projections.registry import built_in, by_fold, names
from readmodel_pipelines.projections.task import (
    TASK_FOLD,
    TASKS_OF_CHATS,
    TASKS_OF_LEGACY_STREAMS,
    Task,
    task_document,
    task_document_of_chat,
)
from readmodel_pipelines_tests.support.streams import ID, Document, Step, folded

CHAT: Step = ("chat.created", {"type": "bug", "created_by": "ann", "created_at": "2026-03-01T12:00:00.123999999+05:00"})
OF_CHAT: dict[str, Any] = {
    "task_id": ID,
    "chat_id": ID,
    "title": "",
    "entity_type": "bug",
    "status": "To Do",
    "priority": "Medium",
    "severity": None,
    "assigned_to": None,
    "due_date": None,
    "created_by": "ann",
    "created_at": DatetimeMS(1_772_348_400_123),
    "version": 1,
    "attachments": [],
}
LEGACY: Step = (
    "task.created",
    {
        "ChatID": "c",
        "Title": "a title",
        "EntityType": "epic",
        "Status": "Backlog",
        "Priority": "High",
        "AssigneeID": "bob",
        "DueDate": "2026-04-01T00:00:00.999999999Z",
        "CreatedBy": "ann",
    },
)
OF_LEGACY = {
    "task_id": ID,
    "chat_id": "c",
    "title": "a title",
    "entity_type": "epic",
    "status": "Backlog",
    "priority": "High",
    "assigned_to": "bob",
    "due_date": DatetimeMS(1_775_001_600_999),
    "created_by": "ann",
    "created_at": DatetimeMS(1001),
    "version": 1,
}


def of_chat(*steps: Step) -> Document:
    document = task_document_of_chat(ID, folded(CHAT_FOLD, CHAT, *steps))
    assert document is not None
    return document


def of_legacy(*steps: Step) -> Document:
    return task_document(ID, folded(TASK_FOLD, LEGACY, *steps))


def test_a_task_of_a_new_chat_has_every_field() -> None:
    document = of_chat()
    assert document == OF_CHAT
    assert type(document["version"]) is int


def test_a_task_of_a_chat_follows_its_events() -> None:
    document = of_chat(
        ("chat.renamed", {"new_title": "a title"}),
        ("chat.status_changed", {"new_status": "Investigating"}),
        ("chat.priority_set", {"new_priority": "critical"}),
        ("chat.severity_set", {"new_severity": "Major"}),
        ("chat.user_assigned", {"assignee_id": "bob"}),
        ("chat.due_date_set", {"new_due_date": "1969-12-31T23:59:59.9999Z"}),
        ("chat.attachment_added", {"file_id": "f", "file_name": "a.png", "file_size": 12.0, "mime_type": "image/png"}),
    )
    assert document == {
        **OF_CHAT,
        "title": "a title",
        "status": "In Progress",
        "priority": "Critical",
        "severity": "Major",
        "assigned_to": "bob",
        "due_date": DatetimeMS(-1),
        "version": 8,
        "attachments": [{"file_id": "f", "file_name": "a.png", "file_size": 12, "mime_type": "image/png"}],
    }
    assert type(document["attachments"][0]["file_size"]) is Int64


def test_what_a_chat_loses_its_task_loses() -> None:
    document = of_chat(
        ("chat.user_assigned", {"assignee_id": "bob"}),
        ("chat.due_date_set", {"new_due_date": "2026-04-01T00:00:00Z"}),
        ("chat.attachment_added", {"file_id": "f"}),
        ("chat.assignee_removed", {}),
        ("chat.due_date_removed", {}),
        ("chat.attachment_removed", {"file_id": "f"}),
    )
    assert document == {**OF_CHAT, "version": 7}


def shapes_of(text: str) -> tuple[str, ...]:
    return text, text.upper(), text.title(), f"  {text}\t\n", f"\u00a0{text}\u3000"


STATUSES = {
    "To Do": ["", "new", "planned", "to do", "todo", "in  progress", "canceled", "on hold"],
    "In Progress": ["investigating", "in progress"],
    "In Review": ["fixed", "in review"],
    "Done": ["verified", "completed", "closed", "done"],
    "Backlog": ["backlog"],
    "Cancelled": ["cancelled"],
}
PRIORITIES = {
    "Low": ["low"],
    "Medium": ["medium", "", "urgent", "very high"],
    "High": ["high"],
    "Critical": ["critical"],
}


@pytest.mark.parametrize(
    ("field", "kind", "name", "of_the_chat", "of_the_task"),
    [
        pytest.param(field, kind, name, said, shown, id=f"{field} {said!r}")
        for field, kind, name, table in (
            ("status", "chat.status_changed", "new_status", STATUSES),
            ("priority", "chat.priority_set", "new_priority", PRIORITIES),
        )
        for shown, texts in table.items()
        for said in texts
    ],
)
def test_status_and_priority_are_mapped_whatever_their_case_and_the_blanks_around_them(
    field: str, kind: str, name: str, of_the_chat: str, of_the_task: str
) -> None:
    for shape in shapes_of(of_the_chat):
        assert of_chat((kind, {name: shape}))[field] == of_the_task, repr(shape)


def trimmed(character: str) -> tuple[bool, bool, bool]:
    """Whether it is taken off a status, a priority and a severity."""
    document = of_chat(
        ("chat.status_changed", {"new_status": f"{character}Done{character}"}),
        ("chat.priority_set", {"new_priority": f"{character}High{character}"}),
        ("chat.severity_set", {"new_severity": character}),
    )
    return document["status"] == "Done", document["priority"] == "High", document["severity"] is None


SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
OTHERS = "abcdefghijklmnopqrstuvwxyzTNVFRXU0123456789\\/.-_\0\x1c\x1d\x1e\x1f\u200b\ufeff"


@pytest.mark.parametrize(("characters", "taken"), [(SPACES + "\u202f\u205f\u3000", True), (OTHERS, False)])
def test_every_white_space_of_the_application_is_trimmed_and_nothing_else(characters: str, taken: bool) -> None:
    assert [character for character in characters if trimmed(character) != (taken, taken, taken)] == []


@pytest.mark.parametrize(
    ("kind", "severity", "shown"),
    [
        *(("bug", "Major", "Major"), ("bug", " Major ", " Major "), ("bug", "", None), ("bug", " \t", None)),
        *((kind, "Major", None) for kind in ("task", "epic", "idea")),
    ],
)
def test_only_bugs_have_a_severity_untrimmed_and_null_when_blank(kind: str, severity: str, shown: str | None) -> None:
    steps = [("chat.type_changed", {"new_type": kind}), ("chat.severity_set", {"new_severity": severity})]
    assert of_chat(*steps)["severity"] == shown


@pytest.mark.parametrize("kind", ["task", "bug", "epic", "idea", ""])
def test_every_type_but_discussion_has_a_task_of_that_type(kind: str) -> None:
    document = of_chat(("chat.type_changed", {"new_type": kind}))
    assert (document["entity_type"], document["status"]) == (kind, "To Do")


DISCUSSION = ("chat.type_changed", {"new_type": "discussion"})
DELETED: Step = ("chat.deleted", {})


@pytest.mark.parametrize("steps", [[DISCUSSION], [DELETED], [DELETED, ("chat.reopened", {})]])
def test_a_discussion_and_a_deleted_chat_have_no_task(steps: list[Step]) -> None:
    assert task_document_of_chat(ID, folded(CHAT_FOLD, CHAT, *steps)) is None


def test_a_discussion_that_becomes_a_task_has_one() -> None:
    assert of_chat(DISCUSSION, ("chat.type_changed", {"new_type": "task"}))["entity_type"] == "task"


def test_an_assignee_of_a_chat_may_be_empty() -> None:
    assert of_chat(("chat.user_assigned", {"assignee_id": ""}))["assigned_to"] == ""


@pytest.mark.parametrize(("version", "kind"), [(1, int), (2**31 - 1, int), (2**31, Int64), (2**63 - 1, Int64)])
def test_a_version_is_an_int32_until_it_outgrows_it(version: int, kind: type) -> None:
    chat, task = Chat(), Task()
    chat.version = task.version = version
    document = task_document_of_chat(ID, chat)
    assert document is not None
    for found in (document["version"], task_document(ID, task)["version"]):
        assert found == version
        assert type(found) is kind


def test_a_legacy_task_is_as_it_was_created() -> None:
    document = of_legacy()
    assert document == OF_LEGACY
    assert type(document["version"]) is int


@pytest.mark.parametrize(
    ("kind", "data", "change"),
    [
        ("task.created", {"ChatID": "d"}, {"chat_id": "d", "title": "", "entity_type": "", "status": "", "priority": "",
            "assigned_to": None, "due_date": None, "created_by": "", "created_at": DatetimeMS(1002)}),
        ("task.updated", {"Title": "b"}, {}),
        ("task.status_changed", {"OldStatus": "Backlog", "NewStatus": "whatever"}, {"status": "whatever"}),
        ("task.status_changed", {"NewStatus": None}, {"status": ""}),
        ("task.assignee_changed", {"OldAssignee": "bob", "NewAssignee": "cid"}, {"assigned_to": "cid"}),
        ("task.assignee_changed", {"NewAssignee": None}, {"assigned_to": None}),
        ("task.assignee_changed", {}, {"assigned_to": None}),
        ("task.assignee_changed", {"NewAssignee": ""}, {"assigned_to": ""}),
        ("task.priority_changed", {"NewPriority": "low"}, {"priority": "low"}),
        ("task.due_date_changed", {"NewDueDate": "1969-12-31T23:59:59.9999Z"}, {"due_date": DatetimeMS(-1)}),
        ("task.due_date_changed", {"NewDueDate": None}, {"due_date": None}),
        ("task.due_date_changed", {}, {"due_date": None}),
        ("task.custom_field_set", {"Key": "k", "Value": 5.5}, {}),
        ("task.attachment.added", {"file_id": "f", "file_size": "unread"}, {}),
        ("task.attachment.removed", {"file_id": "f"}, {}),
        ("task.deleted", {}, {}),
    ],
)  # fmt: skip
def test_each_legacy_event_changes_its_own_fields_and_the_version(kind: str, data: Document, change: Document) -> None:
    assert of_legacy((kind, data)) == {**OF_LEGACY, **change, "version": 2}


def test_every_legacy_event_type_has_its_effect_tested() -> None:
    marks = test_each_legacy_event_changes_its_own_fields_and_the_version.pytestmark  # type: ignore[attr-defined]
    tested = {case[0] for mark in marks for case in mark.args[1]}
    assert tested == TASK_FOLD.events.keys()


def test_severity_and_attachments_are_owned_by_both_sources_and_absent_from_legacy_tasks() -> None:
    assert TASKS_OF_CHATS.owned == TASKS_OF_LEGACY_STREAMS.owned
    assert set(TASKS_OF_CHATS.owned) == OF_CHAT.keys()
    assert OF_CHAT.keys() - of_legacy().keys() == {"severity", "attachments"}


def test_the_registry_feeds_both_read_models_from_one_pass_over_chats() -> None:
    assert names(built_in("chat")) == names(built_in("task")) == ("chat", "task")
    assert [names(group) for group in by_fold(built_in("chat"))] == [("chat", "task")]
    assert [names(group) for group in by_fold(built_in("task"))] == [("chat",), ("task",)]
