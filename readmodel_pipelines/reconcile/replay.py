"""Walks a stream event by event: the state after each event, and the fold without some events.

Pure. The next event changes a state in place, so make a document of it to keep it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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
    """Fold the events of one stream and call `after` with the state after each; returns the fold of the whole stream.

    None without events. `allowed` is that of `fold_streams`. For a malformed stream the calls end before the first
    offending event, and the states reported so far are invalid.
    """
    result: S | Malformed | None = None
    for stream in fold_streams(events, fold, allowed, after):
        result = stream.result
    return result


def walk_intact(events: Iterable[Event], fold: Fold[S], after: Callable[[Event, S], object]) -> None:
    """The same for a stream that was folded before and is intact, so that nothing is checked again."""
    state = fold.start()
    for event in steps(events, fold, state):
        after(event, state)


def steps(events: Iterable[Event], fold: Fold[S], state: S) -> Iterator[Event]:
    """The events of such a stream, each after it changed the state."""
    known, prefix = fold.events, fold.prefix
    for event in events:
        event_type = event["event_type"]
        if event_type in known:
            known[event_type].apply(state, event)
            state.version = int(event["version"])
        elif event_type.startswith(prefix):
            state.version = int(event["version"])
        yield event


def document_of(projection: Projection, aggregate_id: str, state: Any) -> Document | Absent | None:
    """The projection's document for a state: None if it wants no document, `ABSENT` if it fails.

    Before a stream is created there is no document.
    """
    try:
        return projection.document(aggregate_id, state) if state.created else None
    except FAULTS:
        # For this beginning; the whole stream may have a document.
        return ABSENT


def without(events: Iterable[Event], fold: Fold[S], left_out: Sequence[Collection[int]]) -> list[S | None]:
    """For each set of versions, the fold of an intact stream without these; None if it is malformed then.

    One pass for all sets. The version is that of the last event taken.
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
                # It depends on an omitted event.
                states[place] = None
    return states
