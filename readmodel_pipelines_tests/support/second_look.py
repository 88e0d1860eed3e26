"""A second look at documents, without a database: it gives what it is told to give."""

from collections.abc import Iterable, Sequence
from typing import Self, cast

from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.second_look import SecondLook


class _Again:
    """No stream has grown, no document has an odd key."""

    def __init__(self, lane: Lane, verdicts: Iterable[Verdict]) -> None:
        self.lane = lane
        self._verdicts = {verdict.aggregate_id: verdict for verdict in verdicts}

    def knowing_claims_of(self, _: Sequence[str]) -> Self:
        return self

    def verdicts(self, ids: Sequence[str]) -> list[Verdict]:
        return [self._verdicts[key] for key in ids if key in self._verdicts]

    def odd_orphans(self, documents: Sequence[Document]) -> list[Verdict]:
        return []

    def last_versions(self, ids: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(ids, 0)


def second_look(lane: Lane, verdicts: Iterable[Verdict]) -> SecondLook:
    return cast(SecondLook, _Again(lane, verdicts))
