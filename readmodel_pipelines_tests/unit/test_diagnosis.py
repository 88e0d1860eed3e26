"""Why a document is wrong: the cause is right, and no event is named as lost that was applied."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS

from readmodel_pipelines.events.exact import Odd
from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.projections.chat import chat_document
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.cause import Cause, CauseKind
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.diagnosis import Stream, at_once, cause_of
from readmodel_pipelines.reconcile.loosely import loosely_same
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict, Why
from readmodel_pipelines_tests.support.lost_updates import (
    WAYS,
    Events,
    damaged,
    stored_without,
    stream_of,
    streams,
    verdict_on,
)

CHATS, TASKS = built_in("chat")
LEGACY = built_in("task")[1]
KEY = "00000000-0000-4000-8000-000000000001"
MIDNIGHT = "2026-11-02T03:02:00Z"


def stream(*more: tuple[str, dict[str, Any]], kind: str = "task") -> Events:
    created = ("chat.created", {"type": kind, "workspace_id": "w", "created_by": "u"})
    return [
        {
            "aggregate_id": KEY,
            "aggregate_type": "Chat",
            "version": version,
            "event_type": event_type,
            "data": data,
            "occurred_at": f"2026-11-02T03:{version:02d}:00Z",
        }
        for version, (event_type, data) in enumerate((created, *more), 1)
    ]


def renamed(title: str) -> tuple[str, dict[str, Any]]:
    return "chat.renamed", {"new_title": title}


def joined(user: str) -> tuple[str, dict[str, Any]]:
    return "chat.participant_added", {"user_id": user}


def left(user: str) -> tuple[str, dict[str, Any]]:
    return "chat.participant_removed", {"user_id": user}


def status(value: str) -> tuple[str, dict[str, Any]]:
    return "chat.status_changed", {"new_status": value}


ATTACHED = ("chat.attachment_added", {"file_id": "f", "file_name": "n", "file_size": 1, "mime_type": "m"})
DELETED: tuple[str, dict[str, Any]] = ("chat.deleted", {})


def why(projection: Projection, events: Events, stored: Document | None, made: Iterable[str] = ()) -> Cause | None:
    verdict = verdict_on(projection, KEY, events, stored)
    assert verdict is not None
    return at_once(verdict) or cause_of(verdict, Stream(projection, KEY, lambda: events, (), set(made).__contains__))


def of_lost(projection: Projection, events: Events, *lost: int) -> Cause:
    cause = why(projection, events, stored_without(projection, KEY, events, lost))
    assert cause is not None
    return cause


def told(cause: Cause | None) -> tuple[str, list[int], int, bool]:
    assert cause is not None
    return cause.kind.value, [event.version for event in cause.lost], cause.missed, cause.ambiguous


def test_a_document_that_stopped_is_behind_since_the_first_event_that_was_not_applied() -> None:
    events = stream(renamed("a"), status("Done"), renamed("b"), joined("u"))
    cause = of_lost(CHATS, events, 3, 4, 5)
    assert cause.as_json() == {
        "kind": "behind",
        "at_version": 2,
        "lost": [{"version": 3, "event_type": "chat.status_changed", "occurred_at": "2026-11-02T03:03:00.000Z"}],
        "missed": 3,
    }
    assert told(of_lost(TASKS, events, 5)) == ("behind", [5], 1, False)


@pytest.mark.parametrize("data", [{"new_title": "a"}, {}], ids=repr)
def test_events_of_a_type_that_is_unknown_and_allowed_are_named_like_others(data: dict[str, Any]) -> None:
    events = stream(renamed("a"), ("chat.unheard_of", data), joined("u"), ("chat.unheard_of", data))
    for projection, field, lost in ((TASKS, "title", [5]), (TASKS, "title", [4, 5]), (CHATS, "participants", [4])):
        values: tuple[Any, ...] = (None, "a", "never", [])
        for value in values:
            stored = stored_without(projection, KEY, events, lost)
            assert stored is not None
            if value is not None:
                stored[field] = value
            verdict = verdict_on(projection, KEY, events, stored)
            assert verdict is not None
            of = Stream(projection, KEY, lambda: events, (Reason.UNKNOWN_EVENT_TYPE,), lambda _: False)
            cause = at_once(verdict) or cause_of(verdict, of)
            assert cause is not None
            assert value is not None or [event.version for event in cause.lost] == lost[:1]


def test_an_update_that_was_lost_while_later_ones_were_applied_is_named() -> None:
    events = stream(renamed("a"), status("Done"), renamed("b"), joined("u"))
    for projection in (CHATS, TASKS):
        assert told(of_lost(projection, events, 3)) == ("lost_update", [3], 1, False)
    assert told(of_lost(CHATS, stream(joined("u"), joined("v"), renamed("b")), 2)) == ("lost_update", [2], 1, False)


def test_several_lost_updates_are_found_though_none_alone_explains_the_document() -> None:
    events = stream(renamed("a"), status("Done"), renamed("b"), joined("u"), status("To Do"), renamed("c"))
    assert told(of_lost(CHATS, events, 5, 6)) == ("lost_update", [5, 6], 2, False)


def test_the_explanation_with_fewer_lost_events_is_told_and_said_to_be_one_of_two() -> None:
    events = stream(renamed("a"), renamed("b"), ATTACHED)
    assert told(of_lost(CHATS, events, 3, 4)) == ("lost_update", [3], 1, True)
    # The version tells.
    assert told(of_lost(TASKS, events, 3, 4)) == ("behind", [3], 2, False)
    # What does not show may have been lost as well.
    assert told(of_lost(CHATS, stream(ATTACHED, renamed("b")), 3)) == ("behind", [3], 1, True)


def test_an_event_that_was_applied_and_undone_by_a_later_one_is_not_named() -> None:
    events = stream(joined("a"), renamed("x"), joined("b"), joined("a"), renamed("y"), left("b"), kind="discussion")
    cause = of_lost(CHATS, events, 5, 6)
    assert {event.version for event in cause.lost} <= {5, 6}
    assert cause.lost or {5, 6}.intersection(event.version for event in cause.one_of)


def test_of_two_events_alike_none_is_named_though_one_follows_where_the_document_stopped() -> None:
    events = stream(joined("a"), joined("a"), joined("b"), kind="discussion")
    cause = of_lost(CHATS, events, 2, 4)
    assert cause.ambiguous
    assert {event.version for event in cause.lost} <= {2, 4}


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        # Taken out and put in again: both were applied.
        ((joined("b"), left("b"), renamed("x"), joined("a"), joined("b")), {4, 5}),
        ((joined("a"), left("a"), joined("b"), joined("a"), joined("a")), {4, 5}),
        # Two in a row instead of the same two before.
        ((joined("a"), joined("b"), renamed("x"), joined("a"), joined("b"), renamed("y")), {2, 3, 7}),
        # A repeated title hides that all of the events were lost.
        ((joined("a"), renamed("x"), renamed("x"), joined("b"), left("a")), {3, 4, 5}),
    ],
)
def test_an_event_that_was_applied_is_not_named_where_the_document_looks_as_if_it_had_stopped_before_it(
    more: tuple[tuple[str, dict[str, Any]], ...], lost: set[int]
) -> None:
    cause = of_lost(CHATS, stream(*more, kind="discussion"), *lost)
    assert cause.kind is CauseKind.BEHIND
    assert cause.ambiguous
    assert {event.version for event in cause.lost} <= lost
    assert cause.lost or cause.one_of


def test_the_event_that_takes_a_member_out_is_named_though_another_one_had_put_the_member_in() -> None:
    events = stream(joined("a"), renamed("x"), left("a"), renamed("y"), status("Done"), kind="discussion")
    assert told(of_lost(CHATS, events, 4, 5)) == ("behind", [4], 3, False)
    assert told(of_lost(CHATS, stream(joined("a"), left("a"), renamed("x"), renamed("y"), renamed("z")), 3, 6)) == (
        "lost_update",
        [3, 6],
        2,
        False,
    )


def test_a_single_event_that_several_others_may_hide_is_not_named() -> None:
    more = joined("a"), joined("b"), joined("c"), left("b"), joined("b"), joined("c"), renamed("x")
    cause = of_lost(CHATS, stream(*more, kind="discussion"), 5, 6, 7)
    assert (cause.kind, cause.missed, cause.ambiguous, cause.lost) == (CauseKind.LOST_UPDATE, 1, True, ())
    assert {4, 7} <= {event.version for event in cause.one_of}


def test_a_document_with_its_version_tells_what_was_not_applied_whatever_else_looks_alike() -> None:
    events = stream(ATTACHED, ("chat.attachment_removed", {"file_id": "f"}), renamed("x"), ATTACHED, renamed("y"))
    assert told(of_lost(TASKS, events, 3, 4, 5, 6)) == ("behind", [3], 4, False)


def test_a_type_of_which_no_event_was_applied_is_found_though_the_field_was_hidden_until_then() -> None:
    def priority(value: str) -> tuple[str, dict[str, Any]]:
        return "chat.priority_set", {"new_priority": value}

    becomes = ("chat.type_changed", {"new_type": "task", "title": "t"})
    events = stream(priority("Low"), priority("High"), becomes, renamed("a"), kind="discussion")
    cause = of_lost(CHATS, events, 2, 3)
    assert (cause.kind, cause.event_type) == (CauseKind.LOST_UPDATE, "chat.priority_set")


def test_which_of_two_events_alike_was_lost_nobody_claims_to_know() -> None:
    events = stream(joined("u"), joined("u"), renamed("b"))
    cause = of_lost(CHATS, events, 2)
    assert told(cause) == ("lost_update", [], 1, True)
    assert [event.version for event in cause.one_of] == [2, 3]
    assert cause.event_type == "chat.participant_added"
    assert cause.as_json()["one_of"][0]["version"] == 2


def test_a_document_that_was_never_made_lacks_the_event_that_makes_it() -> None:
    events = stream(renamed("a"))
    assert told(why(CHATS, events, None)) == ("never_created", [1], 2, False)
    events = stream(renamed("a"), ("chat.type_changed", {"new_type": "task", "title": "t"}), kind="discussion")
    cause = why(TASKS, events, None)
    assert told(cause) == ("never_created", [], 1, True)
    assert cause is not None
    assert [event.version for event in cause.one_of] == [1, 3]
    assert cause.event_type == "chat.type_changed"


def test_a_document_that_ought_to_be_gone_lacks_the_event_that_takes_it_away() -> None:
    events = stream(renamed("a"), DELETED)
    assert told(of_lost(TASKS, events, 3)) == ("not_deleted", [3], 1, False)
    assert told(of_lost(TASKS, [*events, *stream(*[renamed("b")] * 3)[3:]], 3)) == ("not_deleted", [3], 1, False)
    stored = stored_without(TASKS, KEY, events, {3})
    assert stored is not None
    assert told(why(TASKS, events, {**stored, "title": "?"})) == ("not_deleted", [], 0, True)


def test_a_deletion_that_was_lost_while_there_was_no_document_anyway_is_found() -> None:
    def becomes(kind: str) -> tuple[str, dict[str, Any]]:
        return "chat.type_changed", {"new_type": kind, "title": "t"}

    events = stream(becomes("discussion"), renamed("a"), DELETED, becomes("bug"), renamed("b"))
    assert told(of_lost(TASKS, events, 4)) == ("not_deleted", [4], 1, False)


def test_a_document_that_no_stream_made_was_written_by_something_else() -> None:
    events = stream(renamed("a"), kind="discussion")
    assert told(why(TASKS, events, {"_id": 1, "task_id": KEY})) == ("foreign_write", [], 0, False)
    assert at_once(Verdict(KEY, Outcome.ORPHAN, None, {"_id": 1})) == Cause(CauseKind.FOREIGN_WRITE)
    second = Verdict(KEY, Outcome.UNEXPECTED, None, {"_id": 1}, Why.DUPLICATE_KEY)
    assert at_once(second) == Cause(CauseKind.FOREIGN_WRITE)


def test_a_value_that_never_was_was_written_by_something_else() -> None:
    events = stream(renamed("a"), status("Done"))
    stored = stored_without(CHATS, KEY, events, {3})
    assert stored is not None
    for broken in ({"title": "broken"}, {"title": 7}, {"participants": ["x"]}):
        cause = why(CHATS, events, {**stored, "status": "Done", **broken})
        assert cause == Cause(CauseKind.FOREIGN_WRITE, fields=tuple(broken))


def test_a_field_that_every_state_has_and_the_document_lacks_is_of_an_older_schema() -> None:
    events = stream(renamed("a"), status("Done"))
    stored = stored_without(TASKS, KEY, events, ())
    assert stored is not None
    del stored["severity"], stored["attachments"]
    assert why(TASKS, events, stored) == Cause(CauseKind.OLDER_SCHEMA, fields=("attachments", "severity"))
    assert told(why(TASKS, events, {**stored, "status": "To Do", "version": 2})) == ("behind", [3], 1, False)


def test_what_the_projection_made_earlier_is_of_an_older_schema_stale_or_not() -> None:
    def shouting(key: str, state: Any) -> Document:
        return {**chat_document(key, state), "title": state.title.upper()}

    now = replace(CHATS, document=shouting, schema_version=2, earlier=chat_document)
    events = stream(renamed("a"), status("Done"))
    assert why(now, events, stored_without(CHATS, KEY, events, ())) == Cause(CauseKind.OLDER_SCHEMA, fields=("title",))
    assert told(why(now, events, stored_without(CHATS, KEY, events, {3}))) == ("behind", [3], 1, False)
    stored = {**(stored_without(CHATS, KEY, events, ()) or {}), "title": "?"}
    assert why(now, events, stored) == Cause(CauseKind.FOREIGN_WRITE, fields=("title",))


def test_a_field_that_the_stream_did_not_always_have_is_a_lost_update() -> None:
    events = stream(renamed("a"), ("chat.user_assigned", {"assignee_id": "u"}), renamed("b"))
    stored = stored_without(CHATS, KEY, events, ())
    assert stored is not None
    del stored["assigned_to"]
    assert told(why(CHATS, events, stored)) == ("lost_update", [3], 1, False)


def test_a_field_that_the_projection_never_makes_is_of_an_older_schema_and_any_other_foreign() -> None:
    events = stream(renamed("a"))
    stored = stored_without(CHATS, KEY, events, ())
    assert stored is not None
    for made, kind in (((), CauseKind.OLDER_SCHEMA), (("severity",), CauseKind.FOREIGN_WRITE)):
        assert why(CHATS, events, {**stored, "severity": "Major"}, made) == Cause(kind, fields=("severity",))


def test_the_right_values_in_another_type_are_no_lost_update() -> None:
    events = stream(renamed("a"), ATTACHED)
    stored = stored_without(TASKS, KEY, events, ())
    assert stored is not None
    stored |= {"version": 3.0, "attachments": [{**stored["attachments"][0], "file_size": 1}]}
    assert why(TASKS, events, stored) == Cause(CauseKind.TYPE_ONLY, fields=("version", "attachments"))
    # And they do not hide one.
    assert told(why(TASKS, events, {**stored, "version": 2.0, "attachments": []})) == ("behind", [3], 1, False)


def test_an_update_that_did_not_show_when_it_was_lost_is_found() -> None:
    events = stream(
        ("chat.priority_set", {"new_priority": "High"}),
        ("chat.type_changed", {"new_type": "task", "title": "t"}),
        renamed("b"),
        kind="discussion",
    )
    assert told(of_lost(CHATS, events, 2)) == ("lost_update", [2], 1, False)


def test_a_document_that_is_right_by_now_has_no_cause_and_neither_has_one_of_a_malformed_stream() -> None:
    events = stream(renamed("a"))
    right = stored_without(CHATS, KEY, events, ())
    for expected, actual, now in (
        ({"title": "x"}, right, events),
        ({"title": "x"}, {"_id": 1, "title": "y"}, [*events[:1], {**events[1], "version": 9}]),
    ):
        verdict = Verdict(KEY, Outcome.DIFFERENT, expected, actual)
        assert cause_of(verdict, Stream(CHATS, KEY, lambda now=now: now)) is None  # type: ignore[misc]
    assert cause_of(Verdict(KEY, Outcome.LAGGING), Stream(CHATS, KEY, lambda: events)) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("projection", [CHATS, TASKS], ids=["chats", "tasks"])
def test_no_event_is_named_that_was_applied_and_hardly_anything_else_is_accused(
    projection: Projection, way: str
) -> None:
    kinds: Counter[str] = Counter()
    for truth in damaged(projection, streams(80, seed=5), WAYS[way], seed=5):
        cause = cause_of(truth.verdict, stream_of(projection, truth))
        assert cause is not None
        assert {event.version for event in cause.lost} <= truth.lost, (truth.verdict.aggregate_id, cause, truth.lost)
        kinds[cause.kind] += 1
    assert kinds.total() > 10
    assert kinds[CauseKind.FOREIGN_WRITE] + kinds[CauseKind.OLDER_SCHEMA] <= 0.01 * kinds.total(), kinds


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (17, 17.0),
        (17, Int64(17)),
        (1, True),
        (17, "17"),
        (1.5, "1.5"),
        (Decimal128("17"), 17),
        (True, "true"),
        (DatetimeMS(5), 5),
        (DatetimeMS(0), "1970-01-01T00:00:00Z"),
        (ObjectId("65a000000000000000000001"), "65a000000000000000000001"),
        (None, Odd(0x06, b"")),
        ([{"a": 1}], [{"a": 1.0}]),
    ],
)
def test_values_that_differ_by_type_alone_are_loosely_the_same(one: Any, other: Any) -> None:
    assert loosely_same(one, other)
    assert loosely_same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (17, 18.0),
        (17, "x"),
        (0, None),
        ("", None),
        (None, ABSENT),
        (0, ABSENT),
        (DatetimeMS(5), "soon"),
        (Decimal128("NaN"), 1),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ("a", "b"),
        (None, False),
    ],
)
def test_other_values_are_not_even_loosely_the_same(one: Any, other: Any) -> None:
    assert not loosely_same(one, other)
    assert not loosely_same(other, one)
