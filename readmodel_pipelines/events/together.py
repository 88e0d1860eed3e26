"""Several folds over the same streams, fed by one pass: to the pass they are one fold.

Each comes to what it would come to by itself: what one of them cannot take makes the stream malformed for that one
alone. Of two offences the one that they share is told, though it may be the later. They agree on the spellings, the
prefix and the event types of their streams.
"""

from collections.abc import Callable, Sequence
from typing import Any

from readmodel_pipelines.errors import FAULTS
from readmodel_pipelines.events.stream import EventType, Fold, Malformed, State, Stream, finished, offence_of
from readmodel_pipelines.events.values import Event


class Together:
    """What a stream folds to in each of several folds: a state, or why that one cannot trust it."""

    __slots__ = ("_folds", "_parts", "_version", "first")

    def __init__(self, folds: Sequence[Fold[Any]]) -> None:
        self._folds = folds
        self._parts: list[Any] = []
        self._version = 0
        self.first: Event | None = None

    @property
    def created(self) -> bool:
        """Each part answers for itself, unless none can."""
        return any(isinstance(part, Malformed) or _is_created(part) for part in self._parts)

    @property
    def version(self) -> int:
        """The version of the stream, as every part has it."""
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
        """Apply an event to every part that can still be trusted."""
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
        """What the fold at this place comes to."""
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
        # It says so itself.
        return True


def together(folds: Sequence[Fold[Any]]) -> Fold[Any]:
    """One fold that does the work of all; of a single one, that one itself."""
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
    """The stream as the fold at this place has it."""
    result = stream.result
    return Stream(stream.aggregate_id, result.part(place) if isinstance(result, Together) else result)
