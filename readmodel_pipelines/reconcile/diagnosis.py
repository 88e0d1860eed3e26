"""Why one document differs from its events: by earlier states of its stream, and by the fold without some events.

Pure: it can walk the stream as often as needed. The causes, and how they are determined:

- A document that equals the fold of an earlier version is `behind`. Of several versions the last one is given.
- Otherwise, or if that means fewer lost events, events are left out of the fold. Candidates are the events that changed
  a field since it had its stored value, and each single event of the types that change the field with the fewest types.
  An explanation is given only if it was tried: the fold without these events *is* the stored document.
- Another schema version can be recognized exactly if the projection defines `earlier`. For other projections, and for
  older versions, only one sign is known: a field exists on one side only, and no state of the stream explains it.
  Either every state of the stream has it and the stored document lacks it, or no document that the projection makes has
  it. If everything else is right, this is `older_schema`. A field that the stream did not always have may be a lost
  update, and is taken for one.
- A field that never had its stored value, whatever events are left out, was written by another program.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from readmodel_pipelines.events.stream import Malformed, Reason
from readmodel_pipelines.events.values import Event
from readmodel_pipelines.projections.projection import Document, Projection
from readmodel_pipelines.reconcile.alike import Alike
from readmodel_pipelines.reconcile.cause import Cause, CauseKind, lost_event
from readmodel_pipelines.reconcile.compare import ABSENT, differing_fields
from readmodel_pipelines.reconcile.loosely import fits, loosely_same
from readmodel_pipelines.reconcile.outcome import Outcome, Verdict
from readmodel_pipelines.reconcile.past import LAST_OF_A_TYPE, ElementsPast, FieldPast, Past
from readmodel_pipelines.reconcile.replay import document_of, walk, walk_intact, without
from readmodel_pipelines.reconcile.unexplained import are_unexplained, is_plausible, texts_of

_TRIED = 24
"""Maximum number of single events left out in turn; the last ones are taken."""
_TRIED_OF_LONG = 8
_LONG = 1_000
_SHORT = 32
"""In a stream this short, every single event is tried before another program is named."""
_ROUNDS = 5
_MOST_SEVERAL = 64
"""Maximum number of events left out together that are then tried one by one."""
_MOST_SWAPS = 16
_SHOWN = 10

NOBODY_KNOWS: Callable[[str], bool] = lambda _: False  # noqa: E731 - a default, too small for a function


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that can be walked repeatedly; `is_made` tells whether the projection makes a field at all.

    `intact` are the same events, if they are held and were folded before.
    """

    projection: Projection
    aggregate_id: str
    events: Callable[[], Iterable[Event]]
    allowed: Collection[str] = ()
    is_made: Callable[[str], bool] = NOBODY_KNOWS
    intact: Sequence[Event] | None = None


def at_once(verdict: Verdict) -> Cause | None:
    """The cause of a finding that needs no walk; else None."""
    if verdict.outcome is Outcome.ORPHAN or (verdict.outcome is Outcome.UNEXPECTED and verdict.reason is not None):
        # No event makes a document without a stream, or a second one.
        return Cause(CauseKind.FOREIGN_WRITE)
    pairs = verdict.pairs if verdict.outcome is Outcome.DIFFERENT else {}
    if pairs and all(loosely_same(*pair) for pair in pairs.values()):
        return Cause(CauseKind.TYPE_ONLY, fields=tuple(pairs))
    return None


def cause_of(verdict: Verdict, stream: Stream) -> Cause | None:
    """The cause of a missing, unexpected or different document; None if it is right now."""
    if verdict.outcome is Outcome.MISSING:
        return _of_missing(stream)
    if verdict.actual is None:
        return None
    if verdict.outcome is Outcome.UNEXPECTED:
        return _of_unexpected(stream, verdict.actual)
    if verdict.outcome is Outcome.DIFFERENT and verdict.expected is not None:
        cause = _different(stream, verdict.pairs, verdict.actual)
        if cause is not None and cause.kind is CauseKind.FOREIGN_WRITE:
            return _of_earlier(stream, verdict.actual, tuple(verdict.pairs)) or cause
        return cause
    return None


def _different(stream: Stream, pairs: Mapping[str, tuple[Any, Any]], actual: Document) -> Cause | None:
    if stream.intact is not None and are_unexplained(stream.projection, stream.aggregate_id, stream.intact, pairs):
        return Cause(CauseKind.FOREIGN_WRITE, fields=tuple(sorted(pairs)))
    return _Different(stream, pairs, actual).cause()


def _of_earlier(stream: Stream, actual: Document, fields: tuple[str, ...]) -> Cause | None:
    """The cause of a document made by the previous schema version, if the projection defines it."""
    if stream.projection.earlier is None:
        return None
    earlier = replace(stream, projection=replace(stream.projection, document=stream.projection.earlier, earlier=None))
    past = Past(earlier.projection, stream.aggregate_id, actual)
    if not _walked(earlier, past) or not isinstance(past.last, dict):
        return None
    if fits(past.last, actual):
        return Cause(CauseKind.OLDER_SCHEMA, fields=fields)
    cause = _Different(earlier, differing_fields(past.last, actual), actual).cause()
    return None if cause is None or cause.kind is CauseKind.FOREIGN_WRITE else cause


