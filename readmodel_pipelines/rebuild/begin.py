"""Finds the rebuild of a run: the unfinished one that it resumes, or a new one. Drops one that cannot be resumed."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget_killed
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.cutover.built import built, drop, identities
from readmodel_pipelines.cutover.definition import Like, create_like, refuse_expiry
from readmodel_pipelines.errors import LeaseLost, ReadModelBusy, ReadModelError
from readmodel_pipelines.mongo.changes import NoHistory, token_of_now
from readmodel_pipelines.mongo.driver import server_time, there
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.indexes import ensure_for_empty
from readmodel_pipelines.mongo.kinds import kinds_remembered
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED, shadow_names
from readmodel_pipelines.rebuild.request import Slice, code_version, identity_of, why_not_resumable
from readmodel_pipelines.rebuild.this_run import Held, Run
from readmodel_pipelines.rebuild.verbs import drop_aborted, drop_left
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.side_by_side import side_by_side
from readmodel_pipelines.spread import plan_ranges

_PLAN_SECONDS = 30.0


def begin_alone(run: Run, *, resume: bool) -> None:
    """The rebuild of a run that alone holds the leases of the read models."""
    unfinished = _unfinished(run)
    record = _swapping(run, unfinished) or (_resumable(run, unfinished) if resume else None)
    before = [fence.name for fence in built(run.store.database, _of_all(run.collections, shadow_names))]
    run.held.confirm()
    for other in unfinished:
        if record is None or other.id != record.id:
            taken = run.rebuilds.taken_over(other, run.held.confirm)
            drop_aborted(run.store.database, run.rebuilds.to(taken, RebuildState.ABORTED))
            run.warn(f"Rebuild {other.id} was unfinished ({other.state}) and was dropped.")
    run.rebuilds.refuse_way_back(run.collections)
    _sweep(run, record)
    if record is None:
        _new(run, before)
    else:
        run.take_over(record)


def begin_with_others(run: Run, part: Slice) -> RebuildRecord | None:
    """The record that all slices share; None if the slice's rebuild is already done."""
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
    # Another run must not work on these read models while a rebuild begins.
    with run.hold(run.collections) as held:
        run.held = Held([held])
        begin_alone(run, resume=False)
        return run.record


def _belongs_to(run: Run, done: RebuildRecord, part: Slice) -> bool:
    """Whether the slice is late for a finished rebuild: of its campaign, or one that it did not take part in."""
    if run.request.campaign or any(done.campaigns):
        return run.request.campaign in done.campaigns
    return not _why_not_resumable(run, done) and part.number not in done.reported


def _why_not_resumable(run: Run, record: RebuildRecord) -> str:
    age = record.age_seconds(server_time(run.store.database))
    return why_not_resumable(
        record.stored, identity_of(run.store, run.request), age, run.store.settings.rebuild_valid_days
    )


def _unfinished(run: Run) -> list[RebuildRecord]:
    """The unfinished rebuilds of these read models.

    Raises:
        ReadModelError: a rollback was interrupted, so its documents are stale.
    """
    unfinished = run.rebuilds.unfinished(run.collections)
    for record in unfinished:
        if record.state is RebuildState.ROLLING_BACK:
            raise ReadModelError(
                f"The rollback of rebuild {record.id} of {' and '.join(record.read_models)} was interrupted. It must "
                "be finished first.",
                hint=f"`readmodel rebuilds rollback {record.id}` continues it.",
            )
    return unfinished


def _shadow_is_lost(run: Run, record: RebuildRecord) -> str:
    if set(record.shadows.values()) - {"", *_there(run)}:
        return "its shadow no longer exists"
    is_other = record.lives.items() - _lives(run).items()
    return "its live collection was dropped or replaced" if is_other else ""


def _there(run: Run) -> set[str]:
    return {fence.identity for fence in built(run.store.database, _of_all(run.collections, shadow_names))}


def _lives(run: Run) -> dict[str, str]:
    """The UUIDs of the live collections, which identify them if others replace them."""
    lives = {item.read_model: run.store.live(item).name for item in run.store.projections}
    found = identities(run.store.database, lives.values())
    return {read_model: found[live] for read_model, live in lives.items() if live in found}


