"""Facts: what one scrape learns of the database, as values. What could not be read is None, and makes no metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from readmodel_pipelines.bookkeeping.held_leases import LeasesHeld
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.rebuild_state import RebuildState

Coverage = Literal["any", "everything"]
"""Of a verification: the last one, whatever it covered, or the last that compared all fields of all aggregates."""


@dataclass(frozen=True, slots=True)
class OpenFindings:
    """The open findings of a read model by outcome: how many, and when the oldest was first seen."""

    numbers: Mapping[str, int]
    oldest: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Ended:
    """A verification or a full rebuild that ended; `counts` as `Counts.as_dict` has them."""

    ended_at: datetime
    seconds: float
    events: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A full rebuild that is not at its end; `share_of_ranges` are done. `first_pass`: nothing was read twice."""

    state: RebuildState
    started_at: datetime
    progress_at: datetime
    events: int
    share_of_ranges: float
    first_pass: bool


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """Full rebuilds by read model: the last that is done, and the one that is unfinished."""

    done: Mapping[str, Ended]
    unfinished: Mapping[str, Unfinished]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Estimated numbers: documents by read model, and events."""

    documents: Mapping[str, int]
    events: int


@dataclass(slots=True)
class Facts:
    """What one scrape learned. `parts` has a name for each of it, and why it could not be read, empty when it could.

    `collections` has the live collection of every read model: leases are held on it.
    """

    collections: Mapping[str, str]
    warning_tasks: int
    limit_tasks: int
    queue: QueueStats | None = None
    findings: Mapping[str, OpenFindings] | None = None
    verifications: Mapping[tuple[str, Coverage], Ended] | None = None
    rebuilds: Rebuilding | None = None
    leases: LeasesHeld | None = None
    sizes: Sizes | None = None
    parts: dict[str, str] = field(default_factory=dict)
