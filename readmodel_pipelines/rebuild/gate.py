"""The gate: a shadow is verified, like any read model, before it takes the place of the live collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.lanes import Contested, Lanes
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.reconcile.collector import calm_collector
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.reconcile.run import reconcile
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.workers import work_off

_LOOKS = 5
_MOST = 20_000
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at read models needs: names of the registry, and collections that lie elsewhere."""

    settings: Settings
    read_models: tuple[str, ...]
    collections: Mapping[str, str]
    contested: Contested


@contextmanager
def looker(look: Look) -> Iterator[Callable[[IdRange, Any], dict[str, list[str]]]]:
    """Gives, for a range, the aggregates that are not as their events say, by read model; a `workers.Work`."""
    with open_database(look.settings) as database, calm_collector():
        yield lambda within, _send: _suspects(database, look, within)


def _suspects(database: Database[Document], look: Look, within: IdRange) -> dict[str, list[str]]:
    settings = look.settings
    projections = [item for item in projections_for(settings.task_source) if item.name in look.read_models]
    opened = Lanes(database, settings, projections, contested=look.contested, collections=look.collections)
    suspects: dict[str, list[str]] = {item.read_model: [] for item in projections}
    for lane in opened.lanes:
        lane.emit = _collecting(suspects[lane.projection.read_model])
    reconcile(opened.store, opened.lanes, settings.allow_malformed, within=within)
    return suspects


def _collecting(suspects: list[str]) -> Callable[[Verdict], None]:
    def emit(verdict: Verdict) -> None:
        if verdict.outcome is not Outcome.MALFORMED and len(suspects) < _MOST:
            suspects.append(verdict.aggregate_id)

    return emit


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
    for _, found in work_off(looker, look, ranges, workers):
        for read_model, ids in found.items():
            suspects[read_model] += ids
    opened = Lanes(database, settings, projections, contested=contested, collections=collections)
    wrong: list[tuple[str, Verdict]] = []
    for _ in range(_LOOKS):
        # Events that came while we looked are in the shadow after this.
        catch_up()
        wrong = [
            (lane.projection.read_model, verdict)
            for lane in opened.lanes
            for verdict in _again(opened.again(lane), suspects[lane.projection.read_model][:_MOST])
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
