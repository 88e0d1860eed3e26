"""A stream gone through event by event, and folded without some of its events."""

from collections.abc import Callable
from typing import Any

import pytest
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.events.stream import Malformed, Reason, fold_streams
from readmodel_pipelines.projections.chat import Chat
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines.reconcile.replay import document_of, walk, walk_intact, without

Document = dict[str, Any]
CHATS, TASKS = built_in("chat")
STREAMS: dict[str, list[Document]] = {}
for _event in chat_events(20, seed=3, mean_events=12):
    STREAMS.setdefault(_event["aggregate_id"], []).append(_event)
KEY, LONGEST = max(STREAMS.items(), key=lambda item: len(item[1]))


def folded(projection: Projection, events: list[Document], *allowed: str) -> Any:
    (stream,) = fold_streams(events, projection.fold, allowed)
    return stream.result


@given(st.sampled_from([CHATS, TASKS]), st.sampled_from(sorted(STREAMS)))
def test_after_each_event_the_state_is_what_the_stream_folds_to_up_to_it(projection: Projection, key: str) -> None:
    told: list[tuple[int, Any]] = []
    events = STREAMS[key]
    whole = walk(
        events,
        projection.fold,
        lambda event, state: told.append((event["version"], document_of(projection, key, state))),
    )
    assert [version for version, _ in told] == [event["version"] for event in events]
    for version, document in told:
        assert document == document_of(projection, key, folded(projection, events[:version]))
    assert document_of(projection, key, whole) == told[-1][1]


def test_a_stream_known_to_be_intact_goes_through_the_same_states() -> None:
    created = {"type": "bug", "workspace_id": "w"}
    kinds = ["chat.created", "chat.unheard_of", "user.created", "chat.renamed"]
    events: list[Document] = [
        {"aggregate_id": KEY, "event_type": kind, "version": version, "data": created}
        for version, kind in zip([1, 2.0, Int64(3), 4], kinds, strict=True)
    ]
    checked: list[Any] = []
    intact: list[Any] = []

    def into(told: list[Any]) -> Callable[[Any, Chat], None]:
        return lambda event, chat: told.append((event, repr(chat), type(chat.version)))

    walk(events, CHATS.fold, into(checked), (Reason.UNKNOWN_EVENT_TYPE,))
    walk_intact(events, CHATS.fold, into(intact))
    assert intact == checked
    assert len(intact) == 4


def test_a_malformed_stream_says_so_and_one_without_events_is_nothing() -> None:
    result = walk([*LONGEST[:-1], {**LONGEST[-1], "version": 999}], CHATS.fold, lambda *_: None)
    assert isinstance(result, Malformed)
    assert result.reason is Reason.VERSION_GAP
    assert walk([], CHATS.fold, lambda *_: None) is None


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_without_some_events_it_comes_to_what_the_others_fold_to(key: str, data: st.DataObject) -> None:
    events = STREAMS[key]
    sets = data.draw(st.lists(st.sets(st.sampled_from(range(1, len(events) + 1))), max_size=4))
    for left_out, state in zip(sets, without(events, CHATS.fold, sets), strict=True):
        rest = [event for event in events if event["version"] not in left_out]
        expected = folded(CHATS, rest, Reason.VERSION_GAP) if rest else Chat()
        if isinstance(expected, Malformed):
            assert expected.reason is Reason.NO_CREATED_EVENT
            assert document_of(CHATS, key, state) is None
        else:
            assert document_of(CHATS, key, state) == document_of(CHATS, key, expected)
            assert document_of(TASKS, key, state) == document_of(TASKS, key, expected)


def test_events_of_other_types_are_stepped_over_and_count_by_their_prefix() -> None:
    more = [{**LONGEST[-1], "version": len(LONGEST) + 1 + place} for place in range(2)]
    more[0]["event_type"], more[1]["event_type"] = "chat.new_in_town", "mail.sent"
    (state,) = without([*LONGEST, *more], CHATS.fold, [()])
    assert state is not None
    assert state.version == len(LONGEST) + 1


def test_what_a_fold_cannot_do_without_an_event_is_nothing_and_what_a_projection_cannot_make_is_absent() -> None:
    def failing(_: str, __: Any) -> Document:
        raise KeyError("no")

    broken: Any = type("Broken", (), {"created": True})()
    assert document_of(Projection("x", "x", CHATS.fold, "id", (), failing), KEY, broken) is ABSENT
    bad = [{**LONGEST[0], "version": 1.0, "data": {"type": 7}}]
    assert without(bad, CHATS.fold, [(), (1,)])[0] is None


@pytest.mark.parametrize("version", [2.0, 2])
def test_a_version_may_be_a_whole_double(version: float) -> None:
    events = [LONGEST[0], {**LONGEST[1], "version": version}]
    states = without(events, CHATS.fold, [(), (2,)])
    assert [state and state.version for state in states] == [2, 1]
