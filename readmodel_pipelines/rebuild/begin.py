"""Which rebuild a run works on: the unfinished one that it resumes, or a new one; what cannot be resumed is dropped."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget_killed
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.cutover.built import built, drop, identity
from readmodel_pipelines.cutover.definition import create_like, refuse_expiry
from readmodel_pipelines.errors import LeaseLost, ReadModelBusy, ReadModelError
from readmodel_pipelines.mongo.changes import NoHistory, token_of_now
from readmodel_pipelines.mongo.driver import server_time, there
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED, shadow_names
from readmodel_pipelines.rebuild.request import Slice, code_version, identity_of, why_anew
from readmodel_pipelines.rebuild.this_run import Held, Run
from readmodel_pipelines.rebuild.verbs import drop_aborted, drop_left
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.spread import plan_ranges

_PLAN_SECONDS = 30.0


def begin_alone(run: Run, *, resume: bool) -> None:
    """For a run that holds the leases of the read models for itself."""
    unfinished = _unfinished(run)
    record = _swapping(run, unfinished) or (_resumable(run, unfinished) if resume else None)
    before = [fence.name for fence in built(run.store.database, _of_all(run.collections, shadow_names))]
    run.held.confirm()
    for other in unfinished:
        if record is None or other.id != record.id:
            taken = run.rebuilds.taken_over(other, run.held.confirm)
            drop_aborted(run.store.database, run.rebuilds.to(taken, RebuildState.ABORTED))
            run.warn(f"Rebuild {other.id}, which was {other.state}, was dropped.")
    run.rebuilds.refuse_way_back(run.collections)
    _sweep(run, record)
    if record is None:
        _new(run, before)
    else:
        run.take_over(record)


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
    record = _resumable(run, _unfinished(run))
    if record is not None:
        run.rebuilds.joined(record)
        return record
    last = run.rebuilds.last_done(run.collections)
    if last is not None and _belongs_to(run, last, part):
        run.rebuilds.report(last, part.number, run.request.campaign)
        return None
    # Nobody else may be at work on these read models when another rebuild is begun.
    with run.hold(run.collections) as held:
        run.held = Held([held])
        begin_alone(run, resume=False)
        return run.record


def _belongs_to(run: Run, done: RebuildRecord, part: Slice) -> bool:
    """Whether a slice comes late to a rebuild that is done: of its campaign, or one that it was no part of yet."""
    if run.request.campaign or any(done.campaigns):
        return run.request.campaign in done.campaigns
    return not _why_anew(run, done) and part.number not in done.reported


def _why_anew(run: Run, record: RebuildRecord) -> str:
    age = record.age_seconds(server_time(run.store.database))
    return why_anew(record.stored, identity_of(run.store, run.request), age, run.store.settings.rebuild_valid_days)


def _unfinished(run: Run) -> list[RebuildRecord]:
    """The unfinished ones of these read models.

    Raises:
        ReadModelError: one is rolled back: what it puts back is not caught up with yet.
    """
    unfinished = run.rebuilds.unfinished(run.collections)
    for record in unfinished:
        if record.state is RebuildState.ROLLING_BACK:
            raise ReadModelError(
                f"The rollback of rebuild {record.id} of {' and '.join(record.read_models)} was interrupted, and must "
                "be ended first.",
                hint=f"It goes on with `readmodel rebuilds rollback {record.id}`.",
            )
    return unfinished


def _shadow_is_lost(run: Run, record: RebuildRecord) -> str:
    if set(record.shadows.values()) - {"", *_there(run)}:
        return "its shadow is not there any more"
    is_other = record.lives.items() - _lives(run).items()
    return "its live collection was dropped, or another one took its place" if is_other else ""


def _there(run: Run) -> set[str]:
    return {fence.identity for fence in built(run.store.database, _of_all(run.collections, shadow_names))}


def _lives(run: Run) -> dict[str, str]:
    """What tells the live collections that are there from others that come in their place."""
    found = {item.read_model: identity(run.store.database, run.store.live(item).name) for item in run.store.projections}
    return {read_model: live for read_model, live in found.items() if live}


def _identities(run: Run) -> dict[str, Any]:
    return {"shadows": {name: fence.identity for name, fence in run.built.items()}, "lives": _lives(run)}


def _resumable(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    for record in unfinished:
        if record.read_models == run.collections:
            why = _why_anew(run, record)
            if record.in_shadow and record.state is not RebuildState.SWAPPING:
                why = why or _shadow_is_lost(run, record)
            if not why:
                return record
            run.warn(f"Rebuild {record.id} is not resumed: {why}.")
    return None


def _swapping(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    """One that was killed while it took the place of the live collection can only go forward."""
    for record in unfinished:
        if record.state is RebuildState.SWAPPING:
            if record.read_models != run.collections:
                of = record.names[0] if len(record.names) == 1 else "all"
                raise ReadModelError(
                    f"Rebuild {record.id} of {' and '.join(record.read_models)} was interrupted while it "
                    "was swapped in, and must be ended first.",
                    hint=f"Resume it: `readmodel rebuild-readmodel --type {of} --all --strategy shadow --resume`. "
                    f"Or give it up: `readmodel rebuilds abort {record.id}`.",
                )
            run.warn(f"Rebuild {record.id}, which was interrupted while it was swapped in, was ended first.")
            return record
    return None


def _of_all(lives: Sequence[str], names: Callable[[str], Sequence[str]]) -> list[str]:
    return [name for live in lives for name in names(live)]


def _sweep(run: Run, resumed: RebuildRecord | None) -> None:
    """Delete what killed runs left of rebuilds that nobody goes on with."""
    database = run.store.database
    forget_killed(database, run.collections, resumed.id if resumed else "", there(database, (DEFERRED, TOUCHED)))
    drop_left(database, run.rebuilds, run.collections, run.held.confirm)


def _new(run: Run, before: Sequence[str]) -> None:
    run.built = {}
    try:
        _make(run, before)
    except ReadModelError:
        # There is no record of them yet, and whoever takes over may have to do with one of the read models alone.
        drop(run.store.database, run.built.values())
        raise


def _make(run: Run, before: Sequence[str]) -> None:
    for item in run.store.projections:
        for warning in ensure_for_empty(run.store.live(item), item):
            run.warn(warning)
    in_shadow = run.request.strategy == "shadow"
    if in_shadow:
        # Before there is a record: what cannot have a shadow is refused for good.
        for live in run.collections:
            refuse_expiry(run.store.database, live)
        for item in run.store.projections:
            live, names = run.store.live(item).name, run.store.shadow_names(item)
            taken = [name for name in before if name in names]
            shadow = create_like(run.store.database, live, names, run.held, taken)
            run.built = {**run.built, item.read_model: shadow}
    about: dict[str, Any] = {
        **identity_of(run.store, run.request),
        "read_models": run.collections,
        "names": [item.name for item in run.store.projections],
        "code_version": code_version(),
        "holder": run.holder,
        **(_identities(run) if in_shadow else {}),
        **_tokens(run, in_shadow),
    }
    events = EventStore(run.store.events)
    ranges = plan_ranges(events, run.store.projections, run.workers, run.request.slices)
    run.record = run.rebuilds.begin(uuid.uuid4().hex[:12], about, ranges)
    try:
        run.held.confirm()
    except LeaseLost:
        # It was begun for nobody.
        run.rebuilds.withdraw(run.record)
        raise


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
