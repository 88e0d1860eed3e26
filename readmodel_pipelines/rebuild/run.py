"""A full rebuild: cut into ranges, resumed where it was, in place or in a shadow, right even while writers go on.

The steps: take the leases; find the unfinished rebuild or begin one; follow the events from before the first read; do
the ranges; then finish as the strategy has it. Progress is saved with every batch, so that any step may be killed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pymongo.database import Database

from readmodel_pipelines.errors import ReadModelBusy, ReadModelError
from readmodel_pipelines.lanes import Contested, contested
from readmodel_pipelines.mongo.changes import HistoryLost, NoHistory, token_of_now
from readmodel_pipelines.mongo.connection import server_time
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import collection_of, ensure_for_empty
from readmodel_pipelines.mongo.leases import Held, hold_leases
from readmodel_pipelines.mongo.rebuilds import (
    Rebuilds,
    State,
    Strategy,
    age_seconds,
    counts_of,
    range_of,
)
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.mongo.shadow import create_like, shadow_name
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold
from readmodel_pipelines.projector import Progress, choose_projections
from readmodel_pipelines.rebuild.finish import Finish, Refused, finish_in_place, finish_shadow
from readmodel_pipelines.rebuild.leftovers import drop_leftovers
from readmodel_pipelines.rebuild.plan import (
    Slice,
    about_events,
    code_version,
    identity_of,
    plan_ranges,
    why_anew,
    workers_for,
)
from readmodel_pipelines.rebuild.touched import Following, Touched
from readmodel_pipelines.rebuild.worker import Job, range_worker
from readmodel_pipelines.reconcile.summary import DEFAULT_MAX_FINDINGS, Counts, Summary
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.workers import work_off

_PASSES = 4
_PLAN_SECONDS = 30.0
_SAY_SECONDS = 1.0

__all__ = ["Request", "Slice", "rebuild"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to rebuild and how.

    With `resume` an unfinished rebuild goes on where it was, if it still is the same one; otherwise it is dropped, and
    a warning says so. A `slice` does its part and, when it is the last one, finishes the rebuild; `campaign` names what
    launched the slices, so that one that comes late begins no other rebuild. With `off_peak` it stops at the end of the
    window of the settings.
    """

    strategy: Strategy = "in_place"
    resume: bool = False
    allow_deletions: bool = False
    off_peak: bool = False
    slice: Slice | None = None
    campaign: str = ""
    max_findings: int = DEFAULT_MAX_FINDINGS


def rebuild(
    database: Database[Document],
    settings: Settings,
    read_models: Sequence[str],
    request: Request,
    *,
    on_progress: Progress | None = None,
    holder: str = "",
    owner: str = "",
) -> Summary:
    """Rebuild the read models with these names in full, all when none is named.

    The summary's `about` says the rebuild's id, its state (`done`, `paused` at the end of the window, `building` while
    other slices are) and strategy.

    Raises:
        UsageError: there is no such read model.
        ReadModelBusy: somebody else rebuilds one of them.
        LeaseLost: this run was taken for dead and somebody else took over.
        WorkerDied: a worker process was killed; resume.
    """
    projections = choose_projections(settings, read_models)
    summary = Summary("rebuild", read_models[0] if len(read_models) == 1 else "all", request.max_findings)
    summary.read_models = {item.read_model: Counts() for item in projections}
    started = time.perf_counter()
    for group in by_fold(projections):
        _Rebuild(database, settings, group, request, summary, on_progress, holder, owner).run()
    if not summary.events:
        stored_as = " or ".join(sorted({item.fold.stored_as[0] for item in projections}))
        summary.warnings.append(
            f"{settings.database}.{settings.events_collection} holds no event of aggregate type {stored_as}; "
            "check READMODEL_DATABASE, READMODEL_EVENTS_COLLECTION and READMODEL_TASK_SOURCE."
        )
    summary.seconds = time.perf_counter() - started
    return summary


