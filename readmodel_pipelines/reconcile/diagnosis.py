"""Why one document is not what its events say: what its stream once folded to, or comes to without an event.

Pure: it is given the stream as often as it wants to go through it. What can be known, and how:

- A document that equals the fold at an earlier version is `behind`. Of several versions the last one is told.
- Otherwise, and whenever that would be fewer lost events, events are left out: those that changed a field since it was
  as it is stored, and each single one whose type was seen to change the field that fewest types change. What is told
  was tried: the fold without it *is* the stored document.
- Whether another schema version made a document is known of a projection that says what it made `earlier`. Of any
  other, and of older versions than that one, nobody can know. What can be known is that a field is there on one side
  alone although no state of the stream explains that: every document that the stream went through has it and the stored
  one does not, so that whoever wrote that did not know it; or no document that the projection is seen to make has it.
  When all else is right this is `older_schema`. A field that the stream did not always have may as well be a lost
  update, and is taken for one.
- A field that never was as it is stored, with whatever left out, was written by something else.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from readmodel_pipelines.events.stream import Malformed, Reason
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.alike import Alike
from readmodel_pipelines.reconcile.cause import Cause, CauseKind, lost_event
from readmodel_pipelines.reconcile.compare import ABSENT, Absent, differing_fields
from readmodel_pipelines.reconcile.loosely import fits, loosely_same
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.past import ElementsPast, FieldPast, Past
from readmodel_pipelines.reconcile.replay import document_of, walk, without

_TRIED = 24
"""So many single events are left out in turn, the last ones."""
_TRIED_OF_LONG = 8
_LONG = 1_000
_SHORT = 32
"""Of so short a stream every single event is tried before something else is accused."""
_ROUNDS = 5
_MOST_SEVERAL = 64
"""So many events that are left out together are looked at one by one."""
_MOST_SWAPS = 16
_SHOWN = 10

NOBODY_KNOWS: Callable[[str], bool] = lambda _: False  # noqa: E731 - a default, and no more to say of it


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that can be gone through again and again; `is_made` says whether the projection makes a field at all."""

    projection: Projection
    aggregate_id: str
    events: Callable[[], Iterable[Event]]
    allowed: Collection[str] = ()
    is_made: Callable[[str], bool] = NOBODY_KNOWS


def at_once(verdict: Verdict) -> Cause | None:
    """The cause of what was found, where nobody has to look at the stream for it; else None."""
    if verdict.outcome is Outcome.ORPHAN or (verdict.outcome is Outcome.UNEXPECTED and verdict.reason is not None):
        # No event makes a document without a stream, or a second one.
        return Cause(CauseKind.FOREIGN_WRITE)
    if verdict.outcome is Outcome.DIFFERENT and verdict.expected is not None and verdict.actual is not None:
        pairs = differing_fields(verdict.expected, verdict.actual)
        if pairs and all(loosely_same(*pair) for pair in pairs.values()):
            return Cause(CauseKind.TYPE_ONLY, fields=tuple(pairs))
    return None


def cause_of(verdict: Verdict, stream: Stream) -> Cause | None:
    """The cause of a document that is missing, unexpected or different; None if it is right by now."""
    if verdict.outcome is Outcome.MISSING:
        return _of_missing(stream)
    if verdict.actual is None:
        return None
    if verdict.outcome is Outcome.UNEXPECTED:
        return _of_unexpected(stream, verdict.actual)
    if verdict.outcome is Outcome.DIFFERENT and verdict.expected is not None:
        cause = _Different(stream, verdict.expected, verdict.actual).cause()
        if cause is not None and cause.kind is CauseKind.FOREIGN_WRITE:
            return (
                _of_earlier(stream, verdict.actual, tuple(differing_fields(verdict.expected, verdict.actual))) or cause
            )
        return cause
    return None


