"""Causes against known truth, for long: every way in which updates are lost, many seeds, both generations of tasks."""

from collections import Counter

import pytest

from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import built_in
from readmodel_pipelines.reconcile.cause import CauseKind
from readmodel_pipelines.reconcile.diagnosis import cause_of
from readmodel_pipelines_tests.support.lost_updates import WAYS, Truth, damaged, stream_of, streams, tied_streams

_SEEDS = range(40)
_STREAMS = 250


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("projection", built_in("chat"), ids=["chats", "tasks"])
def test_causes_are_right_and_no_event_is_named_that_was_applied(projection: Projection, way: str) -> None:
    told: Counter[str] = Counter()
    lies: list[Truth] = []
    for seed in _SEEDS:
        for truth in damaged(projection, streams(_STREAMS, seed), WAYS[way], seed):
            cause = cause_of(truth.verdict, stream_of(projection, truth))
            assert cause is not None
            if not {event.version for event in cause.lost} <= truth.lost:
                lies.append(truth)
            suspects = cause.lost or cause.one_of
            told["found"] += 1
            told["wrong"] += not truth.lost.intersection(event.version for event in suspects)
            told["accused"] += cause.kind in (CauseKind.FOREIGN_WRITE, CauseKind.OLDER_SCHEMA)
    print(projection.name, way, dict(told), f"{len(lies)} lies")
    assert told["accused"] <= 0.01 * told["found"], told
    assert lies == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("projection", built_in("chat"), ids=["chats", "tasks"])
def test_no_event_is_named_that_was_applied_where_most_events_have_another_one_just_like_them(
    projection: Projection, way: str
) -> None:
    for seed in _SEEDS:
        for truth in damaged(projection, tied_streams(_STREAMS, seed), WAYS[way], seed):
            cause = cause_of(truth.verdict, stream_of(projection, truth))
            assert cause is not None
            assert {event.version for event in cause.lost} <= truth.lost, (truth, cause)