@dataclass(slots=True)
class _Rebuild:
    """The rebuild of read models that are made from the same streams."""

    database: Database[Document]
    settings: Settings
    projections: Sequence[Projection]
    request: Request
    summary: Summary
    on_progress: Progress | None
    holder: str
    owner: str
    workers: int = field(init=False)
    total: int = field(init=False)
    rebuilds: Rebuilds = field(init=False)
    said_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.total = about_events(self.database, self.settings)
        self.workers = workers_for(self.settings, self.total)
        self.rebuilds = Rebuilds(self.database)

    @property
    def collections(self) -> list[str]:
        """The live collections."""
        return [collection_of(self.settings, item) for item in self.projections]

    def run(self) -> None:
        """All of it, or the part of it that is this run's."""
        part = self.request.slice
        with ExitStack() as leases:
            if part is None:
                held = leases.enter_context(self._hold(self.collections, self.owner))
                record = self._find_or_begin()
            else:
                found = self._slices_record()
                if found is None:
                    return
                record = found
                held = leases.enter_context(self._hold(self.collections, "", shared=record["_id"]))
                leases.enter_context(self._hold([f"{self.collections[0]}/slice {part.number}"], self.owner))
            self.summary.about |= {"rebuild": record["_id"], "strategy": record["strategy"]}
            self._go(record, held)

    def _hold(self, names: Sequence[str], owner: str, shared: str = "") -> Any:
        return hold_leases(self.database, names, self.settings.lease_seconds, self.holder, owner, shared)

    # The record

    def _slices_record(self) -> Document | None:
        """The record that all slices share; None when the rebuild of this campaign is done already."""
        deadline = time.monotonic() + _PLAN_SECONDS
        while True:
            try:
                with self._hold([f"{self.collections[0]}/plan"], self.owner):
                    if self.request.campaign:
                        done = self.rebuilds.last(self.collections, campaign=self.request.campaign, state="done")
                        if done is not None:
                            self.summary.about |= {"rebuild": done["_id"], "state": "done"}
                            return None
                    record = self._resumable()
                    if record is not None:
                        return record
                    # Nobody else may be at work on these read models when another rebuild is begun.
                    with self._hold(self.collections, self.owner):
                        return self._find_or_begin()
            except ReadModelBusy as error:
                if "/plan" not in error.message or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _identity(self) -> dict[str, Any]:
        slices = self.request.slice.of if self.request.slice else 1
        return identity_of(self.settings, self.projections, self.request.strategy, slices)

    def _resumable(self) -> Document | None:
        now, valid = server_time(self.database), self.settings.rebuild_valid_days
        for record in self.rebuilds.unfinished(self.collections):
            if record["read_models"] == self.collections:
                if not (why := why_anew(record, self._identity(), age_seconds(record, now), valid)):
                    self.rebuilds.note(record, runs=record["runs"] + 1)
                    return record
                self.summary.warnings.append(f"Rebuild {record['_id']} is not resumed: {why}.")
        return None

    def _find_or_begin(self) -> Document:
        record = self._resumable() if self.request.resume else None
        for other in self.rebuilds.unfinished(self.collections):
            if record is None or other["_id"] != record["_id"]:
                self.rebuilds.to(other, State.ABORTED)
                drop_leftovers(self.database, other)
                self.summary.warnings.append(f"Rebuild {other['_id']}, which was {other['state']}, was dropped.")
        return record or self._begin()

    def _begin(self) -> Document:
        for item in self.projections:
            self.summary.warnings += ensure_for_empty(self.database[collection_of(self.settings, item)], item)
        slices = self.request.slice.of if self.request.slice else 1
        about: dict[str, Any] = {
            **self._identity(),
            "read_models": self.collections,
            "names": [item.name for item in self.projections],
            "code_version": code_version(),
            "campaign": self.request.campaign,
            "holder": self.holder,
            **self._tokens(),
        }
        store = EventStore(self.database[self.settings.events_collection])
        record = self.rebuilds.begin(about, plan_ranges(store, self.projections, self.workers, slices))
        if self.request.strategy == "shadow":
            for live in self.collections:
                create_like(self.database, live, shadow_name(live, record["_id"]))
        return record

    def _tokens(self) -> dict[str, Any]:
        """From where to follow, taken before the first read."""
        try:
            tokens: dict[str, Any] = {"token": token_of_now(self.database[self.settings.events_collection])}
            if self.request.strategy == "shadow":
                tokens["live_tokens"] = {
                    item.read_model: token_of_now(self.database[collection_of(self.settings, item)])
                    for item in self.projections
                }
            return tokens
        except NoHistory as error:
            if self.request.strategy == "shadow":
                raise ReadModelError(
                    f"A shadow needs to follow what changes meanwhile, and {error}.",
                    hint="Rebuild with the strategy in_place.",
                ) from None
            return {"token": None, "no_history": str(error)}

    # The work

    def _go(self, record: Document, held: Held) -> None:
        touched = Touched(self.database, record["_id"])
        store = EventStore(self.database[self.settings.events_collection])
        claims = contested(store, self.projections)
        following = Following(self.database, self.settings, record, self.projections, touched)
        if record["state"] != State.SWAPPING:
            following.start()
        try:
            for _ in range(_PASSES):
                if record["state"] == State.BUILDING and not self._build(record, held, claims):
                    return
                with self._finishing(record):
                    if record["state"] != State.SWAPPING:
                        record = self.rebuilds.to(record, State.FINISHING)
                    following.stop()
                    finish = self._finish_with(record, held, claims, following, touched)
                    try:
                        self._finish(finish, held)
                        return
                    except HistoryLost as error:
                        record = finish.again(error)
                    following.close()
                    following = Following(self.database, self.settings, record, self.projections, touched)
                    following.start()
        finally:
            following.close()
        raise ReadModelError(
            f"The server's history of changes is too short to follow rebuild {record['_id']}, {_PASSES} times over.",
            hint="Give the replica set a larger oplog, or rebuild while less is written; then resume.",
        )

    def _finishing(self, record: Document) -> Any:
        """One of the slices finishes; of several that end together the others find it taken."""
        return self._hold([f"{self.collections[0]}/finish {record['_id']}"], self.owner)

    def _build(self, record: Document, held: Held, claims: Contested) -> bool:
        """Do the ranges of this run; whether all of the rebuild's are done."""
        part = self.request.slice.number if self.request.slice else None
        todo = [range_of(item) for item in self.rebuilds.ranges(record, part, done=False)]
        workers = max(1, min(self.workers, len(todo)))
        job = Job(
            self.settings,
            record["_id"],
            tuple(item.name for item in self.projections),
            held.nonces,
            self._shadows(record),
            claims,
            mend=record.get("passes", 1) > 1,
            share=1 / workers,
            off_peak=self.request.off_peak,
            max_findings=self.request.max_findings,
        )
        stopped = False
        for _, done in work_off(range_worker, job, todo, workers, partial(self._say, record)):
            self.summary.take_over(done.summary.findings)
            self.summary.warnings += [item for item in done.summary.warnings if item not in self.summary.warnings]
            stopped |= done.stopped
        self._count(record, part)
        if stopped:
            self.summary.about["state"] = "paused"
            self.summary.warnings.append(
                f"The off-peak window {self.settings.off_peak_window} is over. Rebuild {record['_id']} goes on where "
                "it is when it is launched again, or resumed."
            )
        elif next(self.rebuilds.ranges(record, done=False), None) is not None:
            self.summary.about["state"] = State.BUILDING.value
        else:
            return True
        return False

    def _shadows(self, record: Document) -> dict[str, str]:
        if record["strategy"] != "shadow":
            return {}
        return {
            item.read_model: shadow_name(collection_of(self.settings, item), record["_id"]) for item in self.projections
        }

    def _count(self, record: Document, part: int | None) -> None:
        """What is known of the ranges: of this slice's, or of all, those done by earlier runs included."""
        ranges = list(self.rebuilds.ranges(record, part))
        for item in self.projections:
            self.summary.read_models[item.read_model] = counts_of(ranges, item.read_model)
        self.summary.events += sum(item["events"] for item in ranges)

    def _say(self, record: Document, _: Any) -> None:
        if self.on_progress is not None and time.monotonic() - self.said_at >= _SAY_SECONDS:
            self.said_at = time.monotonic()
            self.on_progress(self.rebuilds.progress(record), self.total)

    def _finish_with(
        self, record: Document, held: Held, claims: Contested, following: Following, touched: Touched
    ) -> Finish:
        if self.request.slice is not None or not self.summary.events:
            self.summary.events = 0
            self._count(record, None)
        return Finish(
            self.database,
            self.settings,
            self.projections,
            record,
            self.summary,
            held,
            claims,
            following,
            touched,
            self._shadows(record),
            self.request.allow_deletions,
            self.workers,
        )

    def _finish(self, finish: Finish, held: Held) -> None:
        try:
            (finish_shadow if finish.shadows else finish_in_place)(finish)
        except Refused as refusal:
            self.summary.warnings.append(str(refusal))
            self.rebuilds.to(finish.record, State.REFUSED, why=str(refusal))
            self.summary.about["state"] = State.REFUSED.value
        else:
            self.summary.about["state"] = State.DONE.value
            drop_leftovers(self.database, finish.record)
        counts = {name: item.as_dict() for name, item in self.summary.read_models.items()}
        self.rebuilds.note(finish.record, counts=counts, events=self.summary.events)
        if self.request.slice is not None:
            held.give_back()
