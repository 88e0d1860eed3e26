"""A stream is folded whole or found malformed, whatever its neighbours are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from bson import Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events, task_events
from readmodel_pipelines.events.stream import Malformed, Reason, Stream, check_id, fold_streams
from readmodel_pipelines.projections.chat import CHAT_FOLD, Chat, chat_document
from readmodel_pipelines.projections.task import TASK_FOLD, task_document, task_document_of_chat

Event = dict[str, Any]

ID = "0198c0de-0000-4000-8000-00000000000a"
ALL_KINDS = (Reason.UNKNOWN_EVENT_TYPE, Reason.VERSION_GAP)


def chat_event(version: Any, kind: Any = "chat.renamed", stream: Any = ID, data: Event | None = None) -> Event:
    own = {} if data is None else data
    return {"_id": ObjectId(), "aggregate_id": stream, "event_type": kind, "version": version, "data": own}


def created(stream: str = ID) -> Event:
    return chat_event(1, "chat.created", stream, {"type": "task"})


def fold_one(*events: Event, allowed: tuple[str, ...] = ()) -> Chat | Malformed:
    (stream,) = fold_streams(events, CHAT_FOLD, allowed)
    return stream.result


def version_of(*events: Event, allowed: tuple[str, ...] = ()) -> int:
    result = fold_one(*events, allowed=allowed)
    assert isinstance(result, Chat), result
    return result.version


def offence_of(*events: Event, allowed: tuple[str, ...] = ()) -> Malformed:
    result = fold_one(*events, allowed=allowed)
    assert isinstance(result, Malformed)
    return result


def shown(stream: Stream[Chat]) -> Any:
    """What can be seen of a folded chat, or its offence."""
    if isinstance(stream.result, Malformed):
        return stream.result
    documents = (task_document_of_chat(stream.aggregate_id, stream.result), chat_document("", stream.result))
    return documents, stream.result.version, stream.result.deleted


texts = st.none() | st.sampled_from(["", "ann", "f", "Fixed", "task", "discussion", "🐛"])
moments = st.none() | st.sampled_from(["2026-01-02T03:04:05.678901234+05:00", DatetimeMS(12)])
numbers = st.none() | st.sampled_from([7, 7.0, Int64(7)])
flags = st.none() | st.sampled_from([True, False, 1.0, 0])
OWN_VALUES = {"is_public": flags, "file_size": numbers, "created_at": moments, "new_due_date": moments}


@st.composite
def valid_streams(draw: st.DrawFn, most: int = 3) -> list[list[Event]]:
    """Chat streams in the order of their ids; created comes anywhere, perhaps twice."""
    ids = sorted(str(uuid) for uuid in draw(st.sets(st.uuids(), min_size=1, max_size=most)))
    streams = []
    for stream in ids:
        kinds = draw(st.lists(st.sampled_from(sorted(CHAT_FOLD.events)), max_size=6))
        kinds.insert(draw(st.integers(0, len(kinds))), "chat.created")
        events = []
        for version, kind in enumerate(kinds, start=1):
            data = {name: draw(OWN_VALUES.get(name, texts)) for name in CHAT_FOLD.events[kind].fields}
            stored = draw(st.sampled_from([version, float(version), Int64(version)]))
            events.append(chat_event(stored, kind, stream, data))
        streams.append(events)
    return streams


def flat(streams: list[list[Event]]) -> list[Event]:
    return [event for events in streams for event in events]


@given(valid_streams())
def test_a_valid_stream_is_never_malformed_and_counts_every_event(streams: list[list[Event]]) -> None:
    found = list(fold_streams(flat(streams), CHAT_FOLD))
    assert [stream.aggregate_id for stream in found] == [events[0]["aggregate_id"] for events in streams]
    for stream, events in zip(found, streams, strict=True):
        assert isinstance(stream.result, Chat), stream.result
        assert (stream.result.created, stream.result.version) == (True, len(events))


@given(st.integers(0, 10_000))
def test_what_the_application_writes_is_never_malformed(seed: int) -> None:
    chats: list[Stream[Any]] = list(fold_streams(chat_events(3, seed=seed), CHAT_FOLD))
    tasks = list(fold_streams(task_events(3, seed=seed), TASK_FOLD))
    assert len(chats) == len(tasks) == 3
    assert not [stream.result for stream in (*chats, *tasks) if isinstance(stream.result, Malformed)]


@given(valid_streams())
def test_streams_folded_together_are_what_each_is_alone(streams: list[list[Event]]) -> None:
    together = [shown(stream) for stream in fold_streams(flat(streams), CHAT_FOLD)]
    alone = [shown(stream) for events in streams for stream in fold_streams(events, CHAT_FOLD)]
    assert together == alone


def test_a_stream_is_given_as_soon_as_the_next_one_begins() -> None:
    taken = []

    def events() -> Iterator[Event]:
        for event in (created(ID), chat_event(2), created(ID[:-1] + "b"), created(ID[:-1] + "c")):
            taken.append(event)
            yield event

    next(fold_streams(events(), CHAT_FOLD))
    assert len(taken) == 3


def test_no_events_are_no_streams() -> None:
    assert list(fold_streams([], CHAT_FOLD)) == []


Damage = Callable[[Event], Event]
DAMAGES: dict[str, tuple[Reason, Damage]] = {
    "no version": (Reason.MISSING_VERSION, lambda e: {k: v for k, v in e.items() if k != "version"}),
    "null version": (Reason.MISSING_VERSION, lambda e: {**e, "version": None}),
    "version a text": (Reason.BAD_VERSION, lambda e: {**e, "version": str(e["version"])}),
    "version a bool": (Reason.BAD_VERSION, lambda e: {**e, "version": True}),
    "version and a half": (Reason.BAD_VERSION, lambda e: {**e, "version": e["version"] + 0.5}),
    "version NaN": (Reason.BAD_VERSION, lambda e: {**e, "version": float("nan")}),
    "version infinite": (Reason.BAD_VERSION, lambda e: {**e, "version": float("inf")}),
    "version beyond int64": (Reason.BAD_VERSION, lambda e: {**e, "version": 2.0**63}),
    "version a decimal": (Reason.BAD_VERSION, lambda e: {**e, "version": Decimal128("1")}),
    "version 0": (Reason.BAD_VERSION, lambda e: {**e, "version": 0}),
    "version below 0": (Reason.BAD_VERSION, lambda e: {**e, "version": -1}),
    "a hole": (Reason.VERSION_GAP, lambda e: {**e, "version": int(e["version"]) + 1}),
    "unknown type": (Reason.UNKNOWN_EVENT_TYPE, lambda e: {**e, "event_type": "chat.exploded"}),
    "another catalogue's type": (Reason.UNKNOWN_EVENT_TYPE, lambda e: {**e, "event_type": "task.created"}),
    "type in upper case": (Reason.UNKNOWN_EVENT_TYPE, lambda e: {**e, "event_type": "CHAT.CREATED"}),
    "no type": (Reason.UNKNOWN_EVENT_TYPE, lambda e: {k: v for k, v in e.items() if k != "event_type"}),
    "type a list": (Reason.UNKNOWN_EVENT_TYPE, lambda e: {**e, "event_type": ["chat.renamed"]}),
    "no data": (Reason.BAD_DATA, lambda e: {k: v for k, v in e.items() if k != "data"}),
    "null data": (Reason.BAD_DATA, lambda e: {**e, "data": None}),
    "data a list": (Reason.BAD_DATA, lambda e: {**e, "data": []}),
    "data a text": (Reason.BAD_DATA, lambda e: {**e, "data": "{}"}),
    "a number for a text": (
        Reason.BAD_FIELD,
        lambda e: {**e, "event_type": "chat.renamed", "data": {"new_title": 5.0}},
    ),
    "a bad time": (
        Reason.BAD_FIELD,
        lambda e: {**e, "event_type": "chat.due_date_set", "data": {"new_due_date": "soon"}},
    ),
    "a bad bool": (Reason.BAD_FIELD, lambda e: {**e, "event_type": "chat.created", "data": {"is_public": "yes"}}),
    "a bad size": (
        Reason.BAD_FIELD,
        lambda e: {**e, "event_type": "chat.attachment_added", "data": {"file_size": float("nan")}},
    ),
}


@pytest.mark.parametrize(("reason", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_each_kind_of_damage_has_its_reason(reason: Reason, damage: Damage) -> None:
    bad = damage(chat_event(2))
    offence = offence_of(created(), bad, chat_event(3))
    assert (offence.reason, offence.event_id) == (reason, bad["_id"])
    assert repr(offence.version) == repr(bad.get("version"))
    assert offence.detail


@settings(max_examples=200)
@given(valid_streams(), st.sampled_from(sorted(DAMAGES)), st.data())
def test_damage_anywhere_makes_that_stream_alone_malformed(
    streams: list[list[Event]], kind: str, data: st.DataObject
) -> None:
    reason, damage = DAMAGES[kind]
    number = data.draw(st.integers(0, len(streams) - 1))
    place = data.draw(st.integers(0, len(streams[number]) - 1))
    healthy = [shown(stream) for stream in fold_streams(flat(streams), CHAT_FOLD)]
    bad = streams[number][place] = damage(streams[number][place])
    found = [shown(stream) for stream in fold_streams(flat(streams), CHAT_FOLD)]
    offence = found.pop(number)
    healthy.pop(number)
    assert found == healthy
    assert isinstance(offence, Malformed)
    assert (offence.reason, offence.event_id) == (reason, bad["_id"])
    assert repr(offence.version) == repr(bad.get("version"))


@given(valid_streams(), st.data())
def test_a_repeated_version_is_found_at_its_second_event(streams: list[list[Event]], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(streams) - 1))
    place = data.draw(st.integers(0, len(streams[number]) - 1))
    again = {**streams[number][place], "_id": ObjectId()}
    streams[number].insert(place + 1, again)
    offence = list(fold_streams(flat(streams), CHAT_FOLD))[number].result
    assert isinstance(offence, Malformed)
    assert (offence.reason, offence.event_id) == (Reason.REPEATED_VERSION, again["_id"])
    assert offence.version == again["version"]


def test_events_out_of_order_are_no_healthy_stream() -> None:
    assert offence_of(chat_event(2), created()).reason is Reason.VERSION_GAP


def test_a_stream_without_created_is_malformed_at_its_first_event() -> None:
    first = chat_event(1)
    offence = offence_of(first, chat_event(2))
    assert (offence.reason, offence.version, offence.event_id) == (Reason.NO_CREATED_EVENT, 1, first["_id"])


def test_the_first_offence_is_the_one_reported() -> None:
    bad = chat_event(2, "chat.unheard_of")
    offence = offence_of(created(), bad, chat_event(9), chat_event(None))
    assert (offence.reason, offence.event_id) == (Reason.UNKNOWN_EVENT_TYPE, bad["_id"])


def test_a_version_is_checked_before_data_and_data_before_the_type() -> None:
    assert offence_of({**chat_event(2, "chat.unheard_of"), "data": None}).reason is Reason.VERSION_GAP
    assert offence_of({**chat_event(1, "chat.unheard_of"), "data": None}).reason is Reason.BAD_DATA


@pytest.mark.parametrize("spelling", [2, 2.0, Int64(2)], ids=repr)
def test_a_version_may_be_any_whole_number(spelling: Any) -> None:
    version = version_of(created(), chat_event(spelling))
    assert version == 2
    assert type(version) is int


def test_what_data_repeats_of_the_envelope_is_not_looked_at() -> None:
    stale = {"version": "stale", "event_type": 7, "aggregate_id": [], "aggregate_type": 5, "occurred_at": "no time"}
    assert version_of(chat_event(1, "chat.created", data=stale), chat_event(2, data=stale)) == 2


def test_fields_that_no_fold_uses_may_hold_anything() -> None:
    assert version_of(created(), chat_event(2, "chat.user_assigned", data={"assigned_by": 5})) == 2
    assert version_of(created(), chat_event(2, "chat.closed", data={"closed_at": "never"})) == 2


@pytest.mark.parametrize(
    "odd",
    [
        ID.upper(),
        ID.replace("-", ""),
        "{" + ID + "}",
        ID + "\n",
        ID[:-1],
        ID[:-1] + "g",
        "",
        "a chat",
        "\udcff" + ID[1:],
        ID[:-1] + "٣",
    ],
    ids=ascii,
)
def test_a_text_that_is_no_uuid_in_lower_case_is_a_malformed_stream(odd: str) -> None:
    first = created(odd)
    offence = offence_of(first, chat_event(2, stream=odd))
    assert (offence.reason, offence.version, offence.event_id) == (Reason.BAD_AGGREGATE_ID, 1, first["_id"])


@pytest.mark.parametrize(
    "odd", [None, 5, 5.0, True, ObjectId("6b04ac7488e4dd37f7169d64"), UUID(ID), [ID], {"id": ID}, b"id"], ids=repr
)
def test_an_id_that_is_no_string_is_an_offence(odd: Any) -> None:
    event = {"_id": 7, "aggregate_id": odd, "version": 3}
    offence = check_id(event)
    assert offence is not None
    assert (offence.reason, offence.version, offence.event_id) == (Reason.BAD_AGGREGATE_ID, 3, 7)


def test_an_event_without_an_id_of_its_aggregate_is_an_offence() -> None:
    assert check_id({"_id": 7, "version": 1}) is not None


def test_a_uuid_of_any_version_is_an_id() -> None:
    for number in (0, 1, 2**128 - 1):
        assert check_id({"aggregate_id": str(UUID(int=number))}) is None


def test_allowed_unknown_types_are_skipped_and_count_in_the_version_when_they_bear_the_prefix() -> None:
    ours, theirs = chat_event(2, "chat.pinned"), chat_event(3, "audit.seen")
    allowed = (Reason.UNKNOWN_EVENT_TYPE,)
    assert version_of(created(), ours, allowed=allowed) == 2
    assert version_of(created(), chat_event(2, "audit.seen"), allowed=allowed) == 1
    assert version_of(created(), ours, theirs, chat_event(4), allowed=allowed) == 4


@pytest.mark.parametrize("kind", [None, 5, ["chat.pinned"], {}], ids=repr)
def test_a_type_that_is_no_text_is_malformed_even_when_unknown_types_are_allowed(kind: Any) -> None:
    assert offence_of(created(), chat_event(2, kind), allowed=ALL_KINDS).reason is Reason.UNKNOWN_EVENT_TYPE


def test_an_allowed_unknown_type_still_needs_a_document_and_a_version() -> None:
    assert (
        offence_of(created(), {**chat_event(2, "chat.pinned"), "data": 5}, allowed=ALL_KINDS).reason is Reason.BAD_DATA
    )
    assert offence_of(created(), chat_event("2", "chat.pinned"), allowed=ALL_KINDS).reason is Reason.BAD_VERSION


def test_allowed_holes_are_stepped_over_at_the_beginning_and_within() -> None:
    allowed = (Reason.VERSION_GAP,)
    assert version_of({**created(), "version": 3}, chat_event(7), allowed=allowed) == 7
    assert version_of(created(), chat_event(2), chat_event(2**40), allowed=allowed) == 2**40


def test_allowing_one_kind_allows_no_other() -> None:
    unknown, hole = chat_event(2, "chat.pinned"), chat_event(3)
    assert offence_of(created(), unknown, allowed=(Reason.VERSION_GAP,)).reason is Reason.UNKNOWN_EVENT_TYPE
    assert offence_of(created(), hole, allowed=(Reason.UNKNOWN_EVENT_TYPE,)).reason is Reason.VERSION_GAP
    assert offence_of(created(), chat_event(1), allowed=ALL_KINDS).reason is Reason.REPEATED_VERSION
    assert offence_of(chat_event(2), allowed=ALL_KINDS).reason is Reason.NO_CREATED_EVENT
    assert offence_of(created("X"), allowed=ALL_KINDS).reason is Reason.BAD_AGGREGATE_ID


def test_a_legacy_stream_obeys_the_same_rules() -> None:
    events = [
        chat_event(1, "task.created", data={"ChatID": "c", "Title": "t"}),
        chat_event(2, "task.status_changed", data={"NewStatus": 5}),
    ]
    (stream,) = fold_streams(events, TASK_FOLD)
    assert isinstance(stream.result, Malformed)
    assert (stream.result.reason, stream.result.event_id) == (Reason.BAD_FIELD, events[1]["_id"])
    (healthy,) = fold_streams(events[:1], TASK_FOLD)
    assert not isinstance(healthy.result, Malformed)
    assert task_document(ID, healthy.result)["title"] == "t"
