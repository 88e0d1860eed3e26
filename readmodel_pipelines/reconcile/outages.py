"""Groups findings by their common cause, so that an outage is one entry. They are grouped by cause, by the type of the
first lost event, and by its time.

Each group holds a count per minute; the limit of causes bounds its size. A period with most of a group's losses is
separated from other times.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

from readmodel_pipelines.reconcile.cause import LOST, Cause, CauseKind, utc
from readmodel_pipelines.reconcile.shortened import in_json, shortened

EXAMPLES = 5
_MINUTE = 60
_APART = 10 * _MINUTE
_TIMES_APART = 10
"""Two times are separate if at least ten minutes lie between them, and ten times the usual gap."""
_WORTH_ONE = 10
_BINS = 60

Key = tuple[str, CauseKind, str | None]


@dataclass(slots=True)
class Outage:
    """Findings of one read model with the same cause and the same type of lost event, around the same time."""

    read_model: str
    kind: CauseKind
    event_type: str | None
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    examples: list[Any] = field(default_factory=list)
    minutes: Counter[int] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "read_model": self.read_model,
            "kind": self.kind.value,
            "event_type": self.event_type,
            "count": self.count,
            "first": utc(self.first),
            "last": utc(self.last),
            "examples": self.examples,
        }


@dataclass(slots=True)
class _Minute:
    count: int
    first: datetime
    last: datetime
    examples: list[Any]


class Outages:
    """Collects the causes of all findings, including those beyond the limit of a summary."""

    def __init__(self) -> None:
        self._timeless: dict[Key, tuple[int, list[Any]]] = {}
        self._minutes: dict[Key, dict[int, _Minute]] = {}
        self.found: Counter[str] = Counter()

    def add(self, read_model: str, aggregate_id: Any, cause: Cause | None) -> None:
        """Add a finding."""
        self.found[read_model] += 1
        if cause is None:
            return
        key, since = (read_model, cause.kind, cause.event_type), cause.since
        if since is None:
            number, examples = self._timeless.setdefault(key, (0, []))
            self._timeless[key] = number + 1, examples
        else:
            minutes = self._minutes.setdefault(key, {})
            minute = minutes.setdefault(int(since.timestamp()) // _MINUTE, _Minute(0, since, since, []))
            minute.count += 1
            minute.first, minute.last = min(minute.first, since), max(minute.last, since)
            examples = minute.examples
        if len(examples) < EXAMPLES:
            examples.append(in_json(shortened(aggregate_id)))

    def unknown(self, read_model: str) -> int:
        """The number of findings of a read model without a known cause."""
        return self.found[read_model] - sum(item.count for item in self.of(read_model))

    def of(self, read_model: str) -> list[Outage]:
        """The outages of one read model, the largest first."""
        return [item for item in self.largest_first() if item.read_model == read_model]

    def largest_first(self) -> list[Outage]:
        """All outages, the largest first."""
        made = [Outage(*key, number, examples=examples) for key, (number, examples) in self._timeless.items()]
        for key, minutes in self._minutes.items():
            made += [_gathered(key, {at: minutes[at] for at in part}) for part in _parts(minutes)]
        return sorted(
            made, key=lambda item: (-item.count, item.read_model, item.kind, item.event_type or "", str(item.first))
        )


def _gathered(key: Key, minutes: Mapping[int, _Minute]) -> Outage:
    ordered = [minutes[at] for at in sorted(minutes)]
    examples = [example for minute in ordered for example in minute.examples][:EXAMPLES]
    return Outage(
        *key,
        sum(minute.count for minute in ordered),
        min(minute.first for minute in ordered),
        max(minute.last for minute in ordered),
        examples,
        Counter({at: minute.count for at, minute in minutes.items()}),
    )


def _parts(minutes: Mapping[int, _Minute]) -> Iterator[list[int]]:
    """The minutes, split at large gaps if each part has enough of the findings."""
    ordered = sorted(minutes)
    gaps = [after - before for before, after in pairwise(ordered)]
    # Findings within one minute have no gap.
    gaps += [0] * sum(minutes[at].count - 1 for at in ordered)
    apart = max(_APART // _MINUTE, _TIMES_APART * median(gaps or [0]))
    runs: list[list[int]] = []
    for at in ordered:
        if not runs or at - runs[-1][-1] > apart:
            runs.append([])
        runs[-1].append(at)
    counts = [sum(minutes[at].count for at in run) for run in runs]
    large = max(_WORTH_ONE, sum(counts) // 10)
    yield from (run for run, number in zip(runs, counts, strict=True) if number >= large)
    rest = [at for run, number in zip(runs, counts, strict=True) if number < large for at in run]
    if rest:
        yield rest


def histogram(outages: Sequence[Outage]) -> list[dict[str, Any]]:
    """For each read model and event type, the number of lost updates over time, in at most some dozen steps."""
    by_type: dict[tuple[str, str], Counter[int]] = {}
    for item in outages:
        if item.minutes:
            by_type.setdefault((item.read_model, item.event_type or ""), Counter()).update(item.minutes)
    every = [at for minutes in by_type.values() for at in minutes]
    if not every:
        return []
    first = min(every)
    step = max(1, -(-(max(every) - first + 1) // _BINS))
    told = []
    for (read_model, event_type), minutes in by_type.items():
        bins: Counter[int] = Counter()
        for at, number in minutes.items():
            bins[(at - first) // step] += number
        lost = [[utc(_at((first + place * step) * _MINUTE)), bins[place]] for place in sorted(bins)]
        told.append({"read_model": read_model, "event_type": event_type, "minutes": step, "lost": lost})
    return sorted(told, key=lambda item: -sum(number for _, number in item["lost"]))


def _at(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def sentence(outages: Outages, read_model: str) -> str:
    """The causes of a read model's findings as a sentence, the largest first; empty if none is known."""
    groups = outages.of(read_model)
    if not groups:
        return ""
    lost = [item for item in groups if item.kind in LOST]
    told = [(item.count, _lost_in_words([item])) for item in _merged(lost)]
    if len(told) > _TOLD:
        largest, rest = told[: _TOLD - 1], _merged(lost)[_TOLD - 1 :]
        told = [*largest, (sum(item.count for item in rest), _lost_in_words(rest))]
    for kind, (alone, several) in _WORDS.items():
        of_kind = [item for item in groups if item.kind is kind]
        if of_kind:
            number = sum(item.count for item in of_kind)
            told.append((number, (alone if number == 1 else several) + _around(of_kind)))
    told.sort(key=lambda item: -item[0])
    if unknown := outages.unknown(read_model):
        told.append((unknown, "have no known cause" if unknown > 1 else "has no known cause"))
    total = outages.found[read_model]
    number, words = told[0]
    beginning = f"{number:,} of {total:,} documents {words}"
    return "; ".join([beginning, *(f"{number:,} {words}" for number, words in told[1:])]) + "."


