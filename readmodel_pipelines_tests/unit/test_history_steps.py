"""A replay says of every event what it changed, who changed each field last, and at which version what is stored."""

import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.demo.sample_data import chat_events, long_stream, task_events
from readmodel_pipelines.events.stream import Malformed, fold_streams
from readmodel_pipelines.history.formatting import lines_of_step
from readmodel_pipelines.history.steps import Replay, SetBy, Step
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.compare import ABSENT
from readmodel_pipelines_tests.support.scene import typed
from readmodel_pipelines_tests.support.streams import ID, stream_of

Document = dict[str, Any]
CHATS, TASKS = built_in("chat")
_, LEGACY = built_in("task")
CREATED = ("chat.created", {"type": "task", "workspace_id": "w", "created_by": "u"})


def by_stream(events: Iterator[Document]) -> list[list[Document]]:
    streams: dict[str, list[Document]] = {}
    for event in events:
        streams.setdefault(event["aggregate_id"], []).append(event)
    return list(streams.values())


OF_CHATS = by_stream(chat_events(30, seed=5, mean_events=12))
OF_TASKS = by_stream(task_events(30, seed=5, mean_events=8))


def document_at(projection: Projection, events: list[Document], version: int) -> Document:
    """What the first events fold to, from the beginning; no field where there is no document."""
    for stream in fold_streams(events[:version], projection.fold):
        assert not isinstance(stream.result, Malformed)
        return projection.document(stream.aggregate_id, stream.result) or {}
    return {}


def replayed(
    events: list[Document],
    *projections: Projection,
    stored: Mapping[str, Document | None] | None = None,
    **options: Any,
) -> tuple[Replay, list[Step]]:
    steps: list[Step] = []
    replay = Replay(projections, events[0]["aggregate_id"], stored or {}, steps.append, **options)
    replay.run(events)
    return replay, steps


@pytest.mark.parametrize("projections", [(CHATS, TASKS), (LEGACY,)], ids=["chats", "legacy tasks"])
@given(st.data())
def test_steps_and_blame_are_those_of_a_replay_from_the_beginning_for_each_version(
    projections: tuple[Projection, ...], data: st.DataObject
) -> None:
    events = data.draw(st.sampled_from(OF_CHATS if CHATS in projections else OF_TASKS))
    until = data.draw(st.integers(1, len(events)))
    replay, steps = replayed(events, *projections, shows=lambda version, _: version <= until)

    assert [step.version for step in steps] == list(range(1, until + 1))
    for projection in projections:
        blame: dict[str, SetBy] = {}
        for step in steps:
            before, after = (document_at(projection, events, version) for version in (step.version - 1, step.version))
            changed = {
                name: (before.get(name, ABSENT), after.get(name, ABSENT))
                for name in {*before, *after}
                if typed(before.get(name, ABSENT)) != typed(after.get(name, ABSENT))
            }
            assert typed(step.changed.get(projection.read_model, {})) == typed(changed)
            assert (projection.read_model in step.removed) == (bool(before) and not after)
            blame |= dict.fromkeys(changed, SetBy(step.version, events[step.version - 1]["event_type"]))
        position = replay.positions[projection.read_model]
        assert position.blame == blame
        assert typed(position.document or {}) == typed(document_at(projection, events, until))


@given(st.sampled_from([CHATS, TASKS]), st.sampled_from(OF_CHATS), st.data())
def test_what_is_stored_stands_at_the_last_version_that_said_so(
    projection: Projection, events: list[Document], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(events)))
    document = document_at(projection, events, at)
    stored = {projection.read_model: {"_id": ObjectId(), **document} if document else None}
    same = [n for n in range(len(events) + 1) if typed(document_at(projection, events, n)) == typed(document)]
    # Also where less of the stream is shown.
    replay, _ = replayed(events, projection, stored=stored, shows=lambda version, _: version <= 1)
    assert replay.positions[projection.read_model].at_version == max(same)


def test_what_no_version_said_stands_nowhere() -> None:
    events = OF_CHATS[0]
    stored = {CHATS.read_model: {"_id": 1, **document_at(CHATS, events, len(events)), "title": 7}}
    replay, _ = replayed(events, CHATS, stored=stored)
    assert replay.positions[CHATS.read_model].at_version is None


