"""A second look at documents, without a database: it gives what it is told to give."""

from collections.abc import Collection, Iterable, Sequence
from typing import Self, cast

from readmodel_pipelines.projections.projection import Document
from readmodel_pipelines.reconcile.join import Lane
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.recheck import Recheck


class _Again:
    """Those of `grown` end at version 1 now, all other streams at 0; no document has an odd key."""

    def __init__(self, lane: Lane, verdicts: Iterable[Verdict], grown: Collection[str]) -> None:
        self.lane = lane
        self._verdicts = {verdict.aggregate_id: verdict for verdict in verdicts}
        self._grown = grown

    def knowing_claims_of(self, _: Sequence[str]) -> Self:
        return self

    def verdicts(self, ids: Sequence[str]) -> list[Verdict]:
        return [self._verdicts[key] for key in ids if key in self._verdicts]

    def odd_orphans(self, documents: Sequence[Document]) -> list[Verdict]:
        return []

    def last_versions(self, ids: Sequence[str]) -> dict[str, int]:
        return {key: int(key in self._grown) for key in ids}


def recheck(lane: Lane, verdicts: Iterable[Verdict], grown: Collection[str] = ()) -> Recheck:
    return cast(Recheck, _Again(lane, verdicts, grown))