def _of_earlier(stream: Stream, actual: Document, fields: tuple[str, ...]) -> Cause | None:
    """The cause of a document that the projection made as it was before, as far as it says what that was."""
    if stream.projection.earlier is None:
        return None
    earlier = replace(stream, projection=replace(stream.projection, document=stream.projection.earlier, earlier=None))
    past = Past(earlier.projection, stream.aggregate_id, actual)
    if not _walked(earlier, past) or not isinstance(past.last, dict):
        return None
    if fits(past.last, actual):
        return Cause(CauseKind.OLDER_SCHEMA, fields=fields)
    cause = _Different(earlier, past.last, actual).cause()
    return None if cause is None or cause.kind is CauseKind.FOREIGN_WRITE else cause


def _walked(stream: Stream, past: Callable[[Event, Any], None], left_out: Collection[int] = ()) -> bool:
    """Go through the stream, perhaps without some events; whether it can be trusted."""
    if not left_out:
        return not isinstance(walk(stream.events(), stream.projection.fold, past, stream.allowed), Malformed)
    taken: Iterator[Event] = (event for event in stream.events() if event["version"] not in left_out)
    allowed = {*stream.allowed, Reason.VERSION_GAP}
    return not isinstance(walk(taken, stream.projection.fold, past, allowed), Malformed)


def _of_missing(stream: Stream) -> Cause | None:
    past = Past(stream.projection, stream.aggregate_id, None)
    if not _walked(stream, past) or past.whole.next is None:
        return None
    match, making, creating = past.whole, past.whole.next, past.created_by
    told = Cause(CauseKind.NEVER_CREATED, match.version, (lost_event(making),), past.number - match.number)
    if creating is not None and creating["version"] != making["version"]:
        # Without the event that creates the aggregate none of the later ones has anything to change.
        return replace(told, lost=(), one_of=(lost_event(creating), *told.lost), ambiguous=True)
    return replace(told, ambiguous=match.runs > 1)


def _of_unexpected(stream: Stream, actual: Document) -> Cause | None:
    past = Past(stream.projection, stream.aggregate_id, actual)
    if not _walked(stream, past) or isinstance(past.last, dict):
        return None
    match = past.whole
    # Of a stream that never wanted a document any event may be the one that kept it away.
    tried = past.of_types(past.taken_away or past.recent)[: _most(past)]
    single = _fitting_singly(stream, actual, tried)
    if match.next is None and not single and past.number <= _SHORT:
        # One that took nothing away, as there was no document at that moment, may have kept it away since.
        tried = past.of_types(past.recent)
        single = _fitting_singly(stream, actual, tried)
    if match.next is not None or single:
        return _told(CauseKind.NOT_DELETED, past, [match.next] if match.next is not None else [], single)
    states = without(stream.events(), stream.projection.fold, [{int(event["version"])} for event in tried])
    made = [
        document_of(stream.projection, stream.aggregate_id, state) if state is not None else None for state in states
    ]
    keeping = [event for event, document in zip(tried, made, strict=True) if isinstance(document, dict)]
    if not past.wanted and not keeping:
        return Cause(CauseKind.FOREIGN_WRITE)
    return Cause(CauseKind.NOT_DELETED, ambiguous=True, one_of=tuple(map(lost_event, keeping[::-1][:_SHOWN])))


def _told(kind: CauseKind, past: Past, first: Sequence[Event], single: Sequence[Event]) -> Cause:
    """Of a document that is `first` event behind, or lacks a `single` one: what all of these agree on."""
    match = past.whole
    missed = past.number - match.number
    if not first:
        return _of_single(kind, single)
    start = int(first[0]["version"])
    # A single one that is the last is the same explanation.
    others = [event for event in single if missed > 1 or event["version"] != first[0]["version"]]
    if not others:
        return Cause(kind, match.version, (lost_event(first[0]),), missed, ambiguous=match.versions > 1)
    if missed > 1:
        told = CauseKind.LOST_UPDATE if kind is CauseKind.BEHIND else kind
        if len(others) == 1 and int(others[0]["version"]) >= start:
            return Cause(told, lost=(lost_event(others[0]),), missed=1, ambiguous=True)
        return replace(_of_single(told, [*first, *others]), ambiguous=True, missed=1)
    return replace(_of_single(kind, [*first, *others]), at_version=match.version)


