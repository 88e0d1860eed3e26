"""Which rebuild a run works on: the unfinished one that it resumes, or a new one; what cannot be resumed is dropped."""

from __future__ import annotations

import time
import uuid
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget_killed
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.cutover.shadow import create_like, drop, identity
from readmodel_pipelines.errors import ReadModelBusy, ReadModelError
from readmodel_pipelines.mongo.changes import NoHistory, token_of_now
from readmodel_pipelines.mongo.driver import server_time
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.names import shadow_name
from readmodel_pipelines.rebuild.request import Slice, code_version, identity_of, why_anew
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild.verbs import drop_aborted
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.spread import plan_ranges

_PLAN_SECONDS = 30.0


class Begin:
    """Finds or begins the rebuild that a run works on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store = run.store
        self.request = run.request
        self.rebuilds = run.rebuilds
        self.collections = run.collections

    def alone(self, *, resume: bool) -> RebuildRecord:
        """For a run that holds the leases of the read models for itself."""
        record = self._swapping() or (self._resumable() if resume else None)
        for other in self.rebuilds.unfinished(self.collections):
            if record is None or other.id != record.id:
                drop_aborted(self.store.database, self.rebuilds.to(other, RebuildState.ABORTED), self.collections)
                self.run.warn(f"Rebuild {other.id}, which was {other.state}, was dropped.")
        self._sweep(record)
        return record or self._new()

    def with_others(self, part: Slice) -> RebuildRecord | None:
        """For a slice: the record that all slices share; None when the rebuild that it belongs to is done already."""
        deadline = time.monotonic() + _PLAN_SECONDS
        while True:
            try:
                with self.run.hold([f"{self.collections[0]}/plan"]):
                    record = self._shared(part)
                    if record is not None:
                        self.rebuilds.report(record, part.number, self.request.campaign)
                    return record
            except ReadModelBusy as error:
                if "/plan" not in error.message or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _shared(self, part: Slice) -> RebuildRecord | None:
        record = self._resumable()
        if record is not None:
            return record
        last = self.rebuilds.last_done(self.collections)
        if last is not None and self._belongs_to(last, part):
            self.rebuilds.report(last, part.number, self.request.campaign)
            return None
        # Nobody else may be at work on these read models when another rebuild is begun.
        with self.run.hold(self.collections):
            return self.alone(resume=False)

    def _belongs_to(self, done: RebuildRecord, part: Slice) -> bool:
        """Whether a slice comes late to a rebuild that is done: of its campaign, or one that it was no part of yet."""
        if self.request.campaign or any(done.campaigns):
            return self.request.campaign in done.campaigns
        return not self._why_anew(done) and part.number not in done.reported

    def _why_anew(self, record: RebuildRecord) -> str:
        age = record.age_seconds(server_time(self.store.database))
        return why_anew(
            record.stored, identity_of(self.store, self.request), age, self.store.settings.rebuild_valid_days
        )

    def _why_no_shadow(self, record: RebuildRecord) -> str:
        if not record.in_shadow or record.state is RebuildState.SWAPPING:
            return ""
        return "" if record.shadows == self._shadows() else "its shadow is not there any more"

    def _shadows(self) -> dict[str, str]:
        """What tells these shadows from others of the same name."""
        shadows = {item.read_model: self.store.shadow(item).name for item in self.store.projections}
        return {read_model: identity(self.store.database, shadow) for read_model, shadow in shadows.items()}

    def _resumable(self) -> RebuildRecord | None:
        for record in self.rebuilds.unfinished(self.collections):
            if record.read_models == self.collections:
                if not (why := self._why_anew(record) or self._why_no_shadow(record)):
                    self.rebuilds.resumed(record)
                    return record
                self.run.warn(f"Rebuild {record.id} is not resumed: {why}.")
        return None

    def _swapping(self) -> RebuildRecord | None:
        """One that was killed while it took the place of the live collection can only go forward."""
        for record in self.rebuilds.unfinished(self.collections):
            if record.state is RebuildState.SWAPPING:
                if record.read_models != self.collections:
                    raise ReadModelError(
                        f"Rebuild {record.id} of {' and '.join(record.read_models)} was interrupted while it "
                        "was swapped in, and must be ended first.",
                        hint="Resume it: `readmodel rebuild-readmodel --type all --all --strategy shadow --resume`.",
                    )
                self.run.warn(f"Rebuild {record.id}, which was interrupted while it was swapped in, was ended first.")
                return record
        return None

    def _sweep(self, resumed: RebuildRecord | None) -> None:
        """Delete what killed runs left of rebuilds that nobody goes on with."""
        forget_killed(self.store.database, self.collections, resumed.id if resumed else "")
        if resumed is None or not resumed.in_shadow:
            drop(self.store.database, map(shadow_name, self.collections))

    def _new(self) -> RebuildRecord:
        for item in self.store.projections:
            for warning in ensure_for_empty(self.store.live(item), item):
                self.run.warn(warning)
        in_shadow = self.request.strategy == "shadow"
        if in_shadow:
            # Before there is a record: what cannot have a shadow is refused for good.
            for live in self.collections:
                create_like(self.store.database, live, shadow_name(live))
        about: dict[str, Any] = {
            **identity_of(self.store, self.request),
            "read_models": self.collections,
            "names": [item.name for item in self.store.projections],
            "code_version": code_version(),
            "holder": self.run.holder,
            **({"shadows": self._shadows()} if in_shadow else {}),
            **self._tokens(in_shadow),
        }
        events = EventStore(self.store.events)
        ranges = plan_ranges(events, self.store.projections, self.run.workers, self.request.slices)
        return self.rebuilds.begin(uuid.uuid4().hex[:12], about, ranges)

    def _tokens(self, in_shadow: bool) -> dict[str, Any]:
        """From where to follow, taken before the first read."""
        try:
            tokens: dict[str, Any] = {"token": token_of_now(self.store.events)}
            if in_shadow:
                lives = {item.read_model: self.store.live(item) for item in self.store.projections}
                tokens["live_tokens"] = {read_model: token_of_now(live) for read_model, live in lives.items()}
            return tokens
        except NoHistory as error:
            if in_shadow:
                raise ReadModelError(
                    f"A shadow needs to follow what changes meanwhile, and {error}.",
                    hint="Rebuild with the strategy in_place.",
                ) from None
            return {"token": None, "no_history": str(error)}
