"""The end of a rebuild in a shadow, once all ranges are done: indexes, catch-up, the gate, a copy, the swap."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.cutover.shadow import (
    ShadowFailed,
    copy_on_server,
    drop,
    identity,
    index_like,
    swap,
    sync_foreign,
)
from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost, token_of_now
from readmodel_pipelines.mongo.driver import there
from readmodel_pipelines.projections.names import BUILT_IN
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.finish import Refused, catch_up_in_place, check_history, sink_in_place
from readmodel_pipelines.rebuild.gate import what_is_wrong
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import finding_of
from readmodel_pipelines.reconcile.summary import Summary

_SHOWN = 3
_WHOM_TO_TELL = "Tell whoever wrote the projection."
_LEFT_OUT = ""
"""Stands on the record for the shadow of a read model that is left out."""


def finish_shadow(run: Run) -> None:
    """Index the shadows, catch up, verify them, keep a copy of what was, and put them in its place.

    Raises:
        HistoryLost: do all ranges again.
        Refused: too many deletions, or the shadow is not right; the live collection is untouched.
        ShadowFailed: two documents want the same unique key, and there is no other read model to go on with.
    """
    catch_up = CatchUp(run.store, run.following, run.held.check)
    for item in run.store.projections:
        if run.record.shadows.get(item.read_model) == _LEFT_OUT:
            _leave_out(run, catch_up, item, "its shadow could not be had before this rebuild was interrupted")
    if run.record.state is not RebuildState.SWAPPING:
        run.check_window()
        check_history(run)
        run.on_phase("Every range is done. The shadow gets its indexes, and catches up with what writers did.")
        reached(Moment.SHADOW_INDEXES)
        with run.following.in_background():
            _index(run, catch_up)
        _mend(run)
        catch_up.until_small(run.shadows)
        run.check_window()
        _check_deletions(run, catch_up)
        reached(Moment.GATE)
        run.on_phase("Gate: the shadow is verified; the live collection is still as it was.")
        _pass_gate(run, catch_up)
        reached(Moment.GATE_PASSED)
        run.check_window()
        if run.store.settings.keep_copy:
            run.on_phase("The gate is passed. A copy of the live collection is made, for a rollback.")
        with run.following.in_background():
            copies = _keep_copies(run)
        reached(Moment.COPY_MADE)
        catch_up.once(run.shadows)
        # The last moment to turn back.
        check_history(run)
        _check_deletions(run, catch_up)
        run.held.check()
        copies["copies"] = {name: copy for name, copy in copies["copies"].items() if name in run.shadows}
        run.to(RebuildState.SWAPPING, **copies)
    _swap(run, catch_up)
    forget(run.store.database, run.record.read_models, run.record.id)


def _index(run: Run, catch_up: CatchUp) -> None:
    """Give the shadows the indexes of the live collections; where two documents want one key, there is none."""
    for item in run.store.projections:
        try:
            index_like(run.store.database, run.store.live(item).name, run.store.shadow(item).name, item)
        except ShadowFailed as error:
            if len(run.store.projections) == 1:
                raise
            _leave_out(run, catch_up, item, str(error))


def _leave_out(run: Run, catch_up: CatchUp, item: Projection, why: str) -> None:
    """This read model stays what it was, and the others go on without it."""
    counts = run.summary.read_models[item.read_model]
    counts.failed += counts.written
    counts.inserted = counts.replaced = counts.deleted = 0
    run.warn(f"{item.read_model} was left out, and is what it was: {why}")
    run.record = replace(run.record, shadows={**run.record.shadows, item.read_model: _LEFT_OUT})
    run.rebuilds.note(run.record, shadows=run.record.shadows)
    drop(run.store.database, [run.store.shadow(item).name])
    run.store = catch_up.store = run.store.of(other for other in run.store.projections if other is not item)


def _may_go_without(run: Run, items: Collection[Projection]) -> bool:
    """Whether these were added, so that no fault of theirs may stop the others; and there are others."""
    return len(items) < len(run.store.projections) and not any(item.name in BUILT_IN for item in items)


def _mend(run: Run) -> None:
    """After a second pass over shadows: what it put off, and foreign fields that nobody followed."""
    if run.record.first_pass:
        return
    scratch = Summary("rebuild", "", 0, read_models=counts_of(run.store.projections))
    opened = OpenedPass(run.store, scratch.read_models, run.claims, shadows=run.shadows)
    for lane in opened.lanes:
        item, name = lane.projection, lane.projection.read_model
        sink_in_place(run, opened.again(lane), scratch, DeletionLimit(None)).finish()
        mended = {**run.record.mended, name: run.record.mended.get(name, 0) + lane.counts.deleted}
        run.record = replace(run.record, mended=mended)
        run.rebuilds.note(run.record, mended=mended)
        sync_foreign(run.store.live(item), run.store.shadow(item), item, {})


def _check_deletions(run: Run, catch_up: CatchUp) -> None:
    for item in run.store.projections:
        counts = run.summary.read_models[item.read_model]
        documents = run.store.live(item).estimated_document_count()
        # What the ranges did not take over, and what a second look took out, should events have vanished meanwhile.
        deletions = counts.deleted + run.record.mended.get(item.read_model, 0)
        reached(Moment.DELETIONS_COUNTED)
        if not run.limit.allows(deletions, documents):
            refusal = run.limit.refusal(item.read_model, deletions, documents)
            if _may_go_without(run, [item]):
                _leave_out(run, catch_up, item, refusal)
                continue
            _take_back(run)
            raise Refused(refusal)


def _take_back(run: Run) -> None:
    """Nothing of it is written, and the counts must not say so."""
    for item in run.store.projections:
        counts = run.summary.read_models[item.read_model]
        counts.inserted = counts.replaced = counts.deleted = 0


def _pass_gate(run: Run, catch_up: CatchUp) -> None:
    wrong = what_is_wrong(run, catch_up)
    if not wrong:
        return
    names = {read_model for read_model, _ in wrong}
    items = [item for item in run.store.projections if item.read_model in names]
    if _may_go_without(run, items):
        for item in items:
            _leave_out(run, catch_up, item, f"its shadow is not what the events say. {_WHOM_TO_TELL}")
        # What there was too much of to be held may be of the others.
        _pass_gate(run, catch_up)
        return
    _take_back(run)
    for read_model, verdict in wrong:
        finding = finding_of(read_model, verdict)
        finding.failed = True
        run.summary.read_models[read_model].failed += 1
        run.summary.take_over([finding])
    some = ", ".join(
        f"{read_model} {verdict.aggregate_id}: {verdict.outcome}" for read_model, verdict in wrong[:_SHOWN]
    )
    raise Refused(
        f"The shadow of rebuild {run.record.id} is not what the events say in {len(wrong):,} documents, and did "
        f"not take the place of the live one: {some}. {_WHOM_TO_TELL} `readmodel rebuilds abort "
        f"{run.record.id}` drops it."
    )


def _keep_copies(run: Run) -> dict[str, Any]:
    """One copy of a read model is kept: the last."""
    # What happens from here on is not in the copies for certain.
    store = run.store
    token = token_of_now(store.events)
    names = {item.read_model: store.copy(item).name for item in store.projections}
    # The copies of whoever took over would have the same names.
    run.held.check()
    run.rebuilds.keep_copies(run.record, names, token)
    drop(store.database, names.values())
    copies = {}
    for item in store.projections:
        if store.settings.keep_copy and there(store.database, [store.live(item).name]):
            copies[item.read_model] = names[item.read_model]
            copy_on_server(store.database, store.live(item).name, names[item.read_model])
    return {"copies": copies, "copy_token": token}


def _swap(run: Run, catch_up: CatchUp) -> None:
    """Of a run that was killed meanwhile some are swapped already: those have no shadow any more.

    One of that name that is not the one that was built was made by a run that did not know yet that its lease is lost.
    """
    run.on_phase("Swap: the shadow takes the live collection's place, with one rename.")
    store, built = run.store, run.record.shadows
    left = {
        item.read_model
        for item in store.projections
        if built.get(item.read_model) == identity(store.database, store.shadow(item).name)
    }
    catch_up.once(left)
    for item in run.store.projections:
        if item.read_model in left:
            run.held.check()
            # As late as can be: what comes after this is in the change stream alone.
            catch_up.foreign_once(item, left)
            reached(Moment.LAST_LOOK_DONE)
            # Were the lease lost, this might be the half-built shadow of whoever took over.
            run.held.check()
            swap(store.database, store.shadow(item).name, store.live(item).name)
        _apply_foreign(run, item)
    try:
        catch_up.once(())
        for item in run.store.projections:
            # To documents that were not there before.
            _apply_foreign(run, item)
        catch_up_in_place(run, catch_up)
        if run.following.lost:
            raise HistoryLost(run.following.lost)
    except HistoryLost as error:
        _look_at_everything(run, error)


def _apply_foreign(run: Run, projection: Projection) -> None:
    follower = run.following.foreign.get(projection.read_model)
    if follower is None:
        return
    try:
        follower.apply(run.store.live(projection))
    except HistoryLost as error:
        run.following.lost = str(error)
    if follower.not_applied:
        some = ", ".join(map(str, follower.not_applied[:_SHOWN]))
        run.warn(
            f"{projection.read_model}: what others wrote into fields of their own right at the swap could not be "
            f"carried over to {len(follower.not_applied):,} documents: {some}."
        )
        follower.not_applied.clear()


def _look_at_everything(run: Run, why: HistoryLost) -> None:
    """After a swap there is no way back to the ranges: one pass in place instead."""
    run.following.lost = ""
    # All that was put off is done, and all that was touched is looked at now.
    forget(run.store.database, run.record.read_models, run.record.id)
    summary = Summary("rebuild", "", 0, read_models=counts_of(run.store.projections))
    opened = OpenedPass(run.store, summary.read_models, run.claims)
    sinks = opened.into(lambda lane: sink_in_place(run, opened.again(lane), summary, run.limit), summary)
    opened.reconcile_odd_ids()
    opened.reconcile()
    for sink in sinks:
        sink.finish()
    run.summary.warnings += [
        f"What happened around the swap is not known, so everything was looked at again: {why}. "
        "Foreign fields that others wrote within that moment may be missing.",
        *summary.warnings,
    ]
    for name, counts in summary.read_models.items():
        run.summary.read_models[name].failed += counts.failed