def _walked(stream: Stream, past: Callable[[Event, Any], None], left_out: Collection[int] = ()) -> bool:
    """Walk the stream, perhaps without some events; returns whether it is intact."""
    if stream.intact is not None and not left_out:
        walk_intact(stream.events(), stream.projection.fold, past)
        return True
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
        # Without the event that creates the aggregate the later ones have nothing to change.
        return replace(told, lost=(), one_of=(lost_event(creating), *told.lost), ambiguous=True)
    return replace(told, ambiguous=match.runs > 1)


def _of_unexpected(stream: Stream, actual: Document) -> Cause | None:
    past = Past(stream.projection, stream.aggregate_id, actual)
    if not _walked(stream, past) or isinstance(past.last, dict):
        return None
    match = past.whole
    # In a stream that never wanted a document, any event may be the reason.
    tried = past.of_types(past.taken_away or past.recent)[: _most(past)]
    single = _fitting_singly(stream, actual, tried)
    if match.next is None and not single and past.number <= _SHORT:
        # An event that removed nothing, because no document existed at that moment, may be the reason since.
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
    """The cause of a document that is `first` event behind, or lacks a `single` one: the part on which all agree."""
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
    """One of these events was lost."""
    events = sorted({int(event["version"]): event for event in single}.items())
    told = tuple(lost_event(event) for _, event in events[:_SHOWN])
    if len(events) == 1:
        return Cause(kind, lost=told, missed=1)
    return Cause(kind, missed=1, ambiguous=True, one_of=told)


def _fitting(
    stream: Stream, actual: Document, left_out: Sequence[Collection[int]], but_for: frozenset[str]
) -> list[bool]:
    """For each set of versions, whether the stream without them yields the stored document."""
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
    """The single events without which the stream yields the stored document."""
    fitting = _fitting(stream, actual, [{int(event["version"])} for event in tried], but_for)
    return [event for event, fit in zip(tried, fitting, strict=True) if fit]


def _most(past: Past) -> int:
    return _TRIED if past.number <= _LONG else _TRIED_OF_LONG


