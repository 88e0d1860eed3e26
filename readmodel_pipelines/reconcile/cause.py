"""A cause: why a document differs from its events, as far as its stream shows it. A closed set of kinds.

An event is called lost only if all explanations that were found agree that it was not applied.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from readmodel_pipelines.events.values import BadField, Event, occurred_at_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CauseKind(StrEnum):
    """The kind of a cause."""

    BEHIND = "behind"
    """The document equals the fold of an earlier version: all later updates were lost."""
    LOST_UPDATE = "lost_update"
    """It equals the fold without one or some events, and later ones were applied."""
    OLDER_SCHEMA = "older_schema"
    """It is right except for fields that another schema version of the projection makes."""
    FOREIGN_WRITE = "foreign_write"
    """No state of the stream explains it: another program wrote it."""
    NEVER_CREATED = "never_created"
    """The document is missing: the update for the event that creates it was lost."""
    NOT_DELETED = "not_deleted"
    """The document exists, although its stream no longer wants one."""
    TYPE_ONLY = "type_only"
    """Every value is right, but has another BSON type."""


LOST = (CauseKind.BEHIND, CauseKind.LOST_UPDATE)
"""Causes of an existing document that lacks updates."""

MEANINGS: Mapping[CauseKind, str] = {
    CauseKind.BEHIND: "the document stopped at an earlier version",
    CauseKind.LOST_UPDATE: "the update of an event was lost, later ones were applied",
    CauseKind.OLDER_SCHEMA: "right except for fields of another schema version",
    CauseKind.FOREIGN_WRITE: "another program wrote it: no state of the stream explains it",
    CauseKind.NEVER_CREATED: "the event that creates the document was never applied",
    CauseKind.NOT_DELETED: "the event that removes the document was never applied",
    CauseKind.TYPE_ONLY: "the right values in another BSON type",
}


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event whose update did not reach the document; `occurred_at` is None if the event has no time."""

    version: int
    event_type: str
    occurred_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"version": self.version, "event_type": self.event_type, "occurred_at": utc(self.occurred_at)}


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause. `lost` are the events that were not applied, or only the first if all later ones are missing too.

    `missed` is their number. `at_version` is the version at which the document stopped. With `ambiguous` another
    explanation fits too, and the one with fewer lost events is given. If one of several events was lost and it is
    unknown which, `lost` is empty and `one_of` has the candidates. `fields` are the fields that show the cause, if it
    concerns fields.
    """

    kind: CauseKind
    at_version: int | None = None
    lost: tuple[LostEvent, ...] = ()
    missed: int = 0
    ambiguous: bool = False
    one_of: tuple[LostEvent, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def event_type(self) -> str | None:
        """The type of the first lost event, if known."""
        types = {event.event_type for event in self._first}
        return types.pop() if len(types) == 1 else None

    @property
    def since(self) -> datetime | None:
        """The time of the first lost event; of several candidates the earliest."""
        return min((event.occurred_at for event in self._first if event.occurred_at), default=None)

    @property
    def _first(self) -> tuple[LostEvent, ...]:
        # A document that was never created is missing since the last candidate, whichever was lost.
        return self.lost[:1] or (self.one_of[-1:] if self.kind is CauseKind.NEVER_CREATED else self.one_of)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types, without empty values except `lost` and `missed`."""
        shown: dict[str, Any] = {"kind": self.kind.value}
        if self.at_version is not None:
            shown["at_version"] = self.at_version
        shown |= {"lost": [event.as_json() for event in self.lost], "missed": self.missed}
        if self.ambiguous:
            shown["ambiguous"] = True
        if self.one_of:
            shown["one_of"] = [event.as_json() for event in self.one_of]
        if self.fields:
            shown["fields"] = list(self.fields)
        return shown


def lost_event(event: Event) -> LostEvent:
    """The reported values of an event."""
    return LostEvent(int(event["version"]), str(event["event_type"]), _moment(event))


def with_times(cause: Cause, events: Iterable[Event]) -> Cause:
    """The cause with the times of the events that it names, taken from the events of its stream."""
    named = {event.version: event for event in (*cause.lost, *cause.one_of)}
    for event in events:
        version = event.get("version")
        # Events that were appended meanwhile may be malformed.
        if isinstance(version, int | float) and version in named:
            named[int(version)] = lost_event(event)
    lost, one_of = (tuple(named[event.version] for event in each) for each in (cause.lost, cause.one_of))
    return replace(cause, lost=lost, one_of=one_of)


def utc(moment: datetime | None) -> str | None:
    """A time in JSON."""
    return None if moment is None else f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _moment(event: Event) -> datetime | None:
    if event.get("occurred_at") is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=occurred_at_ms(event))
    except (BadField, OverflowError):
        return None
