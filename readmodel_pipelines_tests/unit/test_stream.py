"""A stream is folded whole or found malformed, whatever its neighbours are."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from bson import Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from readmodel_pipelines.events.stream import Malformed, Reason, Stream, check_id, fold_streams
from readmodel_pipelines.projections.chat import CHAT_FOLD, Chat, chat_document
from readmodel_pipelines.projections.task import task_document_of_chat
from readmodel_pipelines_tests.support.streams import ID

Event = dict[str, Any]

UNKNOWN, GAPS = (Reason.UNKNOWN_EVENT_TYPE,), (Reason.VERSION_GAP,)
ALL_KINDS = UNKNOWN + GAPS


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


Damage = Callable[[Event], Event]
# One of each reason: what else is no version, type, data or field is in `integration/test_malformed_streams.py`.
DAMAGES: dict[Reason, Damage] = {
    Reason.MISSING_VERSION: lambda e: {k: v for k, v in e.items() if k != "version"},
    Reason.BAD_VERSION: lambda e: {**e, "version": e["version"] + 0.5},
    Reason.VERSION_GAP: lambda e: {**e, "version": int(e["version"]) + 1},
    Reason.UNKNOWN_EVENT_TYPE: lambda e: {**e, "event_type": "chat.exploded"},
    Reason.BAD_DATA: lambda e: {**e, "data": []},
    Reason.BAD_FIELD: lambda e: {**e, "event_type": "chat.renamed", "data": {"new_title": 5.0}},
}


@pytest.mark.parametrize(("reason", "damage"), DAMAGES.items(), ids=DAMAGES)
@settings(max_examples=20)
@given(valid_streams(), st.data())
def test_damage_anywhere_makes_that_stream_alone_malformed_for_its_reason(
    reason: Reason, damage: Damage, streams: list[list[Event]], data: st.DataObject
) -> None:
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
    assert offence.detail


STALE = {"version": "stale", "event_type": 7, "aggregate_id": [], "aggregate_type": 5, "occurred_at": "no time"}


@pytest.mark.parametrize(
    ("more", "allowed", "version"),
    [
        *(([chat_event(spelling)], (), 2) for spelling in (2, 2.0, Int64(2))),
        ([chat_event(2, data=STALE)], (), 2),
        ([chat_event(2, "chat.user_assigned", data={"assigned_by": 5})], (), 2),
        ([chat_event(2, "chat.closed", data={"closed_at": "never"})], (), 2),
        ([chat_event(2, "chat.pinned")], UNKNOWN, 2),
        ([chat_event(2, "audit.seen")], UNKNOWN, 1),
        ([chat_event(2, "chat.pinned"), chat_event(3, "audit.seen"), chat_event(4)], UNKNOWN, 4),
        ([chat_event(7)], GAPS, 7),
        ([chat_event(2), chat_event(2**40)], GAPS, 2**40),
    ],
    ids=[
        *("int32", "double", "int64", "what data repeats of the envelope", "a field not used", "another"),
        *("an unknown type of the prefix", "an unknown type of another", "and between", "a hole", "a large hole"),
    ],
)
def test_a_stream_has_the_version_of_its_last_event_whatever_else_is_in_it(
    more: list[Event], allowed: tuple[str, ...], version: int
) -> None:
    found = version_of(created(), *more, allowed=allowed)
    assert found == version
    assert type(found) is int


def test_an_allowed_hole_may_be_at_the_beginning() -> None:
    assert version_of({**created(), "version": 3}, chat_event(7), allowed=GAPS) == 7


@pytest.mark.parametrize(
    "odd",
    [
        *(ID.upper(), ID.replace("-", ""), "{" + ID + "}", ID + "\n", ID[:-1], ID[:-1] + "g"),
        *("", "a chat", "\udcff" + ID[1:], ID[:-1] + "٣"),
    ],
    ids=ascii,
)
def test_a_text_that_is_no_uuid_in_lower_case_is_a_malformed_stream(odd: str) -> None:
    first = created(odd)
    offence = offence_of(first, chat_event(2, stream=odd))
    assert (offence.reason, offence.version, offence.event_id) == (Reason.BAD_AGGREGATE_ID, 1, first["_id"])


def test_a_uuid_of_any_version_is_an_id() -> None:
    for number in (0, 1, 2**128 - 1):
        assert check_id({"aggregate_id": str(UUID(int=number))}) is None


NO_TYPES: list[Any] = [None, 5, ["chat.pinned"], {}]
PINNED, BARE = chat_event(2, "chat.pinned"), {"data": None}


@pytest.mark.parametrize(
    ("events", "allowed", "reason", "offender"),
    [
        ([chat_event(2), created()], (), Reason.VERSION_GAP, 0),
        ([chat_event(1), chat_event(2)], (), Reason.NO_CREATED_EVENT, 0),
        ([created(), PINNED, chat_event(9), chat_event(None)], (), Reason.UNKNOWN_EVENT_TYPE, 1),
        ([PINNED | BARE], (), Reason.VERSION_GAP, 0),
        ([PINNED | BARE | {"version": 1}], (), Reason.BAD_DATA, 0),
        ([created(), PINNED], GAPS, Reason.UNKNOWN_EVENT_TYPE, 1),
        ([created(), chat_event(3)], UNKNOWN, Reason.VERSION_GAP, 1),
        ([created(), chat_event(1)], ALL_KINDS, Reason.REPEATED_VERSION, 1),
        ([chat_event(2)], ALL_KINDS, Reason.NO_CREATED_EVENT, 0),
        ([created("X")], ALL_KINDS, Reason.BAD_AGGREGATE_ID, 0),
        ([created(), PINNED | {"data": 5}], ALL_KINDS, Reason.BAD_DATA, 1),
        ([created(), PINNED | {"version": "2"}], ALL_KINDS, Reason.BAD_VERSION, 1),
        *(([created(), chat_event(2, odd)], ALL_KINDS, Reason.UNKNOWN_EVENT_TYPE, 1) for odd in NO_TYPES),
    ],
    ids=[
        *("out of order", "without created", "the first counts", "version before data", "data before type"),
        *("gaps allow no type", "types allow no gap", "no repeated version", "without created all the same", "no id"),
        *("data of an unknown type", "and its version", "type null", "a number", "a list", "a document"),
    ],
)
def test_the_first_offence_that_is_not_allowed_is_the_one_reported(
    events: list[Event], allowed: tuple[str, ...], reason: Reason, offender: int
) -> None:
    offence = offence_of(*events, allowed=allowed)
    assert (offence.reason, offence.event_id) == (reason, events[offender]["_id"])
    assert offence.version == events[offender]["version"]
