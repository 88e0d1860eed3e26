"""The records of rebuilds as values: a rebuild, and one of its ranges.

Only this module makes them from documents. Fields missing in records of earlier versions get a default; a record in
another form raises `ODD_RECORD`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import Owner
from readmodel_pipelines.mongo.changes import Token
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild_state import RebuildState, Strategy
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.ranges import IdRange


@dataclass(frozen=True, slots=True)
class RebuildRecord:
    """A rebuild as last read; `stored` is its document, and `read_models` are live collections."""

    id: str
    state: RebuildState
    strategy: Strategy
    read_models: list[str]
    started_at: datetime
    updated_at: datetime
    stored: Mapping[str, Any]
    ended_at: datetime | None = None
    names: Sequence[str] = ()
    ranges: int = 0
    runs: int = 1
    passes: int = 1
    token: Token | None = None
    live_tokens: Mapping[str, Token] = field(default_factory=dict)
    no_history: str = ""
    idle_seconds: float = 0.0
    shadows: Mapping[str, str] = field(default_factory=dict)
    lives: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    copy_token: Token | None = None
    put_back: Sequence[str] = ()
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: int = 0
    finished: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    mended: Mapping[str, int] = field(default_factory=dict)
    reported: Sequence[int] = ()
    campaigns: Sequence[str] = ()

    @property
    def in_shadow(self) -> bool:
        """Whether it builds shadows."""
        return self.strategy == "shadow"

    def built_beside(self, projections: Iterable[Projection]) -> tuple[str, ...]:
        """The read models for which it builds shadows."""
        return tuple(item.read_model for item in projections if self.in_shadow)

    @property
    def first_pass(self) -> bool:
        """Whether no range had to be done twice."""
        return self.passes == 1

    @property
    def seconds(self) -> float:
        """Seconds from its beginning to its end; 0 before its end."""
        return 0.0 if self.ended_at is None else (self.ended_at - self.started_at).total_seconds()

    def age_seconds(self, now: datetime) -> float:
        """Seconds since its beginning, by the server's clock."""
        return (now.replace(tzinfo=None) - self.started_at).total_seconds()

    def owner(self, live: str = "") -> Owner:
        """The owner of its keys: of one live collection, or of all."""
        return Owner(live or self.read_models[0], self.id)


@dataclass(frozen=True, slots=True)
class RebuildRange:
    """One range of a rebuild, from `lower` on, by the `_id` of its document, with its cursor and counts.

    `by` is the mark of the run that works on it, `passes` the number of its pass. `begun` means that another run worked
    on it before, which may have written more than it saved.
    """

    id: str
    rest: IdRange
    lower: str | None = None
    done: bool = False
    events: int = 0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    by: str | None = None
    passes: int = 1
    begun: bool = False

    @property
    def whole(self) -> IdRange:
        """The whole range, whether done or not."""
        return IdRange(self.lower, self.rest.upper)


_KNOWN = {item.name for item in fields(RebuildRecord)}


def record_of(document: Mapping[str, Any]) -> RebuildRecord:
    """The rebuild in a document."""
    known = {"names": document["read_models"], **document}
    told = {name: value for name, value in known.items() if name in _KNOWN}
    state = RebuildState(document["state"])
    return RebuildRecord(**{**told, "id": document["_id"], "state": state, "stored": document})


def range_of(document: Mapping[str, Any]) -> RebuildRange:
    """The range in a document."""
    told = {name: document[name] for name in ("lower", "done", "events", "counts")}
    rest = IdRange(document["cursor"], document["upper"])
    return RebuildRange(document["_id"], rest, **told, by=document.get("by"), passes=document.get("passes", 1))


def counted(ranges: Iterable[RebuildRange], read_model: str) -> Counts:
    """The sum of the counts of these ranges."""
    total = Counts()
    for item in ranges:
        total.add(Counts(**item.counts.get(read_model, {})))
    return total