def _of_single(kind: CauseKind, single: Sequence[Event]) -> Cause:
    """One of these was lost."""
    events = sorted({int(event["version"]): event for event in single}.items())
    told = tuple(lost_event(event) for _, event in events[:_SHOWN])
    if len(events) == 1:
        return Cause(kind, lost=told, missed=1)
    return Cause(kind, missed=1, ambiguous=True, one_of=told)


def _fitting(
    stream: Stream, actual: Document, left_out: Sequence[Collection[int]], but_for: frozenset[str]
) -> list[bool]:
    """For each set of versions, whether the stream without them comes to the stored document."""
    if not left_out:
        return []
    fitting = []
    for state in without(stream.events(), stream.projection.fold, left_out):
        made = None if state is None else document_of(stream.projection, stream.aggregate_id, state)
        fitting.append(isinstance(made, dict) and fits(made, actual, but_for))
    return fitting


def _fitting_singly(
    stream: Stream, actual: Document, tried: Sequence[Event], but_for: frozenset[str] = frozenset()
) -> list[Event]:
    """Those of the events without which alone the stream comes to the stored document."""
    fitting = _fitting(stream, actual, [{int(event["version"])} for event in tried], but_for)
    return [event for event, fit in zip(tried, fitting, strict=True) if fit]


def _most(past: Past) -> int:
    return _TRIED if past.number <= _LONG else _TRIED_OF_LONG


