"""Prefixes: a document of a busy stream is right when it is what some beginning of the stream folds to."""

from dataclasses import replace
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events
from readmodel_pipelines.events.stream import Malformed, fold_streams
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.compare import same_document
from readmodel_pipelines.reconcile.recheck import is_of_a_prefix

Document = dict[str, Any]
CHATS, TASKS = built_in("chat")
STREAMS: dict[str, list[Document]] = {}
for _event in chat_events(30, seed=5, mean_events=12):
    STREAMS.setdefault(_event["aggregate_id"], []).append(_event)


def document_at(projection: Projection, events: list[Document], version: int) -> Document | None:
    (stream,) = fold_streams(events[:version], projection.fold)
    assert not isinstance(stream.result, Malformed)
    expected = projection.document(stream.aggregate_id, stream.result)
    return None if expected is None else {"_id": ObjectId(), **expected}


def same(one: Document | None, other: Document | None) -> bool:
    if one is None or other is None:
        return one is other
    return same_document({name: value for name, value in one.items() if name != "_id"}, other)


@given(st.sampled_from([CHATS, TASKS]), st.sampled_from(sorted(STREAMS)), st.data())
def test_a_document_is_of_a_prefix_exactly_when_some_version_from_there_on_folds_to_it(
    projection: Projection, aggregate_id: str, data: st.DataObject
) -> None:
    events = STREAMS[aggregate_id]
    at = data.draw(st.integers(1, len(events)))
    since = data.draw(st.integers(1, len(events) + 1))
    document = document_at(projection, events, at)
    expected = any(
        same(document, document_at(projection, events, version)) for version in range(since, len(events) + 1)
    )
    assert is_of_a_prefix(projection, aggregate_id, events, document, since) is expected


def test_what_no_version_folds_to_is_of_no_prefix() -> None:
    for aggregate_id, events in STREAMS.items():
        document = document_at(CHATS, events, len(events))
        assert document is not None
        assert not is_of_a_prefix(CHATS, aggregate_id, events, {**document, "title": 7}, 1)
        assert not is_of_a_prefix(CHATS, aggregate_id, events, None, 1)


@pytest.mark.parametrize("broken", [{"version": 99}, {"event_type": "chat.exploded"}, {"data": None}])
def test_a_malformed_stream_has_no_prefix_to_trust(broken: Document) -> None:
    aggregate_id, events = next((key, item) for key, item in STREAMS.items() if len(item) > 3)
    document = document_at(CHATS, events, 2)
    assert is_of_a_prefix(CHATS, aggregate_id, events, document, 1)
    assert not is_of_a_prefix(CHATS, aggregate_id, [*events[:-1], {**events[-1], **broken}], document, 1)


def test_without_events_nothing_is_a_prefix() -> None:
    assert not is_of_a_prefix(CHATS, next(iter(STREAMS)), [], None, 1)


def test_a_projection_that_cannot_take_some_prefix_is_asked_about_the_others() -> None:
    aggregate_id, events = max(STREAMS.items(), key=lambda item: len(item[1]))

    def whole_streams_only(chat_id: str, state: Any) -> Document | None:
        if state.version < len(events):
            raise KeyError("not there yet")
        return CHATS.document(chat_id, state)

    document = document_at(CHATS, events, len(events))
    assert is_of_a_prefix(replace(CHATS, document=whole_streams_only), aggregate_id, events, document, 1)


def test_a_fold_without_a_state_has_no_prefix() -> None:
    aggregate_id, events = next(iter(STREAMS.items()))

    def no_start() -> Any:
        raise SystemExit(1)

    stateless = replace(CHATS, fold=replace(CHATS.fold, start=no_start))
    assert not is_of_a_prefix(stateless, aggregate_id, events, document_at(CHATS, events, 1), 0)
