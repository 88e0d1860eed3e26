"""Recognizes stored values that no event explains, by one walk that keeps nothing.

Another program usually damages a field that only the event that creates the aggregate sets, with a value that no event
holds. Then no earlier state of the stream explains the document, and leaving out events cannot. `diagnosis` comes to
the same result with more work, and decides everything that this walk cannot tell.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, Absent
from readmodel_pipelines.reconcile.loosely import loosely_same
from readmodel_pipelines.reconcile.replay import steps

_NO_VALUE = object()


def texts_of(events: Iterable[Event]) -> list[str]:
    """All texts in the data of events."""
    return [value for event in events for value in event["data"].values() if type(value) is str]


def is_plausible(stored: Any, texts: Sequence[str]) -> bool:
    """Whether a fold can make this value that it never made: a text occurs in some event, or is empty."""
    if not stored or isinstance(stored, list | dict | Absent):
        return type(stored) is not int
    if type(stored) is not str:
        return False
    wanted = stored.casefold()
    # Nearly always none holds it, which is found out faster in all of them together.
    return wanted in "\0".join(texts).casefold() and any(text.strip().casefold() == wanted for text in texts)


def are_unexplained(
    projection: Projection, aggregate_id: str, events: Sequence[Event], pairs: Mapping[str, tuple[Any, Any]]
) -> bool:
    """Whether no event of an intact stream explains the stored value of these fields; false if unknown.

    No field ever had its stored value, and of one that never changed no event holds that value.
    """
    if any(ABSENT in pair or isinstance(pair[1], list) for pair in pairs.values()):
        return False
    texts = texts_of(events)
    unmoved = {name for name, (_, stored) in pairs.items() if not is_plausible(stored, texts)}
    if not unmoved:
        return False
    watched = [(name, stored) for name, (_, stored) in pairs.items()]
    values: Document = {}
    state = projection.fold.start()
    try:
        for _ in steps(events, projection.fold, state):
            made = projection.document(aggregate_id, state) if state.created else None
            if not isinstance(made, dict):
                if values:
                    return False
                continue
            for name, stored in watched:
                value = made.get(name, ABSENT)
                before = values.get(name, _NO_VALUE)
                # Nearly always the same object.
                if value is before or (type(value) is type(before) and value == before):
                    continue
                if loosely_same(value, stored):
                    return False
                if name in values:
                    unmoved.discard(name)
                    if not unmoved:
                        return False
                values[name] = value
    except FAULTS:
        # For this beginning; the whole stream has a document.
        return False
    return True
