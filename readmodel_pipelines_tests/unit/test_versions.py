"""The tier of versions: what it suspects, from the ends of streams and the versions of documents alone."""

from collections.abc import Collection
from typing import cast

import pytest

from readmodel_pipelines.events.stream import Reason
from readmodel_pipelines.projections.task import TASKS_OF_CHATS
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Counts, Verdict
from readmodel_pipelines.reconcile.ports import EventStore, ReadModel
from readmodel_pipelines.reconcile.versions import reconcile_versions


class Store:
    def version_ranges(self, _: object) -> list[tuple[str, int, int, int]]:
        return [("a", 1, 5, 3)]


class Model:
    def versions(self) -> list[dict[str, object]]:
        return [{"_id": None, "task_id": "a", "version": 5}]


@pytest.mark.parametrize(("allowed", "suspected"), [((), [Reason.VERSION_GAP]), ((Reason.VERSION_GAP,), [])])
def test_a_gap_is_suspected_but_where_gaps_are_allowed(allowed: Collection[str], suspected: list[Reason]) -> None:
    verdicts: list[Verdict] = []
    lane = Lane(TASKS_OF_CHATS, cast(ReadModel, Model()), Counts(), emit=verdicts.append)
    reconcile_versions(cast(EventStore, Store()), [lane], allowed)
    assert [verdict.reason for verdict in verdicts] == suspected
