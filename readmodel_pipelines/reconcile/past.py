"""The past of one aggregate: the states of its stream, compared with the stored document.

It is called with each step of a walk. Of the document at that step it keeps only whether it equalled the stored one,
and the last change of each field. So memory does not grow with the stream, except for the last events of each type.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.compare import ABSENT, Absent
from readmodel_pipelines.reconcile.loosely import fits, loosely_same
from readmodel_pipelines.reconcile.replay import document_of

LAST_OF_A_TYPE = 32
_MOST_SINCE = 256


@dataclass(slots=True)
class Match:
    """Where the past equalled the stored document: last at `version`, the event at `number`, in `runs` separate
    periods.

    `next` is the event that changed it. Events without an effect belong to the same period as those before.
    """

    version: int | None = None
    number: int = 0
    versions: int = 0
    runs: int = 0
    next: Event | None = None

    def note(self, version: int, number: int, event: Event | None, *, matches: bool) -> None:
        """Record a step."""
        if matches:
            self.runs += self.version is None or self.next is not None
            self.versions += 1
            self.version, self.number, self.next = version, number, None
        elif self.version is not None and self.next is None:
            self.next = event


_KINDS = (bool, str, int, float, list, dict)


def _kind(value: Any) -> type:
    """The kind of a value, with all numbers as one; `object` for any other."""
    found = next((kind for kind in _KINDS if isinstance(value, kind)), object)
    return int if found is float else found


@dataclass(slots=True)
class FieldPast:
    """A field that differs now; `since` are the events that changed it since it had its stored value.

    `reached`: it ever had that value. `always` and `ever`: whether every state of the stream had the field, or any.
    `types` are the types of events that changed it, `kinds` those of its values. `is_version`: it always equalled the
    version of the event. Without `known` there is no document.
    """

    stored: Any
    value: Any = None
    known: bool = False
    since: list[Event] = field(default_factory=list)
    reached: bool = False
    always: bool = True
    ever: bool = False
    types: set[str] = field(default_factory=set)
    is_version: bool = True
    kinds: set[type] = field(default_factory=set)

    @property
    def is_impossible(self) -> bool:
        """Whether no omission can yield the stored value, because the projection never makes such a value.

        A field that always equals the version of the last applied event has no other value. Nor can a field have a type
        that it never had.
        """
        if self.reached or self.stored is ABSENT or self.stored is None or not self.kinds:
            return False
        kind = _kind(self.stored)
        return self.is_version or (kind is not object and kind not in self.kinds)

    def note(self, value: Any, event: Event) -> None:
        """Record its value after an event."""
        before, self.value = self.value, value
        if self.is_version and (value is True or value != event["version"]):
            self.is_version = False
        if self.known:
            if value is before or (type(value) is type(before) and value == before):
                return
            self.types.add(event["event_type"])
        self.known = True
        self.kinds.add(_kind(value))
        if loosely_same(value, self.stored):
            self.reached = True
            self.since.clear()
        elif len(self.since) < _MOST_SINCE:
            self.since.append(event)


class Past:
    """The past of a stream, as far as it matters to `stored`, whose `fields` differ now.

    `but_for` are those fields that only one side has; `rest` compares without them. With `elements` the elements of
    lists are compared one by one: each occurs as often as in the stored list, or not.
    """

    def __init__(
        self, projection: Projection, aggregate_id: str, stored: Document | None, fields: Iterable[str] = ()
    ) -> None:
        self._projection = projection
        self._aggregate_id = aggregate_id
        self._stored = stored
        there = stored or {}
        self.fields = {name: FieldPast(there.get(name, ABSENT)) for name in fields}
        self._items = list(self.fields.items())
        self.but_for: frozenset[str] = frozenset()
        self.whole = Match()
        self.rest = Match()
        self.number = 0
        self.version = 0
        self.wanted = False
        self.created_by: Event | None = None
        self.last: Document | Absent | None = None
        self.taken_away: set[str] = set()
        self.recent: dict[str, deque[Event]] = defaultdict(partial(deque, maxlen=LAST_OF_A_TYPE))
        if stored is None:
            self.whole.note(0, 0, None, matches=True)

    def __call__(self, event: Event, state: Any) -> None:
        """Record a step; an event that does not count in the version changes nothing."""
        version = state.version
        if version == self.version:
            return
        self.version = version
        self.number += 1
        self.recent[event["event_type"]].append(event)
        if self.created_by is None and state.created:
            self.created_by = event
        made = document_of(self._projection, self._aggregate_id, state)
        if isinstance(made, dict):
            self.wanted = True
        elif made is None and isinstance(self.last, dict):
            self.taken_away.add(event["event_type"])
        self.last = made
        self._note(made, event)

    def _note(self, made: Document | Absent | None, event: Event) -> None:
        stored = self._stored
        if stored is None or not isinstance(made, dict):
            self.whole.note(self.version, self.number, event, matches=made is None and stored is None)
            self.rest.note(self.version, self.number, event, matches=False)
            for item in self.fields.values():
                item.known = False
            return
        alike = rest_alike = True
        for name, item in self._items:
            value = made.get(name, ABSENT)
            if value is ABSENT:
                item.always = False
            else:
                item.ever = True
            # Most fields are the same object as before.
            if value is not item.value or not item.known:
                item.note(value, event)
            if item.since or not item.reached:
                alike = False
                rest_alike = rest_alike and name in self.but_for
        if rest_alike and (alike or self.but_for):
            rest_alike = fits(made, stored, frozenset(self.fields))
            alike = alike and rest_alike
        # Most states are unlike the stored document, as all before them.
        if alike or self.whole.version is not None:
            self.whole.note(self.version, self.number, event, matches=alike)
        if self.but_for:
            self.rest.note(self.version, self.number, event, matches=rest_alike)

    def of_types(self, types: Iterable[str]) -> list[Event]:
        """The last events of these types, the last one first."""
        found = [event for name in types for event in self.recent.get(name, ())]
        return sorted(found, key=lambda event: -int(event["version"]))


class ElementsPast:
    """Like `Past`, for lists: for each element with a wrong count, the events that changed its count."""

    def __init__(self, projection: Projection, aggregate_id: str, lists: dict[str, tuple[Any, Any]]) -> None:
        self._projection = projection
        self._aggregate_id = aggregate_id
        self._elements: dict[str, dict[str, FieldPast]] = {}
        self._last: dict[str, Any] = {}
        for name, (wanted, stored) in lists.items():
            there, ought = Counter(map(_key, stored)), Counter(map(_key, wanted))
            odd = {key for key in there | ought if there[key] != ought[key]}
            # It does not occur in the beginning, which may equal the stored count.
            self._elements[name] = {key: FieldPast(there[key], 0, known=True, reached=not there[key]) for key in odd}

    def __call__(self, event: Event, state: Any) -> None:
        """Record a step."""
        made = document_of(self._projection, self._aggregate_id, state)
        for name, elements in self._elements.items():
            value = made.get(name) if isinstance(made, dict) else None
            if value == self._last.get(name):
                continue
            self._last[name] = value
            counted = Counter(map(_key, value if isinstance(value, list) else ()))
            for key, item in elements.items():
                item.note(counted[key], event)

    def since(self, name: str) -> Sequence[Event]:
        """The events that changed elements of a list since they had their stored count, for those that ever had it."""
        return [event for item in self._elements[name].values() if item.reached for event in item.since]


def _key(element: Any) -> str:
    return element if type(element) is str else repr(element)