class _Different:
    """An existing document that should be different."""

    def __init__(self, stream: Stream, pairs: Mapping[str, tuple[Any, Any]], actual: Document) -> None:
        self._stream = stream
        self._actual = actual
        self._pairs = pairs
        self._past = self._new_past()
        self._past.but_for = frozenset(name for name, pair in self._pairs.items() if ABSENT in pair)
        self._unknown: frozenset[str] = frozenset()
        self._fields: dict[str, FieldPast] = {}
        self._alike = Alike(stream.projection.fold, self._past, self._fields)
        self._texts: list[str] | None = None

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
            # The other differences are analysed without these fields.
            past.whole = past.rest
        if past.whole.next is None and any(item.is_impossible for item in self._fields.values()):
            return Cause(CauseKind.FOREIGN_WRITE, fields=self._strange())
        single = self._single()
        match = past.whole
        if match.next is not None and match.version != past.version:
            return self._of_behind(match.next, single)
        if single or (single := self._any_single()):
            return self._doubted(_of_single(CauseKind.LOST_UPDATE, single), single)
        several = self._together() or self._refined() or self._of_one_type()
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
        """Single events whose omission explains everything, of the types that changed every different field."""
        types = set.intersection(*(item.types for item in self._fields.values()))
        return self._fitting_singly(self._past.of_types(types)[: _most(self._past)])

    def _since(self) -> list[Event]:
        """The events that changed a field since it had its stored value; none if a field never had it."""
        if not all(item.reached for item in self._fields.values()):
            return []
        since = {int(event["version"]): event for item in self._fields.values() for event in item.since}
        return [event for _, event in sorted(since.items())]

    def _together(self) -> list[Event]:
        """The events of `_since`, if their omission explains everything."""
        since = self._since()
        return since if self._fitting([{int(event["version"]) for event in since}] if since else []) == [True] else []

    def _of_behind(self, following: Event, single: Sequence[Event]) -> Cause:
        told = _told(CauseKind.BEHIND, self._past, [following], single)
        if single or self._past.number - self._past.whole.number == 1:
            return self._doubted(told, single)
        if any(item.is_version for item in self._fields.values()):
            # A document that holds its version tells that nothing behind that was applied.
            return told
        since = self._since()
        if since and (since[0]["version"] != following["version"] or self._alike.about_the_same(following)):
            # The next event may have been applied, and then undone by another applied one.
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

    def _doubted(self, cause: Cause, single: Sequence[Event]) -> Cause:
        """The cause of which one event is told; that one and others, if they may hide it though it was applied."""
        named = [event for event in single if int(event["version"]) in {item.version for item in cause.lost}]
        others = [other for event in named for other in self._alike.about_the_same(event)]
        if not others:
            return cause
        one_of = tuple(map(lost_event, [*named, *others[:_SHOWN]]))
        return replace(cause, lost=(), one_of=one_of, ambiguous=True)

    def _instead(self, event: Event, lost: Sequence[Event]) -> list[Event]:
        """Other events exactly like this one, one of which may be lost instead."""
        versions = frozenset(int(item["version"]) for item in lost)
        others = self._alike.just_like(event, versions)[:_MOST_SWAPS]
        fitting = self._fitting([versions - {int(event["version"])} | {int(other["version"])} for other in others])
        return [other for other, fit in zip(others, fitting, strict=True) if fit]

    def _any_single(self) -> list[Event]:
        """Single events of a short stream whose omission explains everything, whatever their types."""
        if self._past.number > _SHORT or not all(map(self._is_plausible, self._fields.values())):
            return []
        return self._fitting_singly(self._past.of_types(self._past.recent))

    def _is_plausible(self, item: FieldPast) -> bool:
        """Whether a fold can make this value."""
        if self._texts is None:
            self._texts = texts_of(event for events in self._past.recent.values() for event in events)
        return item.reached or is_plausible(item.stored, self._texts)

    def _refined(self) -> list[Event]:
        """Events whose omission explains everything: contradicting events are added to the omitted ones repeatedly."""
        left: dict[int, Event] = {}
        pairs = dict(self._pairs)
        if not any(item.reached for item in self._past.fields.values()) and not self._lists(pairs):
            # Nothing is left out, because the last walk already showed that.
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
                # A value that never occurred may occur once other events are left out.
                since = (
                    elements.since(name) if name in lists and not item.reached else item.since if item.reached else ()
                )
                more |= {int(event["version"]): event for event in since if name not in self._unknown}
            # An omission may reveal changes that it had hidden.
            strange = {
                name: pair for name, pair in differing_fields(past.last, self._actual).items() if name not in pairs
            }
            if not strange and not more.keys() - left.keys():
                return self._swapped(left)
            pairs |= strange
            left |= more
        return []

    def _of_one_type(self) -> list[Event]:
        """All events of one type, if without them all is explained: none of that type was ever applied."""
        if not all(map(self._is_plausible, self._fields.values())):
            return []
        types = [list(events) for events in self._past.recent.values() if 1 < len(events) < LAST_OF_A_TYPE]
        fitting = self._fitting([{int(event["version"]) for event in events} for events in types])
        return next((events for events, fit in zip(types, fitting, strict=True) if fit), [])

    @staticmethod
    def _lists(pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
        return {name: pair for name, pair in pairs.items() if all(isinstance(value, list) for value in pair)}

    def _swapped(self, left: Mapping[int, Event]) -> list[Event]:
        """Events that explain everything with one of them replaced by another one exactly like it."""
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
        """These events were lost, except those that another one, exactly like it, may replace."""
        lost, sure = self._narrowed(several)
        versions = frozenset(int(event["version"]) for event in lost)
        alike = [(int(event["version"]), other) for event in sure for other in self._alike.just_like(event, versions)]
        alike = alike[:_MOST_SWAPS]
        fitting = self._fitting([versions - {version} | {int(other["version"])} for version, other in alike])
        doubtful = {version for (version, _), fit in zip(alike, fitting, strict=True) if fit}
        doubtful.update(int(event["version"]) for event in sure if self._alike.about_the_same(event))
        told = [lost_event(event) for event in sure if int(event["version"]) not in doubtful]
        sure_ones, doubt = tuple(told[:_SHOWN]), len(told) < len(lost)
        # If none is certain, they are shown anyway: they, or others exactly like them.
        one_of = () if sure_ones else tuple(map(lost_event, lost[:_SHOWN]))
        return Cause(CauseKind.LOST_UPDATE, lost=sure_ones, missed=len(lost), ambiguous=doubt, one_of=one_of)

    def _narrowed(self, several: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """The smallest subset of these events that explains everything, and those of it that are necessary."""
        by_version = {int(event["version"]): event for event in several}
        left = frozenset(by_version)
        fitting = self._fitting([left - {version} for version in sorted(left)])
        spare = [version for version, fit in zip(sorted(left), fitting, strict=True) if fit]
        # The last ones first, because they can no longer change fields that were removed before.
        for version in reversed(spare):
            if self._fitting([left - {version}]) == [True]:
                left -= {version}
        # An event that is applied again may make another one unnecessary, whose change it had undone.
        while back := [
            version
            for version, fit in zip(sorted(left), self._fitting([left - {it} for it in sorted(left)]), strict=True)
            if fit
        ]:
            left -= {back[-1]}
        kept = [by_version[version] for version in sorted(left)]
        return kept, [event for event in kept if int(event["version"]) not in spare]
