"""The fold of a chat stream, event type by event type, and the `chats_read_model` document."""

import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from hypothesis import example, given
from hypothesis import strategies as st

from readmodel_pipelines.events.values import ZERO_TIME_MS
from readmodel_pipelines.projections.chat import CHAT_FOLD, CHATS, Chat, chat_document
from readmodel_pipelines.projections.task import task_document_of_chat
from readmodel_pipelines_tests.support.streams import ID, Document, Step, folded

CREATED: Step = (
    "created",
    {
        "workspace_id": "ws",
        "type": "bug",
        "is_public": True,
        "created_by": "ann",
        "created_at": "2026-03-01T12:00:00.123999999+05:00",
    },
)
EVERYTHING: list[Step] = [
    CREATED,
    ("participant_added", {"user_id": "ann"}),
    ("renamed", {"new_title": "a title"}),
    ("status_changed", {"new_status": "New"}),
    ("priority_set", {"new_priority": "High"}),
    ("user_assigned", {"assignee_id": "bob"}),
    ("due_date_set", {"new_due_date": "2026-04-01T00:00:00Z"}),
    ("severity_set", {"new_severity": "Major"}),
    ("attachment_added", {"file_id": "f", "file_name": "a.png", "file_size": 12.0, "mime_type": "image/png"}),
]
FULL = {
    "chat_id": ID,
    "workspace_id": "ws",
    "type": "bug",
    "title": "a title",
    "is_public": True,
    "created_by": "ann",
    "created_at": DatetimeMS(1_772_348_400_123),
    "participants": ["ann"],
    "status": "New",
    "priority": "High",
    "assigned_to": "bob",
    "due_date": DatetimeMS(1_775_001_600_000),
    "severity": "Major",
}


def fold(*steps: Step) -> Chat:
    chat = folded(CHAT_FOLD, *((f"chat.{kind}", data) for kind, data in steps))
    assert isinstance(chat, Chat)
    return chat


def document(*steps: Step) -> Document:
    return chat_document(ID, fold(*steps))


def changed(*steps: Step) -> Document:
    """What the steps change in the document of a chat that has everything; None for a field that went."""
    after = document(*EVERYTHING, *steps)
    return {name: after.get(name) for name in FULL.keys() | after.keys() if after.get(name) != FULL.get(name)}


def test_a_chat_that_has_everything_has_each_field_from_data_and_the_version_of_its_last_event() -> None:
    after = document(*EVERYTHING)
    assert after == FULL
    assert {type(value) for value in after.values()} == {str, bool, list, DatetimeMS}
    assert fold(*EVERYTHING).version == len(EVERYTHING)


def test_a_created_chat_has_empty_texts_and_nobody_in_it() -> None:
    assert document(CREATED) == {
        **{name: FULL[name] for name in ("chat_id", "workspace_id", "type", "is_public", "created_by", "created_at")},
        "title": "",
        "participants": [],
        "status": "",
        "priority": "",
    }


@pytest.mark.parametrize(
    ("kind", "data", "change"),
    [
        ("participant_added", {"user_id": "bob"}, {"participants": ["ann", "bob"]}),
        ("participant_removed", {"user_id": "ann"}, {"participants": []}),
        ("participant_removed", {"user_id": "nobody"}, {}),
        ("type_changed", {"new_type": "task"}, {"type": "task", "title": "", "status": "To Do", "severity": None}),
        ("type_changed", {"new_type": "bug", "title": "t"}, {"title": "t"}),
        ("type_changed", {"new_type": "bug"}, {"title": ""}),
        ("status_changed", {"new_status": "Fixed"}, {"status": "Fixed"}),
        ("user_assigned", {"assignee_id": "cid"}, {"assigned_to": "cid"}),
        # An empty assignee is not nobody.
        ("user_assigned", {"assignee_id": ""}, {"assigned_to": ""}),
        ("user_assigned", {}, {"assigned_to": ""}),
        ("assignee_removed", {"previous_assignee_id": "somebody else"}, {"assigned_to": None}),
        ("priority_set", {"new_priority": "Low"}, {"priority": "Low"}),
        ("due_date_set", {"new_due_date": "1969-12-31T23:59:59.9999Z"}, {"due_date": DatetimeMS(-1)}),
        ("due_date_removed", {"previous_due_date": "2026-04-01T00:00:00Z"}, {"due_date": None}),
        ("attachment_added", {"file_id": "g"}, {}),
        ("attachment_removed", {"file_id": "f"}, {}),
        ("renamed", {"new_title": "b"}, {"title": "b"}),
        ("severity_set", {"new_severity": "Minor"}, {"severity": "Minor"}),
        ("severity_set", {"new_severity": "  "}, {"severity": "  "}),
        ("severity_set", {"new_severity": ""}, {"severity": None}),
        ("deleted", {"deleted_by": "ann", "deleted_at": "2026-05-01T00:00:00Z"}, {}),
        ("closed", {"previous_status": "New"}, {"status": "Closed"}),
        ("reopened", {"new_status": "Verified"}, {"status": "Verified"}),
    ],
)
def test_each_event_changes_its_own_fields_and_no_others(kind: str, data: Document, change: Document) -> None:
    assert changed((kind, data)) == change


