"""A cause: why a document is not what its events say, as far as its stream can tell. A closed set of kinds.

An event is named as lost only where every explanation that was found agrees that it was not applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from readmodel_pipelines.events.values import BadField, Event, occurred_at_ms

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CauseKind(StrEnum):
    """What kind of cause it is."""

    BEHIND = "behind"
    """The document is what its stream folded to at an earlier version: everything since was lost."""
    LOST_UPDATE = "lost_update"
    """It is what the stream folds to without one event, or some, and later ones were applied."""
    OLDER_SCHEMA = "older_schema"
    """It is right but for fields that another schema version of the projection makes."""
    FOREIGN_WRITE = "foreign_write"
    """Nothing that the stream ever folded to explains it: something else wrote it."""
    NEVER_CREATED = "never_created"
    """There is no document: the event that ought to have made it was lost."""
    NOT_DELETED = "not_deleted"
    """There is a document of a stream that wanted one and does not any more."""
    TYPE_ONLY = "type_only"
    """Every value is right, and of another BSON type."""


LOST = (CauseKind.BEHIND, CauseKind.LOST_UPDATE)
"""Causes of a document that is there and lacks updates."""

MEANINGS: Mapping[CauseKind, str] = {
    CauseKind.BEHIND: "the document stopped at an earlier version",
    CauseKind.LOST_UPDATE: "the update of an event was lost, later ones were applied",
    CauseKind.OLDER_SCHEMA: "right but for fields that another schema version makes",
    CauseKind.FOREIGN_WRITE: "something else wrote it: no state of the stream explains it",
    CauseKind.NEVER_CREATED: "the event that makes the document was never applied",
    CauseKind.NOT_DELETED: "the event that takes the document away was never applied",
    CauseKind.TYPE_ONLY: "the right values in another BSON type",
}


@dataclass(frozen=True, slots=True)
class LostEvent:
    """An event whose update did not reach the document; `occurred_at` is None where the event does not say when."""

    version: int
    event_type: str
    occurred_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"version": self.version, "event_type": self.event_type, "occurred_at": utc(self.occurred_at)}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why: `lost` are the events that were not applied, the first of them where everything since is missing.

    `missed` says how many. `at_version` is where the document stopped. With `ambiguous` another explanation fits, too:
    the one with fewer lost events is told. Where one of several events was lost and nothing tells which, `lost` is
    empty, and those that it may have been are `one_of`. `fields` make the cause, where it is one of fields.
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
        """The type of the first event that was lost, as far as it is known."""
        types = {event.event_type for event in self._first}
        return types.pop() if len(types) == 1 else None

    @property
    def since(self) -> datetime | None:
        """When the first event that was lost happened; of one of several the earliest."""
        return min((event.occurred_at for event in self._first if event.occurred_at), default=None)

    @property
    def _first(self) -> tuple[LostEvent, ...]:
        # A document that was never created: whichever was lost, it is missing since the last of them.
        return self.lost[:1] or (self.one_of[-1:] if self.kind is CauseKind.NEVER_CREATED else self.one_of)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; only what there is to say, but for `lost` and `missed`."""
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
    """What is told of an event."""
    return LostEvent(int(event["version"]), str(event["event_type"]), _moment(event))


def utc(moment: datetime | None) -> str | None:
    """A moment in JSON."""
    return None if moment is None else f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _moment(event: Event) -> datetime | None:
    if event.get("occurred_at") is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=occurred_at_ms(event))
    except (BadField, OverflowError):
        return None
