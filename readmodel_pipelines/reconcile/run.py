"""The pipeline, `read → fold → join → sink`: one pass over the streams of one aggregate type.

One pass feeds every read model made from those streams. Verbs differ in the aggregates they cover and in the sink.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.events.stream import Malformed, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.join import MergeJoin
from readmodel_pipelines.reconcile.outcome import Verdict
from readmodel_pipelines.reconcile.ports import EventStore, ReadModel
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange


class Sink(Protocol):
    """Where the verdicts on one read model go."""

    def accept(self, verdict: Verdict) -> None:
        """One aggregate that is not `same`."""

    def finish(self) -> None:
        """The pass is over: do what waited for its end."""


def _nowhere(verdict: Verdict) -> None:
    """Until a lane has a sink."""


@dataclass(slots=True)
class Lane:
    """One read model in a pass.

    `contested` names streams that are malformed for this read model only: another claims the same unique key. `keep`
    is given what is `same`, expected and actual.
    """

    projection: Projection
    model: ReadModel
    counts: Counts
    emit: Callable[[Verdict], None] = _nowhere
    contested: Mapping[str, Malformed] = field(default_factory=dict)
    keep: Callable[[Document, Document], None] | None = None


class Checkpoint(Protocol):
    """Cuts a long pass into batches."""

    def due(self) -> bool:
        """Asked once for every stream: whether the batch is full."""

    def reached(self, aggregate_id: str) -> None:
        """Everything before this id, a text of valid UTF-8, is decided. May raise to end the pass here."""


def reconcile(
    store: EventStore,
    lanes: Sequence[Lane],
    allowed: Collection[str] = (),
    ids: Sequence[str] | None = None,
    *,
    within: IdRange = EVERYTHING,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Compare the aggregates `ids` (sorted), or all in a range, in every lane, all made from streams of one type."""
    folds = list(dict.fromkeys(lane.projection.fold for lane in lanes))
    fold = together(folds)
    places = [folds.index(lane.projection.fold) for lane in lanes]
    joins = [
        MergeJoin(lane.projection, _documents(lane, ids, within), lane.counts, lane.emit, lane.contested, lane.keep)
        for lane in lanes
    ]
    for stream in fold_streams(store.read(fold, ids, within), fold, allowed):
        # No query can begin at an id that is no UTF-8.
        if checkpoint is not None and checkpoint.due() and is_plain(stream.aggregate_id):
            for join in joins:
                join.move_to(stream.aggregate_id)
            checkpoint.reached(stream.aggregate_id)
        if len(folds) == 1:
            for join in joins:
                join.meet(stream)
        else:
            parts = [part_of(stream, place) for place in range(len(folds))]
            for join, place in zip(joins, places, strict=True):
                join.meet(parts[place])
    for join in joins:
        join.finish()


def _documents(lane: Lane, ids: Sequence[str] | None, within: IdRange) -> Iterable[dict[str, Any]]:
    """The lane's documents; all of `ids` before the first event is read.

    So that none is newer than the events it is compared with: replacing it would put an older state over a newer one.
    A full pass cannot hold them, and compares again before it replaces.
    """
    documents = lane.model.read(ids, within)
    return documents if ids is None else list(documents)
