"""Sample events look like the application's own, to the key and the type, and are the same for the same seed."""

import inspect
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby, islice, pairwise
from operator import itemgetter
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events, long_stream, task_events
from readmodel_pipelines.events.values import optional_time_ms, parse_time
from readmodel_pipelines.projections.chat import CHAT_FOLD

Event = dict[str, Any]
Generate = Callable[..., Iterator[Event]]

ENVELOPE = ["_id", "aggregate_id", "aggregate_type", "event_type", "version"]
ENVELOPE += ["data", "metadata", "occurred_at", "created_at"]
REPEATED = {"event_type", "aggregate_id", "aggregate_type", "occurred_at", "version", "metadata"}
METADATA_ORDER = ["timestamp", "user_id", "correlation_id", "causation_id", "ip_address", "user_agent"]

CHAT_FIELDS = {
    "chat.created": {"workspace_id", "type", "is_public", "created_by", "created_at"},
    "chat.participant_added": {"user_id", "role", "joined_at"},
    "chat.participant_removed": {"user_id"},
    "chat.type_changed": {"old_type", "new_type", "title"},
    "chat.status_changed": {"old_status", "new_status", "changed_by"},
    "chat.user_assigned": {"assignee_id", "assigned_by"},
    "chat.assignee_removed": {"previous_assignee_id", "removed_by"},
    "chat.priority_set": {"old_priority", "new_priority", "changed_by"},
    "chat.due_date_set": {"new_due_date", "changed_by"},
    "chat.due_date_removed": {"previous_due_date", "removed_by"},
    "chat.attachment_added": {"file_id", "file_name", "file_size", "mime_type", "added_by"},
    "chat.attachment_removed": {"file_id", "removed_by"},
    "chat.renamed": {"old_title", "new_title", "renamed_by"},
    "chat.severity_set": {"old_severity", "new_severity", "changed_by"},
    "chat.deleted": {"deleted_by", "deleted_at"},
    "chat.closed": {"closed_by", "previous_status", "closed_at"},
    "chat.reopened": {"reopened_by", "new_status", "reopened_at"},
}
TASK_FIELDS = {
    "task.created": {"ChatID", "Title", "EntityType", "Status", "Priority", "AssigneeID", "DueDate", "CreatedBy"},
    "task.updated": {"Title"},
    "task.status_changed": {"OldStatus", "NewStatus", "ChangedBy"},
    "task.assignee_changed": {"OldAssignee", "NewAssignee", "ChangedBy"},
    "task.priority_changed": {"OldPriority", "NewPriority", "ChangedBy"},
    "task.due_date_changed": {"OldDueDate", "NewDueDate", "ChangedBy"},
    "task.custom_field_set": {"Key", "Value"},
    "task.attachment.added": {"file_id", "file_name", "file_size", "mime_type", "added_by"},
    "task.attachment.removed": {"file_id", "removed_by"},
    "task.deleted": set(),
}
TIME_FIELDS = {"occurred_at", "created_at", "joined_at", "deleted_at", "closed_at", "reopened_at", "timestamp"}
TIME_FIELDS |= {"old_due_date", "new_due_date", "previous_due_date", "DueDate", "OldDueDate", "NewDueDate"}

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ODD_DATES_BEFORE_1970 = ("0001-", "1583-", "1960-", "1969-")

generators = pytest.mark.parametrize("generate", [chat_events, task_events])


def by_stream(events: Iterator[Event]) -> list[list[Event]]:
    return [list(stream) for _, stream in groupby(events, key=itemgetter("aggregate_id"))]


def times_in(data: Event) -> Iterator[str]:
    for field, value in data.items():
        if field == "metadata":
            yield from times_in(value)
        elif field in TIME_FIELDS and value is not None:
            yield value


@generators
def test_the_same_seed_gives_the_same_documents_to_the_byte(generate: Generate) -> None:
    first = [bson.encode(event) for event in generate(30, seed=7)]
    assert first == [bson.encode(event) for event in generate(30, seed=7)]
    assert first != [bson.encode(event) for event in generate(30, seed=8)]


@generators
def test_an_object_id_comes_once_and_two_seeds_share_no_aggregate(generate: Generate) -> None:
    one, other = list(generate(200, seed=1)), list(generate(200, seed=2))
    assert len({event["_id"] for event in (*one, *other)}) == len(one) + len(other)
    assert not {event["aggregate_id"] for event in one} & {event["aggregate_id"] for event in other}


