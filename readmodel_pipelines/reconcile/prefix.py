"""Prefixes: whether a document is what some beginning of its stream folds to, as that of a busy aggregate may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from readmodel_pipelines.events.stream import Fold, Malformed, fold_streams
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import same_document


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
    state = projection.fold.start()
    found = since < 1 and document is None

    def compare() -> bool:
        if not state.created:
            return False
        try:
            expected = projection.document(aggregate_id, state)
        except Exception:  # noqa: BLE001 - there is no document of this beginning; of the whole stream there may be one
            return False
        if expected is None or document is None:
            return expected is document
        return same_document(expected, document)

    def watched() -> Iterator[Event]:
        nonlocal found
        for event in events:
            yield event
            # The fold asks for the next event once it has applied this one.
            version = event.get("version")
            if not found and isinstance(version, int | float) and version >= since:
                found = compare()

    fold: Fold[Any] = replace(projection.fold, start=lambda: state)
    return not any(isinstance(stream.result, Malformed) for stream in fold_streams(watched(), fold, allowed)) and found
