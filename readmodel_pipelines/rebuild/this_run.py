"""The run of a rebuild of read models made from the same streams, with its leases, record and messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from readmodel_pipelines.bookkeeping.leases import Leases, hold_leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRange, RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.cutover.built import find, identity, moved_on
from readmodel_pipelines.errors import ReadModelError
from readmodel_pipelines.lanes import Contested
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import ClientSession
from readmodel_pipelines.mongo.fenced import Fence, FencedCollection
from readmodel_pipelines.mongo.read_order import Reading
from readmodel_pipelines.mongo.spooling import Spools
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows, Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.reading import span_of, spooled
from readmodel_pipelines.rebuild.catch_up import Following
from readmodel_pipelines.rebuild.request import RebuildRequest
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.progress import Progress
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.speed_limits import Pace, WindowClosed, pace_of, window_of
from readmodel_pipelines.spread import workers_for


@dataclass(frozen=True, slots=True)
class Held:
    """All leases of a run: those of its read models, then that of its slice, then that of finishing."""

    leases: list[Leases]

    @property
    def nonces(self) -> Mapping[str, str]:
        """The nonces of all leases, by name."""
        return {name: nonce for lease in self.leases for name, nonce in lease.nonces.items()}

    @property
    def mark(self) -> str:
        """The mark that identifies this run."""
        return self.leases[-1].nonce

    def check(self) -> None:
        """Raise `LeaseLost` if one of them has expired, by our own clock."""
        for lease in self.leases:
            lease.check()

    def confirm(self) -> None:
        """Raise `LeaseLost` if one of them is no longer ours, by the server."""
        for lease in self.leases:
            lease.confirm()

    def claim(self, session: ClientSession) -> None:
        """Like `confirm`, inside a transaction."""
        for lease in self.leases:
            lease.claim(session)


@dataclass(slots=True)
class Run:
    """One run: its holder, approximate number of events, and callbacks. Several runs may share its summary.

    From `record` on, the fields are set when the run starts: the rebuild as last read, its ranges, and its leases.
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
    held: Held = field(init=False)
    built: Mapping[str, Fence] = field(default_factory=dict)
    claims: Contested = field(init=False)
    following: Following = field(init=False)
    outcome: RebuildOutcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = RebuildOutcome(read_models=[item.read_model for item in self.store.projections])

    @property
    def rebuilds(self) -> Rebuilds:
        """The records of rebuilds in the database."""
        return Rebuilds(self.store.database)

    @property
    def collections(self) -> list[str]:
        """The live collections, whose leases it takes."""
        return [self.store.live(item).name for item in self.store.projections]

    @property
    def shadows(self) -> Shadows:
        """The shadows that are not cut over yet, by read model."""
        names = self.record.built_beside(self.store.projections)
        return {name: self.built[name] for name in names if name in self.built}

    def shadow(self, projection: Projection) -> FencedCollection:
        """The shadow of one read model."""
        return self.store.shadow(projection, self.built)

    @property
    def workers(self) -> int:
        """The number of worker processes."""
        return workers_for(self.store.settings, self.events)

    @property
    def limit(self) -> DeletionLimit:
        """The maximum number of deletions."""
        return DeletionLimit(None if self.request.allow_deletions else self.store.settings.max_delete_share)

    @contextmanager
    def spooled(self, todo: Sequence[RebuildRange]) -> Iterator[Spools]:
        """The spools of these ranges; empty if they are read from the server.

        Raises (here and in the block):
            WindowClosed: the window ended while it was spooled.
            HistoryLost: a live collection was replaced after it was spooled.
        """
        pace = pace_of(self.store.settings, self.store.database, 1, self.request.off_peak)
        lives: list[str] = []

        def said(reading: Reading) -> None:
            if reading.order == "scan" and not self.record.in_shadow:
                lives.extend(self._lives())
            if reading.order == "scan" or reading.chosen:
                self.summary.read_order = reading.said

        def read(number: int) -> None:
            try:
                pace.wait(number, 0)
            except WindowClosed:
                self.warn(
                    "The off-peak window ended before the spool was complete, so the next run begins the spool anew. "
                    "If that repeats, set READMODEL_READ_ORDER=index, or a longer READMODEL_OFF_PEAK_WINDOW."
                )
                raise

        share = len(todo) / self.record.ranges
        span = span_of([item.rest for item in todo])
        # A second pass compares with what was built.
        shadows = NO_SHADOWS if self.record.first_pass else self.shadows
        with spooled(
            self.store, span, share=share, events=self.events, shadows=shadows, read=read, said=said
        ) as spools:
            yield spools
            # In place nothing else would detect this.
            if lives and self._lives() != lives:
                replaced = "a collection that was read was dropped or replaced"
                if self.request.slice is None:
                    raise HistoryLost(replaced)
                # A slice cannot make the others begin again.
                raise ReadModelError(f"While a slice was rebuilt, {replaced}.", hint="Launch all slices again.")

    def _lives(self) -> list[str]:
        return [identity(self.store.database, name) for name in self.collections]

    def hold(self, names: Sequence[str], shared: str = "") -> AbstractContextManager[Leases]:
        """Take leases with these names."""
        return hold_leases(
            self.store.database, names, self.store.settings.lease_seconds, self.holder, self.owner, shared
        )

    def to(self, state: RebuildState, **changed: Any) -> None:
        """Change the state of the record."""
        self.record = self.rebuilds.to(self.record, state, **changed)

    def follow(self, until: ExitStack) -> None:
        """Follow events and foreign fields from the tokens in the record."""
        self.following = until.enter_context(closing(Following(self.store, self.record)))

    def join(self, record: RebuildRecord) -> None:
        """Join a rebuild beside other slices."""
        self.record = record
        found = {
            item.read_model: find(self.store.database, self.store.shadow_names(item), identity)
            for item in self.store.projections
            if (identity := record.shadows.get(item.read_model))
        }
        self.built = {name: fence for name, fence in found.items() if fence is not None}

    def take_over(self, record: RebuildRecord) -> None:
        """Continue a rebuild alone: from now on the server refuses late commands of other runs.

        Raises:
            LeaseLost: another run works on it.
        """
        self.record = self.rebuilds.taken_over(record, self.held.confirm)
        moved = {
            item.read_model: moved_on(self.store.database, self.store.shadow_names(item), identity, self.held)
            for item in self.store.projections
            if (identity := self.record.shadows.get(item.read_model))
        }
        self.built = {name: fence for name, fence in moved.items() if fence is not None}

    def warn(self, warning: str) -> None:
        """Add a warning to the result."""
        self.summary.warnings.append(warning)

    def check_window(self) -> None:
        """Raise `WindowClosed` if the run has a window and it is over."""
        Pace(window=window_of(self.store.settings, self.request.off_peak)).check_window()
