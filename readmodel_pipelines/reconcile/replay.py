"""A stream gone through event by event: what it had folded to after each one, and what it comes to without some.

Pure. A state is changed in place by the next event: whoever wants to keep something of it makes a document of it.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.events.stream import Fold, Malformed, State, fold_streams
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, Absent

S = TypeVar("S", bound=State)


def walk(
    events: Iterable[Event], fold: Fold[S], after: Callable[[Event, S], object], allowed: Collection[str] = ()
) -> S | Malformed | None:
    """Fold the events of one stream, and be told the state `after` each; gives what the whole comes to.

    None where there is no event. `allowed` as for `fold_streams`. Of a malformed stream nothing is told behind the
    first offence, and nothing that was told of it holds.
    """
    result: S | Malformed | None = None
    for stream in fold_streams(events, fold, allowed, after):
        result = stream.result
    return result


def document_of(projection: Projection, aggregate_id: str, state: Any) -> Document | Absent | None:
    """What the projection makes of a state: None where it wants no document, `ABSENT` where it fails.

    Before a stream is created there is no document.
    """
    try:
        return projection.document(aggregate_id, state) if state.created else None
    except FAULTS:
        # Of this beginning; of the whole stream there may be a document.
        return ABSENT


def without(events: Iterable[Event], fold: Fold[S], left_out: Sequence[Collection[int]]) -> list[S | None]:
    """For each set of versions what a sound stream folds to when these are left out; None where it cannot.

    One pass for all of them. The version is that of the last event that was taken.
    """
    states: list[S | None] = [fold.start() for _ in left_out]
    apply = {event_type: item.apply for event_type, item in fold.events.items()}
    for event in events:
        version = int(event["version"])
        handler = apply.get(event["event_type"])
        if handler is None and not event["event_type"].startswith(fold.prefix):
            continue
        for place, state in enumerate(states):
            if state is None or version in left_out[place]:
                continue
            try:
                if handler is not None:
                    handler(state, event)
                state.version = version
            except FAULTS:
                # It counts on an event that is left out.
                states[place] = None
    return states