def test_every_event_type_has_its_effect_tested() -> None:
    marks = test_each_event_changes_its_own_fields_and_no_others.pytestmark  # type: ignore[attr-defined]
    tested = {f"chat.{case[0]}" for mark in marks for case in mark.args[1]}
    assert tested | {"chat.created"} == CHAT_FOLD.events.keys()


@pytest.mark.parametrize(
    ("kind", "status"),
    [("task", "To Do"), ("bug", "New"), ("epic", "Planned"), ("discussion", ""), ("idea", ""), ("", ""), ("Bug", "")],
)
def test_a_new_type_brings_its_first_status(kind: str, status: str) -> None:
    chat = fold(*EVERYTHING, ("type_changed", {"new_type": kind, "title": "t"}))
    assert (chat.type, chat.status) == (kind, status)


def test_a_discussion_that_becomes_a_task_shows_what_was_set_before() -> None:
    discussion = ("created", {"type": "discussion"})
    after = document(discussion, ("priority_set", {"new_priority": "Low"}), ("type_changed", {"new_type": "task"}))
    assert (after["priority"], after["status"]) == ("Low", "To Do")


def test_a_second_created_event_applies_again_and_leaves_the_rest() -> None:
    again = {"workspace_id": "other", "type": "task", "created_by": "bob", "created_at": "1970-01-01T00:00:00Z"}
    assert changed(("created", again)) == {
        "workspace_id": "other",
        "type": "task",
        "is_public": False,
        "created_by": "bob",
        "created_at": DatetimeMS(0),
        "severity": None,
    }


def test_events_before_created_apply() -> None:
    after = document(("participant_added", {"user_id": "ann"}), ("status_changed", {"new_status": "Fixed"}), CREATED)
    assert (after["participants"], after["status"], after["type"]) == (["ann"], "Fixed", "bug")


def test_events_after_deleted_apply_and_the_chat_stays_deleted() -> None:
    chat = fold(*EVERYTHING, ("deleted", {}), ("renamed", {"new_title": "later"}))
    assert chat.deleted
    assert chat_document(ID, chat) == {**FULL, "title": "later"}


def test_missing_fields_are_empty_and_a_missing_time_is_the_year_1() -> None:
    after = document(("created", {}), ("due_date_set", {}), ("participant_added", {"user_id": None}))
    texts = ("workspace_id", "type", "title", "created_by", "status", "priority")
    assert after == {
        "chat_id": ID,
        "is_public": False,
        "participants": [""],
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(("created_at", "due_date"), DatetimeMS(ZERO_TIME_MS)),
    }


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("discussion", {"status", "priority", "assigned_to", "due_date", "severity"}),
        ("task", {"severity"}),
        ("epic", {"severity"}),
        ("bug", set()),
        ("idea", {"severity"}),
        ("Discussion", {"severity"}),
        ("", {"severity"}),
    ],
)
def test_the_type_decides_which_fields_are_there(kind: str, absent: set[str]) -> None:
    chat = fold(("created", {**CREATED[1], "type": kind}), *EVERYTHING[1:])
    after = chat_document(ID, chat)
    assert after.keys() == FULL.keys() - absent
    assert after["type"] == kind


def test_owned_fields_are_all_that_a_document_can_have() -> None:
    assert set(CHATS.owned) == FULL.keys()
    assert len(CHATS.owned) == len(set(CHATS.owned))


users = st.sampled_from(["ann", "bob", "cid", "", "ANN"])


@given(st.lists(st.tuples(st.booleans(), users), max_size=40))
@example([(True, "ann"), (True, "bob"), (True, "ann"), (False, "ann")])
def test_participants_are_as_in_a_plain_list(moves: list[tuple[bool, str]]) -> None:
    plain: list[str] = []
    steps: list[Step] = []
    for joins, user in moves:
        plain = [*plain, user] if joins else [other for other in plain if other != user]
        steps.append(("participant_added" if joins else "participant_removed", {"user_id": user}))
    assert document(CREATED, *steps)["participants"] == plain


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["f", "g", "h", ""]), st.integers(0, 9)), max_size=40))
def test_attachments_are_as_in_a_plain_list(moves: list[tuple[bool, str, int]]) -> None:
    plain: list[Document] = []
    steps: list[Step] = []
    for added, file, size in moves:
        entry = {"file_id": file, "file_name": f"{file}.png", "file_size": size, "mime_type": "image/png"}
        if not added:
            plain = [other for other in plain if other["file_id"] != file]
        elif all(other["file_id"] != file for other in plain):
            plain.append(entry)
        data = {**entry, "file_size": float(size), "added_by": "ann"}
        steps.append(("attachment_added", data) if added else ("attachment_removed", {"file_id": file}))
    task = task_document_of_chat(ID, fold(CREATED, *steps))
    assert task is not None
    assert task["attachments"] == plain
    assert all(type(attachment["file_size"]) is Int64 for attachment in task["attachments"])
