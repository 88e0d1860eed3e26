"""A stream: the events of one aggregate in version order, their integrity, and the fold over them.

A stream is folded completely or not at all. The first event that breaks a rule makes it malformed, with a reason.
Nothing is guessed, and no stream affects another. Events are read one at a time, so memory does not grow with a
stream's length. DATA_CONTRACT.md, «Malformed streams», has the rules.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from readmodel_pipelines.errors import FAULTS, raised, words
from readmodel_pipelines.events.ids import is_aggregate_id
from readmodel_pipelines.events.values import BadField, Event, whole


class Reason(StrEnum):
    """Why a stream is malformed."""

    BAD_AGGREGATE_ID = "bad_aggregate_id"
    MISSING_VERSION = "missing_version"
    BAD_VERSION = "bad_version"
    REPEATED_VERSION = "repeated_version"
    VERSION_GAP = "version_gap"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    NO_CREATED_EVENT = "no_created_event"
    BAD_DATA = "bad_data"
    BAD_FIELD = "bad_field"
    DOCUMENT_TOO_LARGE = "document_too_large"
    KEY_CONFLICT = "key_conflict"
    PROJECTION_FAILED = "projection_failed"


@dataclass(frozen=True, slots=True)
class Malformed:
    """A malformed stream: the reason as code and text, and the first offending event."""

    reason: Reason
    detail: str
    version: Any = None
    event_id: Any = None


class State(Protocol):
    """The state of a fold."""

    created: bool
    version: int


S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class EventType(Generic[S]):
    """How a fold applies the events of one type: `apply` changes the state, and reads these `fields` of `data`.

    MongoDB returns only these fields.
    """

    apply: Callable[[S, Event], None]
    fields: tuple[str, ...] = ()


def sets(attribute: str, read: Callable[[Event, str], Any], field: str) -> EventType[Any]:
    """An event type that sets an attribute of the state to a field's value, as a reader of `events.values` reads it."""
    return EventType(lambda state, event: setattr(state, attribute, read(event, field)), (field,))


@dataclass(frozen=True, slots=True, eq=False)
class Fold(Generic[S]):
    """How the streams of one aggregate type are folded.

    `stored_as` are the spellings of the aggregate type in MongoDB. `events` has every event type of the application;
    their functions change the state that `start` creates. Events whose type does not begin with `prefix` do not count
    in the version. `envelope` names the top-level fields that it reads besides id, type and version.
    """

    aggregate_type: str
    stored_as: tuple[str, ...]
    prefix: str
    start: Callable[[], S]
    events: Mapping[str, EventType[S]]
    envelope: tuple[str, ...] = ()


@dataclass(slots=True)
class Stream(Generic[S]):
    """One aggregate's stream, folded to a state or found malformed."""

    aggregate_id: Any
    result: S | Malformed


class _Offence(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def fold_streams(
    events: Iterable[Event],
    fold: Fold[S],
    allowed: Collection[str] = (),
    taken: Callable[[Event, S], object] | None = None,
) -> Iterator[Stream[S]]:
    """Fold events ordered by (aggregate_id, version) into one `Stream` per aggregate.

    `allowed` names reasons that are tolerated: `unknown_event_type` skips such events, `version_gap` skips missing
    versions. Events whose id is no text may lie between those of another stream; they are reported at the first of
    them. `taken` is called with each event before the first offending one, and with the state after it, which changes
    later.
    """
    current: str | None = None
    state: Any = None
    odd: Any = None
    last = 0
    offence: Malformed | None = None
    first: Event = {}
    apply = {event_type: item.apply for event_type, item in fold.events.items()}
    for event in events:
        aggregate_id = event["aggregate_id"]
        if aggregate_id != current:
            if type(aggregate_id) is not str:
                if aggregate_id != odd:
                    odd = aggregate_id
                    yield Stream(odd, _bad_id(event))
                continue
            if current is not None:
                yield Stream(current, offence or finished(state, first))
            current, first, last = aggregate_id, event, 0
            offence = check_id(event)
            try:
                state = fold.start()
            except FAULTS as error:
                offence = offence or offence_of(event, error)
        if offence is not None:
            continue
        try:
            version = event.get("version")
            # The usual case needs two comparisons; `type`, because True is also an int.
            if type(version) is not int or version != last + 1:
                version = _checked_version(event, last, allowed)
            last = version
            if type(event.get("data")) is not dict:
                raise _Offence(Reason.BAD_DATA, "data is not a document")
            if type(event.get("aggregate_type", "")) is not str:
                raise _Offence(Reason.BAD_FIELD, f"aggregate_type is not a string: {event['aggregate_type']!r}"[:120])
            try:
                handler = apply[event["event_type"]]
            except (KeyError, TypeError):
                if _skipped_type(event, allowed).startswith(fold.prefix):
                    state.version = version
            else:
                handler(state, event)
                state.version = version
        except _Offence as error:
            offence = _malformed(event, error.reason, error.detail)
        except FAULTS as error:
            # An error of one projection on one stream affects no other.
            offence = offence_of(event, error)
        else:
            if taken is not None:
                taken(event, state)
    if current is not None:
        yield Stream(current, offence or finished(state, first))


def check_id(event: Event) -> Malformed | None:
    """The offence of an event whose `aggregate_id` is no UUID in lower case with hyphens, or None."""
    return None if is_aggregate_id(event.get("aggregate_id")) else _bad_id(event)


def _bad_id(event: Event) -> Malformed:
    return _malformed(event, Reason.BAD_AGGREGATE_ID, "aggregate_id is not a UUID in lower case with hyphens")


def offence_of(event: Event, error: BaseException) -> Malformed:
    """The offence of an event whose application raised this error."""
    if isinstance(error, BadField):
        return _malformed(event, Reason.BAD_FIELD, words(error))
    return _malformed(event, Reason.PROJECTION_FAILED, raised(error))


def finished(state: S, first: Event) -> S | Malformed:
    """The state of a complete stream, if it was created at all; `first` is its first event."""
    try:
        if state.created:
            return state
    except FAULTS as error:
        return offence_of(first, error)
    return _malformed(first, Reason.NO_CREATED_EVENT, "the stream has no created event")


def _checked_version(event: Event, last: int, allowed: Collection[str]) -> int:
    value = event.get("version")
    if value is None:
        raise _Offence(Reason.MISSING_VERSION, "the event has no version")
    try:
        version = whole(value, "version")
    except BadField as error:
        raise _Offence(Reason.BAD_VERSION, str(error)) from None
    if version < 1:
        raise _Offence(Reason.BAD_VERSION, f"versions begin at 1, this one is {version}")
    if version <= last:
        raise _Offence(Reason.REPEATED_VERSION, f"version {version} occurs twice")
    if version != last + 1 and Reason.VERSION_GAP not in allowed:
        raise _Offence(Reason.VERSION_GAP, f"version {version} follows {last}" if last else f"begins at {version}")
    return version


def _skipped_type(event: Event, allowed: Collection[str]) -> str:
    event_type = event.get("event_type")
    # `type`, because BSON code is a subclass of str.
    if type(event_type) is str and Reason.UNKNOWN_EVENT_TYPE in allowed:
        return event_type
    raise _Offence(Reason.UNKNOWN_EVENT_TYPE, f"event type {event_type!r} is not in the catalogue")


def _malformed(event: Event, reason: Reason, detail: str) -> Malformed:
    return Malformed(reason, detail, event.get("version"), event.get("_id"))
