"""Which rebuild a run works on: the unfinished one that it resumes, or a new one; what cannot be resumed is dropped."""

import time
import uuid
from collections.abc import Iterable
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget_killed
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord
from readmodel_pipelines.cutover.shadow import create_like, drop, identity
from readmodel_pipelines.errors import ReadModelBusy, ReadModelError
from readmodel_pipelines.mongo.changes import NoHistory, token_of_now
from readmodel_pipelines.mongo.driver import server_time, there
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED, shadow_name
from readmodel_pipelines.rebuild.request import Slice, code_version, identity_of, why_anew
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild.verbs import drop_aborted
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.spread import plan_ranges

_PLAN_SECONDS = 30.0


def begin_alone(run: Run, *, resume: bool) -> RebuildRecord:
    """For a run that holds the leases of the read models for itself."""
    unfinished = run.rebuilds.unfinished(run.collections)
    record = _swapping(run, unfinished) or (_resumable(run, unfinished) if resume else None)
    for other in unfinished:
        if record is None or other.id != record.id:
            drop_aborted(run.store.database, run.rebuilds.to(other, RebuildState.ABORTED), run.collections)
            run.warn(f"Rebuild {other.id}, which was {other.state}, was dropped.")
    _sweep(run, record)
    return record or _new(run)


def begin_with_others(run: Run, part: Slice) -> RebuildRecord | None:
    """For a slice: the record that all slices share; None when the rebuild that it belongs to is done already."""
    deadline = time.monotonic() + _PLAN_SECONDS
    plan = f"{run.collections[0]}/plan"
    while True:
        try:
            with run.hold([plan]):
                record = _shared(run, part)
                if record is not None:
                    run.rebuilds.report(record, part.number, run.request.campaign)
                return record
        except ReadModelBusy as error:
            if error.on != plan or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _shared(run: Run, part: Slice) -> RebuildRecord | None:
    record = _resumable(run, run.rebuilds.unfinished(run.collections))
    if record is not None:
        return record
    last = run.rebuilds.last_done(run.collections)
    if last is not None and _belongs_to(run, last, part):
        run.rebuilds.report(last, part.number, run.request.campaign)
        return None
    # Nobody else may be at work on these read models when another rebuild is begun.
    with run.hold(run.collections):
        return begin_alone(run, resume=False)


def _belongs_to(run: Run, done: RebuildRecord, part: Slice) -> bool:
    """Whether a slice comes late to a rebuild that is done: of its campaign, or one that it was no part of yet."""
    if run.request.campaign or any(done.campaigns):
        return run.request.campaign in done.campaigns
    return not _why_anew(run, done) and part.number not in done.reported


def _why_anew(run: Run, record: RebuildRecord) -> str:
    age = record.age_seconds(server_time(run.store.database))
    return why_anew(record.stored, identity_of(run.store, run.request), age, run.store.settings.rebuild_valid_days)


def _shadows(run: Run) -> dict[str, str]:
    """What tells these shadows from others of the same name."""
    shadows = {item.read_model: run.store.shadow(item).name for item in run.store.projections}
    return {read_model: identity(run.store.database, shadow) for read_model, shadow in shadows.items()}


def _resumable(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    for record in unfinished:
        if record.read_models == run.collections:
            why = _why_anew(run, record)
            if record.in_shadow and record.state is not RebuildState.SWAPPING and record.shadows != _shadows(run):
                why = why or "its shadow is not there any more"
            if not why:
                run.rebuilds.resumed(record)
                return record
            run.warn(f"Rebuild {record.id} is not resumed: {why}.")
    return None


def _swapping(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    """One that was killed while it took the place of the live collection can only go forward."""
    for record in unfinished:
        if record.state is RebuildState.SWAPPING:
            if record.read_models != run.collections:
                raise ReadModelError(
                    f"Rebuild {record.id} of {' and '.join(record.read_models)} was interrupted while it "
                    "was swapped in, and must be ended first.",
                    hint="Resume it: `readmodel rebuild-readmodel --type all --all --strategy shadow --resume`.",
                )
            run.warn(f"Rebuild {record.id}, which was interrupted while it was swapped in, was ended first.")
            return record
    return None


def _sweep(run: Run, resumed: RebuildRecord | None) -> None:
    """Delete what killed runs left of rebuilds that nobody goes on with."""
    database, shadows = run.store.database, [shadow_name(live) for live in run.collections]
    left = there(database, (DEFERRED, TOUCHED, *shadows))
    forget_killed(database, run.collections, resumed.id if resumed else "", left)
    if resumed is None or not resumed.in_shadow:
        drop(database, [name for name in shadows if name in left])


def _new(run: Run) -> RebuildRecord:
    for item in run.store.projections:
        for warning in ensure_for_empty(run.store.live(item), item):
            run.warn(warning)
    in_shadow = run.request.strategy == "shadow"
    if in_shadow:
        # Before there is a record: what cannot have a shadow is refused for good.
        for live in run.collections:
            create_like(run.store.database, live, shadow_name(live))
    about: dict[str, Any] = {
        **identity_of(run.store, run.request),
        "read_models": run.collections,
        "names": [item.name for item in run.store.projections],
        "code_version": code_version(),
        "holder": run.holder,
        **({"shadows": _shadows(run)} if in_shadow else {}),
        **_tokens(run, in_shadow),
    }
    events = EventStore(run.store.events)
    ranges = plan_ranges(events, run.store.projections, run.workers, run.request.slices)
    return run.rebuilds.begin(uuid.uuid4().hex[:12], about, ranges)


def _tokens(run: Run, in_shadow: bool) -> dict[str, Any]:
    """From where to follow, taken before the first read."""
    try:
        tokens: dict[str, Any] = {"token": token_of_now(run.store.events)}
        if in_shadow:
            lives = {item.read_model: run.store.live(item) for item in run.store.projections}
            tokens["live_tokens"] = {read_model: token_of_now(live) for read_model, live in lives.items()}
        return tokens
    except NoHistory as error:
        if in_shadow:
            raise ReadModelError(
                f"A shadow needs to follow what changes meanwhile, and {error}.",
                hint="Rebuild with the strategy in_place.",
            ) from None
        return {"token": None, "no_history": str(error)}
