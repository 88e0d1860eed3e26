"""Several folds over the same streams in one pass, combined into one fold.

Each yields the same result as alone. An event that one of them cannot apply makes the stream malformed only for that
one. Of two offences the common one is reported, even if it is later. They must agree on the spellings, the prefix and
the event types of their streams.
"""

from collections.abc import Callable, Sequence
from typing import Any

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.events.stream import EventType, Fold, Malformed, State, Stream, finished, offence_of
from readmodel_pipelines.events.values import Event


class Together:
    """The result of several folds over a stream: for each a state, or the reason why it is malformed."""

    __slots__ = ("_folds", "_parts", "_version", "first")

    def __init__(self, folds: Sequence[Fold[Any]]) -> None:
        self._folds = folds
        self._parts: list[Any] = []
        self._version = 0
        self.first: Event | None = None

    @property
    def created(self) -> bool:
        """True; each part reports a missing creation itself, unless none can."""
        return any(isinstance(part, Malformed) or _is_created(part) for part in self._parts)

    @property
    def version(self) -> int:
        """The version of the stream, the same in every part."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        for place, part in enumerate(self._parts):
            if not isinstance(part, Malformed):
                try:
                    part.version = version
                except FAULTS as error:
                    self._parts[place] = offence_of({"version": version}, error)

    def apply(self, handlers: Sequence[Callable[[Any, Event], None]], event: Event) -> None:
        """Apply an event to every part that is still intact."""
        if self.first is None:
            self.first = event
            self._parts = [_started(fold, event) for fold in self._folds]
        for place, handler in enumerate(handlers):
            part = self._parts[place]
            if not isinstance(part, Malformed):
                try:
                    handler(part, event)
                except FAULTS as error:
                    self._parts[place] = offence_of(event, error)

    def part(self, place: int) -> State | Malformed:
        """The result of the fold at this place."""
        part = self._parts[place]
        return part if isinstance(part, Malformed) else finished(part, self.first or {})


def _started(fold: Fold[Any], first: Event) -> Any:
    try:
        return fold.start()
    except FAULTS as error:
        return offence_of(first, error)


def _is_created(part: State) -> bool:
    try:
        return bool(part.created)
    except FAULTS:
        # It reports that itself.
        return True


def together(folds: Sequence[Fold[Any]]) -> Fold[Any]:
    """One fold that does the work of all; a single one is returned unchanged."""
    if len(folds) == 1:
        return folds[0]
    first = folds[0]

    def of_each(event_type: str) -> EventType[Any]:
        each = [fold.events[event_type] for fold in folds]
        handlers = [item.apply for item in each]
        fields = tuple(dict.fromkeys(name for item in each for name in item.fields))
        return EventType(lambda state, event: state.apply(handlers, event), fields)

    return Fold(
        aggregate_type=first.aggregate_type,
        stored_as=first.stored_as,
        prefix=first.prefix,
        start=lambda: Together(folds),
        events={event_type: of_each(event_type) for event_type in first.events},
        envelope=tuple(dict.fromkeys(name for fold in folds for name in fold.envelope)),
    )


def part_of(stream: Stream[Any], place: int) -> Stream[Any]:
    """The stream with the result of the fold at this place."""
    result = stream.result
    return Stream(stream.aggregate_id, result.part(place) if isinstance(result, Together) else result)
