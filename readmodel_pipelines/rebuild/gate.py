"""The gate: a shadow is verified, like any read model, before it takes the place of the live collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.lanes import Contested, Lanes
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.spread import Look, Suspects, looker
from readmodel_pipelines.workers import work_off

_LOOKS = 5
_MOST = 20_000
_BATCH = 1_000


def what_is_wrong(
    database: Database[Document],
    settings: Settings,
    projections: Sequence[Projection],
    collections: Mapping[str, str],
    contested: Contested,
    ranges: Sequence[IdRange],
    workers: int,
    catch_up: Callable[[], object],
) -> list[tuple[str, Verdict]]:
    """(read model, verdict) of what is wrong in these collections, and still is once they have caught up."""
    look = Look(settings, tuple(item.name for item in projections), collections, contested)
    suspects: dict[str, list[str]] = {item.read_model: [] for item in projections}

    def told(message: Any) -> None:
        if isinstance(message, Suspects):
            ids = suspects[message.read_model]
            wrong_ones = (item for item in message.verdicts if item.outcome is not Outcome.MALFORMED)
            ids += [item.aggregate_id for item in wrong_ones][: _MOST - len(ids)]

    for _ in work_off(looker, look, ranges, workers, told):
        pass
    opened = Lanes(database, settings, projections, contested=contested, collections=collections)
    wrong: list[tuple[str, Verdict]] = []
    for _ in range(_LOOKS):
        # Events that came while we looked are in the shadow after this.
        catch_up()
        wrong = [
            (lane.projection.read_model, verdict)
            for lane in opened.lanes
            for verdict in _again(opened.again(lane), suspects[lane.projection.read_model])
            if verdict.outcome is not Outcome.MALFORMED
        ]
        suspects = {item.read_model: [] for item in projections}
        for read_model, verdict in wrong:
            suspects[read_model].append(verdict.aggregate_id)
        if not wrong:
            break
    return wrong


def _again(again: Callable[[Sequence[str]], list[Verdict]], ids: Sequence[str]) -> Iterator[Verdict]:
    for start in range(0, len(ids), _BATCH):
        yield from again(ids[start : start + _BATCH])
