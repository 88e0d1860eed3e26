"""Prefixes: whether a document is what some beginning of its stream folds to, as that of a busy aggregate may be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from readmodel_pipelines.events.stream import EventType, Fold, Malformed, fold_streams
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import same_document


class _Watched:
    """The state of a fold, looked at after each event: a pass sets its version then."""

    __slots__ = ("_look", "state")

    def __init__(self, state: Any, look: Callable[[Any], None]) -> None:
        self.state = state
        self._look = look

    @property
    def created(self) -> bool:
        return bool(self.state.created)

    @property
    def version(self) -> int:
        return int(self.state.version)

    @version.setter
    def version(self, version: int) -> None:
        self.state.version = version
        self._look(self.state)


def is_of_a_prefix(
    projection: Projection,
    aggregate_id: str,
    events: Iterable[Event],
    document: Document | None,
    since: int,
    allowed: Collection[str] = (),
) -> bool:
    """Whether `document` (None where there is none) is what the stream folds to at some version from `since` on.

    `events` are the whole stream, read after the document. At version 0, before its first event, there is no document.
    A malformed stream has no such prefix.
    """
    found = since < 1 and document is None

    def look(state: Any) -> None:
        nonlocal found
        if found or state.version < since or not state.created:
            return
        try:
            expected = projection.document(aggregate_id, state)
        except Exception:  # noqa: BLE001 - there is no document of this beginning; of the whole stream there may be one
            return
        found = expected is document if expected is None or document is None else same_document(expected, document)

    def on_state(event_type: EventType[Any]) -> EventType[Any]:
        return EventType(lambda watched, event: event_type.apply(watched.state, event))

    fold: Fold[Any] = replace(
        projection.fold,
        start=lambda: _Watched(projection.fold.start(), look),
        events={name: on_state(event_type) for name, event_type in projection.fold.events.items()},
    )
    return not any(isinstance(stream.result, Malformed) for stream in fold_streams(events, fold, allowed)) and found