class _Different:
    """A document that is there and ought to be another."""

    def __init__(self, stream: Stream, expected: Document, actual: Document) -> None:
        self._stream = stream
        self._expected = expected
        self._actual = actual
        self._pairs = differing_fields(expected, actual)
        self._past = self._new_past()
        self._past.but_for = frozenset(name for name, pair in self._pairs.items() if ABSENT in pair)
        self._unknown: frozenset[str] = frozenset()
        self._fields: dict[str, FieldPast] = {}
        self._alike = Alike(stream.projection.fold, self._past, self._fields)

    def _new_past(self) -> Past:
        return Past(self._stream.projection, self._stream.aggregate_id, self._actual, self._pairs)

    def cause(self) -> Cause | None:
        past = self._past
        if not _walked(self._stream, past) or past.whole.version == past.version:
            return None
        if past.whole.next is None:
            self._unknown = frozenset(name for name in past.but_for if self._is_unexplained(name))
        self._fields |= {name: item for name, item in past.fields.items() if name not in self._unknown}
        if not self._fields:
            return Cause(CauseKind.OLDER_SCHEMA, fields=tuple(sorted(self._unknown)))
        if self._unknown and self._unknown == past.but_for:
            # What else differs is looked at as if these fields were not there.
            past.whole = past.rest
        if past.whole.next is None and any(item.is_impossible for item in self._fields.values()):
            return Cause(CauseKind.FOREIGN_WRITE, fields=self._strange())
        single = self._single()
        match = past.whole
        if match.next is not None and match.version != past.version:
            return self._of_behind(match.next, single)
        if single or (single := self._any_single()):
            return _of_single(CauseKind.LOST_UPDATE, single)
        several = self._together() or self._refined()
        if 0 < len(several) <= _MOST_SEVERAL:
            return self._of_several(several)
        return Cause(CauseKind.FOREIGN_WRITE, fields=self._strange())

    def _is_unexplained(self, name: str) -> bool:
        item = self._past.fields[name]
        if item.stored is ABSENT:
            return item.always
        return not item.ever and not self._stream.is_made(name)

    def _strange(self) -> tuple[str, ...]:
        never = [name for name, item in self._fields.items() if not item.reached]
        return tuple(sorted((*(never or self._fields), *self._unknown)))

    def _fitting(self, left_out: Sequence[Collection[int]]) -> list[bool]:
        return _fitting(self._stream, self._actual, left_out, self._unknown)

    def _fitting_singly(self, tried: Sequence[Event]) -> list[Event]:
        return _fitting_singly(self._stream, self._actual, tried, self._unknown)

    def _single(self) -> list[Event]:
        """Single events without which all is explained: of the types that were seen to change every field."""
        types = set.intersection(*(item.types for item in self._fields.values()))
        return self._fitting_singly(self._past.of_types(types)[: _most(self._past)])

    def _since(self) -> list[Event]:
        """The events that changed a field since it was as it is stored; none if one never was."""
        if not all(item.reached for item in self._fields.values()):
            return []
        since = {int(event["version"]): event for item in self._fields.values() for event in item.since}
        return [event for _, event in sorted(since.items())]

    def _together(self) -> list[Event]:
        """Those of `_since`, if without them all is explained."""
        since = self._since()
        return since if self._fitting([{int(event["version"]) for event in since}] if since else []) == [True] else []

    def _of_behind(self, following: Event, single: Sequence[Event]) -> Cause:
        told = _told(CauseKind.BEHIND, self._past, [following], single)
        if single or self._past.number - self._past.whole.number == 1:
            return told
        since = self._since()
        if since and (since[0]["version"] != following["version"] or self._alike.about_the_same(following)):
            # The next event may have been applied, and undone since by another one that was.
            together = self._together() or self._refined()
            lost, sure = self._narrowed(together) if 0 < len(together) <= _MOST_SEVERAL else (since, since)
            sure = sure[:1]
            if sure and (others := self._instead(sure[0], lost) or self._alike.about_the_same(sure[0])):
                one_of = tuple(map(lost_event, [sure[0], *others[:_SHOWN]]))
                return replace(told, lost=(), one_of=one_of, ambiguous=True)
            if not sure or sure[0]["version"] != following["version"]:
                known = tuple(map(lost_event, sure if together else ()))
                one_of = () if known else tuple(map(lost_event, [following, *since[:1]]))
                return replace(told, lost=known, one_of=one_of, ambiguous=True)
        return told

    def _instead(self, event: Event, lost: Sequence[Event]) -> list[Event]:
        """Other events, just like this one, of which one may be lost in its place."""
        versions = frozenset(int(item["version"]) for item in lost)
        others = self._alike.just_like(event, versions)[:_MOST_SWAPS]
        fitting = self._fitting([versions - {int(event["version"])} | {int(other["version"])} for other in others])
        return [other for other, fit in zip(others, fitting, strict=True) if fit]

    def _any_single(self) -> list[Event]:
        """Those single events of a short stream without which all is explained, whatever their types."""
        if self._past.number > _SHORT or not all(map(self._is_plausible, self._fields.values())):
            return []
        return self._fitting_singly(self._past.of_types(self._past.recent))

    def _is_plausible(self, item: FieldPast) -> bool:
        """Whether a fold may have made this value: a text comes from some event, or is none."""
        if item.reached or not item.stored or isinstance(item.stored, list | dict | Absent):
            return type(item.stored) is not int or item.reached
        if type(item.stored) is not str:
            return False
        wanted = item.stored.casefold()
        data = (event["data"].values() for events in self._past.recent.values() for event in events)
        return any(type(value) is str and value.strip().casefold() == wanted for values in data for value in values)

    def _refined(self) -> list[Event]:
        """Events without which all is explained: what stands against it is left out, again and again."""
        left: dict[int, Event] = {}
        pairs = dict(self._pairs)
        if not any(item.reached for item in self._past.fields.values()) and not self._lists(pairs):
            # Nothing is to be left out, as the walk that is over has told.
            return []
        for _ in range(_ROUNDS):
            past = Past(self._stream.projection, self._stream.aggregate_id, self._actual, pairs)
            lists = self._lists(pairs)
            elements = ElementsPast(self._stream.projection, self._stream.aggregate_id, lists)

            def both(event: Event, state: Any, past: Past = past, elements: ElementsPast = elements) -> None:
                past(event, state)
                elements(event, state)

            if not _walked(self._stream, both, left) or not isinstance(past.last, dict):
                return []
            if left and fits(past.last, self._actual, self._unknown):
                return [event for _, event in sorted(left.items())]
            more: dict[int, Event] = {}
            for name, item in past.fields.items():
                # What never was as it is stored may come to be it once something else is left out.
                since = (
                    elements.since(name) if name in lists and not item.reached else item.since if item.reached else ()
                )
                more |= {int(event["version"]): event for event in since if name not in self._unknown}
            # Leaving something out may bring to light what it had covered.
            strange = {
                name: pair for name, pair in differing_fields(past.last, self._actual).items() if name not in pairs
            }
            if not strange and not more.keys() - left.keys():
                return self._swapped(left)
            pairs |= strange
            left |= more
        return []

    @staticmethod
    def _lists(pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
        return {name: pair for name, pair in pairs.items() if all(isinstance(value, list) for value in pair)}

    def _swapped(self, left: Mapping[int, Event]) -> list[Event]:
        """Events without one of which, and with another one just like it, all is explained."""
        swaps = [(version, other) for version, event in left.items() for other in self._alike.just_like(event, left)][
            :_MOST_SWAPS
        ]
        fitting = self._fitting([left.keys() - {version} | {int(other["version"])} for version, other in swaps])
        found = [swap for swap, fit in zip(swaps, fitting, strict=True) if fit]
        if not found:
            return []
        version, other = found[0]
        taken = {**{key: event for key, event in left.items() if key != version}, int(other["version"]): other}
        return [event for _, event in sorted(taken.items())]

    def _of_several(self, several: Sequence[Event]) -> Cause:
        """These were lost, but for those in whose place another one, just like it, may have been."""
        lost, sure = self._narrowed(several)
        versions = frozenset(int(event["version"]) for event in lost)
        alike = [(int(event["version"]), other) for event in sure for other in self._alike.just_like(event, versions)]
        alike = alike[:_MOST_SWAPS]
        fitting = self._fitting([versions - {version} | {int(other["version"])} for version, other in alike])
        doubtful = {version for (version, _), fit in zip(alike, fitting, strict=True) if fit}
        doubtful.update(int(event["version"]) for event in sure if self._alike.about_the_same(event))
        told = [lost_event(event) for event in sure if int(event["version"]) not in doubtful]
        sure_ones, doubt = tuple(told[:_SHOWN]), len(told) < len(lost)
        # Where nothing is sure these are shown all the same: they, or others just like them.
        one_of = () if sure_ones else tuple(map(lost_event, lost[:_SHOWN]))
        return Cause(CauseKind.LOST_UPDATE, lost=sure_ones, missed=len(lost), ambiguous=doubt, one_of=one_of)

    def _narrowed(self, several: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """As few of these events as explain all, and those of them that do not explain it when one is taken back."""
        by_version = {int(event["version"]): event for event in several}
        left = frozenset(by_version)
        fitting = self._fitting([left - {version} for version in sorted(left)])
        spare = [version for version, fit in zip(sorted(left), fitting, strict=True) if fit]
        # The last ones first: what is gone already cannot be changed by them any more.
        for version in reversed(spare):
            if self._fitting([left - {version}]) == [True]:
                left -= {version}
        # One that is back may let another one be: it took out again what that had put in.
        while back := [
            version
            for version, fit in zip(sorted(left), self._fitting([left - {it} for it in sorted(left)]), strict=True)
            if fit
        ]:
            left -= {back[-1]}
        kept = [by_version[version] for version in sorted(left)]
        return kept, [event for event in kept if int(event["version"]) not in spare]