def _resumable(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    for record in unfinished:
        if record.read_models == run.collections:
            why = _why_not_resumable(run, record)
            if record.in_shadow and record.state is not RebuildState.SWAPPING:
                why = why or _shadow_is_lost(run, record)
            if not why:
                return record
            run.warn(f"Rebuild {record.id} is not resumed: {why}.")
    return None


def _swapping(run: Run, unfinished: Iterable[RebuildRecord]) -> RebuildRecord | None:
    """Refuse to drop a rebuild that was killed during its cut-over, because it can only be continued."""
    for record in unfinished:
        if record.state is RebuildState.SWAPPING:
            if record.read_models != run.collections:
                of = record.names[0] if len(record.names) == 1 else "all"
                raise ReadModelError(
                    f"Rebuild {record.id} of {' and '.join(record.read_models)} was interrupted during its cut-over. "
                    "It must be finished first.",
                    hint=f"`readmodel rebuild-readmodel --type {of} --all --strategy shadow --resume` resumes it. "
                    f"`readmodel rebuilds abort {record.id}` aborts it.",
                )
            run.warn(f"Rebuild {record.id} was interrupted during its cut-over. It was finished first.")
            return record
    return None


def _of_all(lives: Sequence[str], names: Callable[[str], Sequence[str]]) -> list[str]:
    return [name for live in lives for name in names(live)]


def _sweep(run: Run, resumed: RebuildRecord | None) -> None:
    """Delete the remains of killed runs whose rebuilds nobody will continue."""
    database = run.store.database
    forget_killed(database, run.collections, resumed.id if resumed else "", there(database, (DEFERRED, TOUCHED)))
    drop_left(database, run.rebuilds, run.collections, run.held.confirm)


def _new(run: Run, before: Sequence[str]) -> None:
    run.built = {}
    try:
        _make(run, before)
    except ReadModelError:
        # No record names them yet, and the run that takes over may work on only one of the read models.
        drop(run.store.database, run.built.values())
        raise


def _make(run: Run, before: Sequence[str]) -> None:
    in_shadow = run.request.strategy == "shadow"
    # A rebuild in place remembers them anyway.
    with kinds_remembered() if in_shadow else nullcontext():
        indexed = (partial(ensure_for_empty, run.store.live(item), item) for item in run.store.projections)
        for warning in chain.from_iterable(side_by_side(*indexed)):
            run.warn(warning)
        # Before the record exists: a read model that cannot have a shadow is refused permanently.
        for live in run.collections if in_shadow else ():
            refuse_expiry(run.store.database, live)
    events = EventStore(run.store.events)
    tokens, ranges, *about_shadows = side_by_side(
        partial(_tokens, run, in_shadow),
        partial(plan_ranges, events, run.store.projections, run.workers, run.request.slices),
        *((partial(_make_shadows, run, before), partial(_lives, run)) if in_shadow else ()),
    )
    about: dict[str, Any] = {
        **identity_of(run.store, run.request),
        "read_models": run.collections,
        "names": [item.name for item in run.store.projections],
        "code_version": code_version(),
        "holder": run.holder,
        **dict(zip(("shadows", "lives"), about_shadows, strict=False)),
        **tokens,
    }
    run.record = run.rebuilds.begin(uuid.uuid4().hex[:12], about, ranges)
    try:
        run.held.confirm()
    except LeaseLost:
        # Nobody works on this record.
        run.rebuilds.withdraw(run.record)
        raise


def _make_shadows(run: Run, before: Sequence[str]) -> dict[str, str]:
    """Create the shadows; returns their UUIDs."""
    wanted = [Like(run.store.live(item).name, run.store.shadow_names(item), before) for item in run.store.projections]
    shadows = create_like(run.store.database, wanted, run.held)
    run.built = {item.read_model: shadow for item, shadow in zip(run.store.projections, shadows, strict=True)}
    return {read_model: shadow.identity for read_model, shadow in run.built.items()}


def _tokens(run: Run, in_shadow: bool) -> dict[str, Any]:
    """The tokens from which to follow changes, taken before the first read."""
    try:
        lives = {item.read_model: run.store.live(item) for item in run.store.projections} if in_shadow else {}
        of_events, *of_lives = side_by_side(
            *(partial(token_of_now, collection) for collection in (run.store.events, *lives.values()))
        )
        tokens = {"token": of_events}
        return tokens | {"live_tokens": dict(zip(lives, of_lives, strict=True))} if in_shadow else tokens
    except NoHistory as error:
        if in_shadow:
            raise ReadModelError(
                f"A rebuild in a shadow needs change streams, and {error}.", hint="Rebuild with --strategy in_place."
            ) from None
        return {"token": None, "no_history": str(error)}