def in_words(cause: Cause) -> str:
    """The cause of one finding."""
    first = cause.lost[:1] or cause.one_of
    event = " or ".join(
        f"{item.version} `{item.event_type}`{'' if item.occurred_at is None else _exactly(item.occurred_at)}"
        for item in first
    )
    more = f" and {cause.missed - 1:,} more" if cause.lost and cause.missed > 1 else ""
    of_fields = f" ({', '.join(cause.fields)})" if cause.fields else ""
    lost = f": event {event}{more} not applied" if event else ""
    doubt = ", or another explanation" if cause.ambiguous and not cause.one_of else ""
    at = f" at version {cause.at_version}" if cause.kind is CauseKind.BEHIND else ""
    return f"{cause.kind.value}{at}{of_fields}{lost}{doubt}"


def _exactly(moment: datetime) -> str:
    return f" of {moment.date().isoformat()} {_clock(moment)}:{moment.second:02d} UTC"


_TOLD = 3
_WORDS: Mapping[CauseKind, tuple[str, str]] = {
    CauseKind.NEVER_CREATED: ("was never created", "were never created"),
    CauseKind.NOT_DELETED: ("was not deleted", "were not deleted"),
    CauseKind.FOREIGN_WRITE: ("was written by another program", "were written by another program"),
    CauseKind.OLDER_SCHEMA: ("is of an older schema", "are of an older schema"),
    CauseKind.TYPE_ONLY: ("has the right values in another type", "have the right values in another type"),
}


def _merged(lost: Sequence[Outage]) -> list[Outage]:
    """Merge groups that differ only in whether later updates were applied: they are one outage."""
    merged: list[Outage] = []
    for item in sorted(lost, key=lambda item: (item.event_type or "", str(item.first))):
        before = merged[-1] if merged and merged[-1].event_type == item.event_type else None
        if before is None or not _touch(before, item):
            merged.append(Outage(item.read_model, item.kind, item.event_type, item.count, item.first, item.last))
            continue
        before.count += item.count
        if item.last is not None and before.last is not None:
            before.last = max(before.last, item.last)
    return sorted(merged, key=lambda item: -item.count)


def _touch(before: Outage, item: Outage) -> bool:
    if before.last is None or item.first is None:
        return before.last is item.first
    return (item.first - before.last).total_seconds() <= _APART


def _lost_in_words(lost: Sequence[Outage]) -> str:
    types = {item.event_type for item in lost}
    known = types - {None}
    what = (
        f"`{known.pop()}`"
        if len(types) == len(known) == 1
        else f"updates of {len(known)} event types"
        if known
        else "updates"
    )
    return f"lost {what}{_between(lost)}"


def _around(groups: Sequence[Outage]) -> str:
    types = {item.event_type for item in groups if item.event_type}
    return f" (`{types.pop()}`{_between(groups)})" if len(types) == 1 else _between(groups)


def _between(groups: Sequence[Outage]) -> str:
    """From the first lost event to the last, in words; times are UTC."""
    first = min((item.first for item in groups if item.first), default=None)
    last = max((item.last for item in groups if item.last), default=None)
    if first is None or last is None:
        return ""
    one, other = _clock(first), _clock(last)
    if first.date() != last.date():
        return f" between {one} on {_day(first)} and {other} on {_day(last)} UTC"
    return f" {f'between {one} and {other}' if one != other else f'at {one}'} on {_day(first)} UTC"


def _clock(moment: datetime) -> str:
    return f"{moment.hour:02d}:{moment.minute:02d}"


def _day(moment: datetime) -> str:
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


# Independent of the locale.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