@pytest.mark.each_once
@pytest.mark.parametrize(("generate", "fields"), [(chat_events, CHAT_FIELDS), (task_events, TASK_FIELDS)])
@pytest.mark.parametrize("seed", range(5))
def test_every_event_type_occurs_in_a_hundred_streams_with_its_own_fields(
    generate: Generate, fields: dict[str, set[str]], seed: int
) -> None:
    found: dict[str, set[str]] = {}
    for event in generate(100, seed=seed):
        own = set(event["data"]) - REPEATED - {"old_due_date"}
        assert found.setdefault(event["event_type"], own) == own, event["event_type"]
    assert found == fields


@given(
    generate=st.sampled_from([chat_events, task_events]),
    streams=st.integers(0, 30),
    seed=st.integers(0, 2**64),
    mean_events=st.integers(1, 40),
)
@settings(max_examples=50)
def test_streams_come_in_order_and_without_gaps(generate: Generate, streams: int, seed: int, mean_events: int) -> None:
    made = by_stream(generate(streams, seed=seed, mean_events=mean_events))
    ids = [stream[0]["aggregate_id"] for stream in made]
    assert ids == sorted(set(ids))
    assert len(ids) == streams
    for stream in made:
        assert [event["version"] for event in stream] == list(range(1, len(stream) + 1))
        assert stream[0]["event_type"].endswith(".created")
        assert len(stream) <= 3 * mean_events


@pytest.mark.each_once
@pytest.mark.parametrize("mean_events", [3, 9, 20])
@generators
def test_streams_have_about_the_mean_length_asked_for(generate: Generate, mean_events: int) -> None:
    lengths = [len(stream) for stream in by_stream(generate(1000, mean_events=mean_events))]
    assert sum(lengths) / len(lengths) == pytest.approx(mean_events, rel=0.1)
    assert max(lengths) > 2.5 * mean_events


@generators
def test_an_event_is_the_application_s_to_the_order_of_its_fields_and_their_types(generate: Generate) -> None:
    aggregate_type = "Chat" if generate is chat_events else "Task"
    for event in generate(100):
        assert list(event) == ENVELOPE
        assert isinstance(event["_id"], ObjectId)
        assert UUID.fullmatch(event["aggregate_id"])
        assert event["aggregate_type"] == aggregate_type
        assert type(event["version"]) is int
        for date in (event["occurred_at"], event["created_at"], event["metadata"]["timestamp"]):
            assert type(date) is DatetimeMS
        assert int(event["created_at"]) >= int(event["occurred_at"])
        # Every number in data is a double, and nothing in it is a date.
        data = event["data"]
        for field, value in data.items():
            assert type(value) in (str, float, bool, dict, type(None)), (event["event_type"], field, value)
        assert type(data["version"]) is float
        if event["event_type"].endswith("added") and "file_size" in data:
            assert data["file_size"].is_integer()
        # It repeats the envelope.
        for field in ("event_type", "aggregate_id", "aggregate_type"):
            assert data[field] == event[field]
        repeated = {field: value for field, value in event["metadata"].items() if value != ""}
        repeated["timestamp"] = data["metadata"]["timestamp"]
        assert data["metadata"] == repeated
        assert parse_time(data["metadata"]["timestamp"]) == int(event["metadata"]["timestamp"])


@generators
def test_times_are_rfc_3339_some_before_1970_and_dates_are_texts_cut_towards_the_past(generate: Generate) -> None:
    occurred: list[str] = []
    texts: list[str] = []
    for event in generate(300):
        occurred.append(event["data"]["occurred_at"])
        texts += times_in(event["data"])
        assert parse_time(occurred[-1]) == int(event["occurred_at"])
    assert [text for text in texts if not RFC3339.fullmatch(text)] == []
    shapes = [match for match in map(RFC3339.fullmatch, occurred) if match]
    assert {len(match[1] or "") for match in shapes} == set(range(10))
    assert {"Z", "+05:00", "-03:30"} <= {match[2] for match in shapes}
    old = [text for text in texts if text.startswith(ODD_DATES_BEFORE_1970) and text != "0001-01-01T00:00:00Z"]
    assert any("." in text for text in old)
    assert any(re.search(r"^2026.*\.\d{3}999999", text) for text in texts), "one that would be rounded up"


@generators
def test_optional_metadata_is_there_only_when_set(generate: Generate) -> None:
    seen: Counter[str] = Counter()
    for event in generate(300):
        metadata = event["metadata"]
        assert list(metadata) == [field for field in METADATA_ORDER if field in metadata]
        assert {"timestamp", "correlation_id"} <= set(metadata)
        assert all(UUID.fullmatch(metadata[field]) for field in ("user_id", "causation_id") if field in metadata)
        seen.update(metadata.keys())
    for field in ("user_id", "causation_id", "ip_address", "user_agent"):
        assert 0 < seen[field] < seen["timestamp"], field