@pytest.mark.parametrize("broken", [{"version": 99}, {"event_type": "chat.exploded"}, {"data": None}])
def test_the_event_that_is_to_blame_and_those_behind_it_are_no_steps(broken: Document) -> None:
    events = max(OF_CHATS, key=len)
    whole, _ = replayed(events[:3], CHATS)
    replay, steps = replayed([*events[:3], {**events[3], **broken}, *events[4:]], CHATS)
    assert [step.version for step in steps] == [1, 2, 3]
    assert replay.positions == whole.positions


def test_a_field_that_goes_is_blamed_on_the_event_that_took_it() -> None:
    events = stream_of(CREATED, ("chat.user_assigned", {"assignee_id": "x"}), ("chat.assignee_removed", {}))
    replay, steps = replayed(events, CHATS)
    assert steps[2].changed == {CHATS.read_model: {"assigned_to": ("x", ABSENT)}}
    assert not steps[2].removed, "the document itself stays"
    assert any("assigned_to" in line for line in lines_of_step(steps[2], several=False))
    assert replay.positions[CHATS.read_model].blame["assigned_to"] == SetBy(3, "chat.assignee_removed")


def test_a_document_that_goes_takes_every_field_with_it() -> None:
    replay, steps = replayed(stream_of(CREATED, ("chat.deleted", {})), CHATS, TASKS)
    assert set(steps[1].changed) == set(steps[1].removed) == {TASKS.read_model}
    assert {after for _, after in steps[1].changed[TASKS.read_model].values()} == {ABSENT}
    assert replay.positions[TASKS.read_model].document is None


def test_a_document_that_shares_a_list_with_the_state_is_told_as_it_was_at_each_step() -> None:
    shared = replace(CHATS, document=lambda chat_id, chat: {"chat_id": chat_id, "people": names_of(chat)})
    joins = [("chat.participant_added", {"user_id": name}) for name in "ab"]
    _, steps = replayed(stream_of(CREATED, *joins), shared)
    assert [step.changed[CHATS.read_model]["people"] for step in steps] == [
        (ABSENT, []),
        ([], ["a"]),
        (["a"], ["a", "b"]),
    ]


_NAMES: dict[int, list[str]] = {}


def names_of(chat: Any) -> list[str]:
    names = _NAMES.setdefault(id(chat), [])
    names[:] = chat.participants
    return names


def test_a_projection_that_cannot_take_some_beginning_is_told_of_the_others() -> None:
    def later(chat_id: str, chat: Any) -> Document:
        if chat.version < 2:
            raise KeyError("not there yet")
        return {"chat_id": chat_id, "title": chat.title}

    events = stream_of(CREATED, ("chat.renamed", {"new_title": "x"}))
    _, steps = replayed(events, replace(CHATS, document=later))
    assert [set(step.changed.get(CHATS.read_model, {})) for step in steps] == [set(), {"chat_id", "title"}]


def test_one_of_two_folds_that_fails_is_not_told_of_and_the_other_one_is() -> None:
    def fails(_state: Any, _event: Any) -> None:
        raise KeyError("mine")

    renamed = replace(CHATS.fold.events["chat.renamed"], apply=fails)
    fold = replace(CHATS.fold, events={**CHATS.fold.events, "chat.renamed": renamed})
    faulty = replace(CHATS, read_model="faulty", fold=fold)
    replay, steps = replayed(stream_of(CREATED, ("chat.renamed", {"new_title": "x"})), CHATS, faulty)
    assert [set(step.changed) for step in steps] == [{CHATS.read_model, "faulty"}, {CHATS.read_model}]
    (stream,) = fold_streams(stream_of(CREATED, ("chat.renamed", {"new_title": "x"})), replay.fold)
    assert isinstance(replay.result_of(stream, faulty).result, Malformed)
    assert not isinstance(replay.result_of(stream, CHATS).result, Malformed)


def test_a_long_stream_is_not_held() -> None:
    events = list(long_stream(3_000))
    replay = Replay([CHATS, TASKS], ID, {}, lambda _: None)
    tracemalloc.start()
    try:
        replay.run(events)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert replay.version == 3_000
    assert most < 1_000_000, f"{most:,} bytes"
