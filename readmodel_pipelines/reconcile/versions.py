"""The tier of versions: is there a document for every stream, at its version? Nothing is folded.

What this finds is looked at again as documents before it is told, so it is cheap where all is well, and exact.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from readmodel_pipelines.events.stream import Malformed, Reason, Stream
from readmodel_pipelines.events.values import BadField, whole
from readmodel_pipelines.projections.projection import Document, Projection, stored_version
from readmodel_pipelines.reconcile.join import Lane, MergeJoin
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.ports import EventStore


@dataclass(slots=True)
class _Ends:
    """The state of a stream of which only the version is known."""

    version: int
    created: bool = True


def reconcile_versions(store: EventStore, lanes: Sequence[Lane], allowed: Collection[str] = ()) -> None:
    """Compare presence and version of every aggregate with a string id in every lane."""
    joins = [
        MergeJoin(replace(lane, projection=_outline(lane.projection), emit=_deciding(lane)), lane.model.versions())
        for lane in lanes
    ]
    for aggregate_id, first, last, events in store.version_ranges(lanes[0].projection.fold):
        stream: Stream[_Ends] = Stream(aggregate_id, _ends(first, last, events, allowed))
        for join in joins:
            join.meet(stream)
    for join in joins:
        join.finish()


def _outline(projection: Projection) -> Projection:
    """The projection of a document's key and version alone."""
    versioned = "version" in projection.owned

    def document(aggregate_id: str, ends: _Ends) -> Document:
        outline: Document = {projection.key: aggregate_id}
        if versioned:
            outline["version"] = stored_version(ends.version)
        return outline

    return replace(projection, document=document)


def _deciding(lane: Lane) -> Callable[[Verdict], None]:
    """Whether an absent document ought to be there cannot be told, where the projection is optional."""

    def emit(verdict: Verdict) -> None:
        if verdict.outcome is Outcome.MISSING and lane.projection.optional:
            lane.counts.undecided += 1
        else:
            lane.emit(verdict)

    return emit


def _ends(first: Any, last: Any, events: int, allowed: Collection[str]) -> _Ends | Malformed:
    try:
        begin, end = whole(first, "version"), whole(last, "version")
    except BadField as error:
        return Malformed(Reason.BAD_VERSION, str(error))
    if begin < 1:
        return Malformed(Reason.BAD_VERSION, f"versions begin at 1, this one is {begin}")
    if end < events:
        return Malformed(Reason.REPEATED_VERSION, f"{events} events have versions {begin} to {end}")
    if end > events and Reason.VERSION_GAP not in allowed:
        return Malformed(Reason.VERSION_GAP, f"{events} events have versions {begin} to {end}")
    return _Ends(end)