def test_chats_without_a_trace_have_an_empty_correlation_id_and_the_year_one() -> None:
    created = next(chat_events(1))
    assert created["metadata"] == {"timestamp": DatetimeMS(-62_135_596_800_000), "correlation_id": ""}
    assert created["data"]["metadata"] == {"timestamp": "0001-01-01T00:00:00Z"}


@generators
def test_samples_hold_what_breaks_careless_code(generate: Generate) -> None:
    data = [event["data"] for event in generate(200)]
    assert len({tuple(item) for item in data if item["event_type"].endswith(".created")}) > 20, "the order varies"
    titles = {item[field] for item in data for field in ("title", "new_title", "Title") if field in item}
    assert "" in titles
    assert any("\0" in title for title in titles)
    assert any("🐛" in title for title in titles)
    assert any(title.isascii() and title.isprintable() and title for title in titles)


def test_chats_and_tasks_have_the_oddities_of_the_application_s() -> None:
    chats, tasks = list(chat_events(1000)), list(task_events(500))
    for kind, field in (("chat.participant_added", "user_id"), ("chat.attachment_added", "file_id")):
        added = [(item["aggregate_id"], item["data"][field]) for item in chats if item["event_type"] == kind]
        assert len(set(added)) < len(added), "sometimes added twice"
    assert any(
        before["event_type"] == "chat.deleted" and after["aggregate_id"] == before["aggregate_id"]
        for before, after in pairwise(chats)
    ), "some go on after they were deleted"
    assert all(event["data"]["version"] == event["version"] for event in chats)
    assert {event["data"]["version"] for event in tasks} == {1.0}, "stale"
    of_chats = [event["data"]["ChatID"] for event in tasks if event["version"] == 1]
    assert len(set(of_chats)) == 500, "each has a chat of its own"


def test_a_chat_changes_only_what_stands() -> None:
    for stream in by_stream(chat_events(300, seed=3)):
        chat = CHAT_FOLD.start()
        for event in stream:
            data, kind = event["data"], event["event_type"]
            for field in ("type", "title", "status", "priority", "severity"):
                assert data.get(f"old_{field}", getattr(chat, field)) == getattr(chat, field), (kind, field)
            for field in ("old_due_date", "previous_due_date"):
                assert field not in data or optional_time_ms(event, field) == chat.due_date, kind
            match kind:
                case "chat.type_changed":
                    assert data["new_type"] != "discussion"
                case "chat.participant_removed":
                    assert data["user_id"] in chat.participants
                case "chat.attachment_removed":
                    assert data["file_id"] in chat.attachments
                case "chat.closed":
                    assert data["previous_status"] == chat.status
                case "chat.severity_set":
                    assert chat.type == "bug"
            CHAT_FOLD.events[kind].apply(chat, event)


def test_occurred_at_is_no_order() -> None:
    steps = [int(after["occurred_at"]) - int(before["occurred_at"]) for before, after in pairwise(long_stream(2000))]
    assert min(steps) < -1000, "a cut fraction alone moves a time by less than a second"
    assert sum(steps) > 3_600_000


def test_a_long_stream_has_exactly_the_events_asked_for_and_a_small_state() -> None:
    events = list(long_stream(20_000))
    assert [event["version"] for event in events] == list(range(1, 20_001))
    chat = CHAT_FOLD.start()
    most = 0
    for event in events:
        CHAT_FOLD.events[event["event_type"]].apply(chat, event)
        most = max(most, len(chat.participants), len(chat.attachments))
    assert most <= 24
    kinds = {event["event_type"] for event in events}
    assert {"chat.renamed", "chat.status_changed", "chat.attachment_removed", "chat.participant_removed"} <= kinds


@pytest.mark.parametrize(
    "generate", [lambda n: chat_events(n), lambda n: task_events(n), lambda n: long_stream(10 * n)]
)
def test_events_are_made_one_at_a_time(generate: Callable[[int], Iterator[Event]]) -> None:
    events = generate(10**9)
    assert inspect.isgenerator(events)
    tracemalloc.start()
    try:
        for _ in islice(events, 3_000):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "ask", [lambda: chat_events(-1), lambda: task_events(5, mean_events=0), lambda: long_stream(0)]
)
def test_a_number_that_makes_no_sense_is_refused_at_the_call(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="needs at least"):
        ask()
