"""Steps through a stream, and yields the changes of each event in the documents made from it.

Pure, with flat memory: it keeps only the current documents, and for each field the event that last changed it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any

from readmodel_pipelines.events.stream import Malformed, Stream, fold_streams
from readmodel_pipelines.events.together import part_of, together
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, same_document, same_value
from readmodel_pipelines.reconcile.replay import document_of

Changes = Mapping[str, tuple[Any, Any]]
"""Fields with (before, after); `ABSENT` for a missing field."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event and its changes by read model; read models without a change are left out.

    `removed` names the read models whose whole document the event removed.
    """

    version: int
    event: Event
    changed: Mapping[str, Changes]
    removed: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class SetBy:
    """The event that last changed a field."""

    version: int
    event_type: str


@dataclass(slots=True)
class Position:
    """The state of one read model at a step.

    `document` is the document of the events so far, and `blame` the event that last changed each field. `at_version` is
    the last version whose document equals the stored one: 0 before the first event, None if there is no such version.
    """

    document: Document | None = None
    blame: dict[str, SetBy] = field(default_factory=dict)
    at_version: int | None = None


class Replay:
    """Steps through one stream for all read models made from it.

    `stored` are their documents by read model, as `_id` and owned fields. `shows` returns whether an event is still
    shown. After the first event that is not, `on_step` is no longer called, and `document` and `blame` stay unchanged.
    The search for the stored documents continues to the end.
    """

    def __init__(
        self,
        projections: Sequence[Projection],
        aggregate_id: str,
        stored: Mapping[str, Document | None],
        on_step: Callable[[Step], object],
        shows: Callable[[int, Event], bool] = lambda _version, _event: True,
    ) -> None:
        folds = list(dict.fromkeys(item.fold for item in projections))
        self.fold = together(folds)
        if "occurred_at" not in self.fold.envelope:
            self.fold = replace(self.fold, envelope=(*self.fold.envelope, "occurred_at"))
        self.positions = {item.read_model: Position() for item in projections}
        self.version = self.last_version = 0
        """The version of the last event shown, and of the last one read."""
        self.event: Event | None = None
        self.shown = 0
        self.past = False
        """Whether some events were not shown."""
        self._places = [(item, folds.index(item.fold)) for item in projections]
        self._several = len(folds) > 1
        self._aggregate_id = aggregate_id
        self._stored = stored
        self._on_step = on_step
        self._shows = shows
        # Compared with the stored document; equals that of the position while everything is shown.
        self._newest: dict[str, Document | None] = dict.fromkeys(self.positions)
        for name, position in self.positions.items():
            position.at_version = 0 if stored.get(name) is None else None

    def run(self, events: Iterable[Event], allowed: Collection[str] = ()) -> Stream[Any] | None:
        """Step through the events of one stream; returns the fold's result, or None without events."""
        streams = list(fold_streams(events, self.fold, allowed, self._taken))
        return streams[0] if streams else None

    def result_of(self, stream: Stream[Any], projection: Projection) -> Stream[Any]:
        """The document of the whole stream for one of the projections."""
        place = next(place for item, place in self._places if item is projection)
        return part_of(stream, place) if self._several else stream

    def _taken(self, event: Event, state: Any) -> None:
        version = self.last_version = int(event["version"])
        self.past = self.past or not self._shows(version, event)
        changed: dict[str, Changes] = {}
        removed: list[str] = []
        for projection, place in self._places:
            name = projection.read_model
            result = part_of(Stream(self._aggregate_id, state), place).result if self._several else state
            made = ABSENT if isinstance(result, Malformed) else document_of(projection, self._aggregate_id, result)
            if not isinstance(made, dict | None):
                continue
            # A document may share lists with the state, which changes later.
            made = _kept(made)
            position, before = self.positions[name], self._newest[name]
            self._newest[name] = made
            if _is_stored(made, self._stored.get(name)):
                position.at_version = version
            if not self.past:
                position.document = made
                if changes := _changes(before, made):
                    changed[name] = changes
                    removed += [name] if made is None else []
                    position.blame |= dict.fromkeys(changes, SetBy(version, str(event["event_type"])))
        if not self.past:
            self.version, self.event = version, event
            self.shown += 1
            self._on_step(Step(version, event, changed, removed))


def _is_stored(made: Document | None, stored: Document | None) -> bool:
    if made is None or stored is None:
        return made is stored
    return same_document(made, stored)


def _changes(before: Document | None, after: Document | None) -> Changes:
    one, other = before or {}, after or {}
    pairs = ((name, one.get(name, ABSENT), other.get(name, ABSENT)) for name in dict.fromkeys((*one, *other)))
    return {name: (was, now) for name, was, now in pairs if not _unchanged(was, now)}


def _unchanged(was: Any, now: Any) -> bool:
    # Most lists hold the same objects as before, which needs no comparison of each value.
    if type(was) is list and type(now) is list and len(was) == len(now) and all(map(is_, was, now)):
        return True
    return same_value(was, now)


def _kept(value: Any) -> Any:
    if type(value) is dict:
        return {name: _kept(item) for name, item in value.items()}
    if type(value) is list:
        return [_kept(item) if type(item) in (dict, list) else item for item in value]
    return value
