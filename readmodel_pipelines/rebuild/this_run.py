"""The run that is at work on a rebuild of read models that are made from the same streams, and whom it tells."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.bookkeeping.leases import Leases, hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRange, RebuildRecord, Rebuilds
from readmodel_pipelines.lanes import Contested
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.rebuild.batches import Pace, window_of
from readmodel_pipelines.rebuild.catch_up import Following
from readmodel_pipelines.rebuild.request import RebuildRequest
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.spread import workers_for


@dataclass(slots=True)
class Run:
    """One run: for whom, over about how many events, and whom it tells. Its summary may be that of several.

    From `record` on it is known once the run goes: the rebuild as last read, its ranges, and what keeps it right.
    """

    store: Store
    request: RebuildRequest
    summary: Summary
    events: int
    on_progress: Progress | None
    on_phase: Callable[[str], object]
    holder: str
    owner: str
    record: RebuildRecord = field(init=False)
    ranges: Sequence[RebuildRange] = field(init=False)
    held: Leases = field(init=False)
    nonces: Mapping[str, str] = field(init=False)
    claims: Contested = field(init=False)
    following: Following = field(init=False)
    outcome: RebuildOutcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = RebuildOutcome(read_models=[item.read_model for item in self.store.projections])

    @property
    def rebuilds(self) -> Rebuilds:
        """The records."""
        return Rebuilds(self.store.database)

    @property
    def collections(self) -> list[str]:
        """The live collections, whose leases it takes."""
        return [self.store.live(item).name for item in self.store.projections]

    @property
    def shadows(self) -> Collection[str]:
        """The read models that are built beside the live ones."""
        return self.record.built_beside(self.store.projections)

    @property
    def workers(self) -> int:
        """How many processes it is worth."""
        return workers_for(self.store.settings, self.events)

    @property
    def limit(self) -> DeletionLimit:
        """How many documents may go."""
        return DeletionLimit(None if self.request.allow_deletions else self.store.settings.max_delete_share)

    def hold(self, names: Sequence[str], shared: str = "") -> AbstractContextManager[Leases]:
        """Hold leases with these names."""
        return hold_leases(
            self.store.database, names, self.store.settings.lease_seconds, self.holder, self.owner, shared
        )

    def to(self, state: RebuildState, **changed: Any) -> None:
        """Bring the record into a state."""
        self.record = self.rebuilds.to(self.record, state, **changed)

    def warn(self, warning: str) -> None:
        """Say it with the result."""
        self.summary.warnings.append(warning)

    def check_window(self) -> None:
        """Raises `WindowClosed` when the run is kept to hours, and they are over."""
        Pace(window=window_of(self.store.settings, self.request.off_peak)).check_window()
