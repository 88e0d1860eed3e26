"""The end of a rebuild in a shadow after all ranges: indexes, catch-up, the gate, a copy, then the cut-over."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from readmodel_pipelines.cutover.built import built, drop
from readmodel_pipelines.cutover.definition import Like, ShadowFailed, bring_along, refuse_expiry
from readmodel_pipelines.cutover.foreign import LiveReplaced
from readmodel_pipelines.cutover.shadow import copy_on_server, sync_all_foreign
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import token_of_now
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.finish import check_history, refuse_lost, sink_in_place
from readmodel_pipelines.rebuild.gate import wrong_documents
from readmodel_pipelines.rebuild.left_out import LEFT_OUT, check_lives, leave_out, may_go_without, refuse, replaced
from readmodel_pipelines.rebuild.swap_in import swap_in
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import finding_of
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.side_by_side import side_by_side

_SHOWN = 3
_WHY_WRONG = (
    "Usually a validator refuses them (see the findings), or the projection makes different documents from the same "
    "events. In the second case correct the projection."
)


def finish_shadow(run: Run) -> None:
    """Index the shadows, catch up, verify them, copy the live collections, and replace these by the shadows.

    Raises:
        HistoryLost: all ranges must be done again.
        Refused: too many deletions, or a shadow differs from the events; the live collection is unchanged.
        ShadowFailed: two documents claim the same unique key, and the rebuild has no other read model.
    """
    catch_up = CatchUp(run.store, run.following, run.held.check)
    for item in run.store.projections:
        if run.record.shadows.get(item.read_model) == LEFT_OUT:
            leave_out(run, catch_up, item, "its shadow could not be created before this rebuild was interrupted")
    if run.record.state is not RebuildState.SWAPPING:
        run.check_window()
        try:
            _make_ready(run, catch_up)
        except LiveReplaced as error:
            raise refuse(run, replaced(run, str(error))) from None
    swap_in(run, catch_up)


def _make_ready(run: Run, catch_up: CatchUp) -> None:
    """All steps before the cut-over."""
    check_lives(run)
    run.on_phase("Every range is done. The indexes of the shadow are built, then the catch-up follows.")
    reached(Moment.SHADOW_INDEXES)
    with run.following.in_background():
        _define(run, catch_up, partial(check_history, run), verified=False)
    _mend(run)
    catch_up.until_small(run.shadows)
    run.check_window()
    _check_deletions(run, catch_up)
    reached(Moment.GATE)
    run.on_phase("Gate: the shadow is verified. The live collection is unchanged.")
    _pass_gate(run, catch_up)
    reached(Moment.GATE_PASSED)
    run.check_window()
    if run.store.settings.keep_copy:
        run.on_phase("The gate is passed. The live collection is copied for a rollback.")
    with run.following.in_background():
        copies = _keep_copies(run)
        # An index build may take long; afterwards little must be left for the cut-over.
        _define(run, catch_up)
    reached(Moment.COPY_MADE)
    catch_up.once(run.shadows)
    # The last moment at which the rebuild can be stopped.
    check_lives(run)
    refuse_lost(run)
    _check_deletions(run, catch_up)
    run.held.check()
    copies["copies"] = {name: copy for name, copy in copies["copies"].items() if name in run.shadows}
    run.to(RebuildState.SWAPPING, **copies)


def _define(run: Run, catch_up: CatchUp, *beside: Callable[[], None], verified: bool = True) -> None:
    """Give the shadows the definitions of the live collections; leave out a shadow with two documents of one key.

    What is `beside` is done at the same time; its errors come first.
    """

    def bring(item: Projection) -> ShadowFailed | None:
        live = run.store.live(item).name
        try:
            if not verified:
                refuse_expiry(run.store.database, live)
            bring_along(run.store.database, live, run.built[item.read_model], item)
        except ShadowFailed as error:
            return error
        return None

    items = run.store.projections
    # An index build also waits for the server's journal, so several take hardly longer than one.
    errors = side_by_side(*beside, *(partial(bring, item) for item in items))[len(beside) :]
    for item, error in zip(items, errors, strict=True):
        if error is not None:
            if len(run.store.projections) == 1:
                raise error
            leave_out(run, catch_up, item, str(error))


def _mend(run: Run) -> None:
    """After a second pass over shadows: write its deferred changes, and foreign fields that no stream followed."""
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
        sync_all_foreign(run.store.live(item), run.shadow(item), item)


def _check_deletions(run: Run, catch_up: CatchUp) -> None:
    lives = [run.store.live(item) for item in run.store.projections]
    there = side_by_side(*(live.estimated_document_count for live in lives))
    for item, documents in zip(run.store.projections, there, strict=True):
        counts = run.summary.read_models[item.read_model]
        # Documents that no range took over, or that a recheck removed, if events vanished meanwhile.
        deletions = counts.deleted + run.record.mended.get(item.read_model, 0)
        reached(Moment.DELETIONS_COUNTED)
        if not run.limit.allows(deletions, documents):
            refusal = run.limit.refusal(item.read_model, deletions, documents)
            if may_go_without(run, [item]):
                leave_out(run, catch_up, item, refusal)
                continue
            raise refuse(run, refusal)


def _pass_gate(run: Run, catch_up: CatchUp) -> None:
    wrong = wrong_documents(run, catch_up)
    if wrong and run.request.slice is not None:
        # A frozen run of a slice may have deleted a document after another run did that slice.
        catch_up.reconcile([item.aggregate_id for _, item in wrong if is_plain(item.aggregate_id)], run.shadows)
        wrong = wrong_documents(run, catch_up)
    if not wrong:
        return
    # The shadow lacks events that were corrected or removed meanwhile.
    check_history(run)
    names = {read_model for read_model, _ in wrong}
    items = [item for item in run.store.projections if item.read_model in names]
    if may_go_without(run, items):
        for item in items:
            leave_out(run, catch_up, item, f"its shadow differs from the events. {_WHY_WRONG}")
        # Findings beyond the limit may belong to the other read models.
        _pass_gate(run, catch_up)
        return
    for read_model, verdict in wrong:
        finding = finding_of(read_model, verdict)
        finding.failed = True
        run.summary.read_models[read_model].failed += 1
        run.summary.take_over([finding])
    some = ", ".join(
        f"{read_model} {verdict.aggregate_id}: {verdict.outcome}" for read_model, verdict in wrong[:_SHOWN]
    )
    raise refuse(
        run,
        f"The shadow of rebuild {run.record.id} differs from the events in {len(wrong):,} documents and was not cut "
        f"over: {some}. {_WHY_WRONG} `readmodel rebuilds abort "
        f"{run.record.id}` drops it.",
    )


def _keep_copies(run: Run) -> dict[str, Any]:
    """Keep only the last copy of each read model."""
    store = run.store
    lives = [store.live(item).name for item in store.projections]
    names = [[*store.copy_names(item), live] for item, live in zip(store.projections, lives, strict=True)]
    # Changes after the token may be missing in the copies.
    token, *there = side_by_side(
        partial(token_of_now, store.events), *(partial(built, store.database, each) for each in names)
    )
    # Read first, then confirmed: they do not belong to a run that took over.
    run.held.confirm()
    wanted: dict[str, Like] = {}
    for item, live, found in zip(store.projections, lives, there, strict=True):
        older = [fence for fence in found if fence.name != live]
        run.rebuilds.give_up_copies(item.read_model, [text for fence in older for text in (fence.identity, fence.name)])
        drop(store.database, older)
        if store.settings.keep_copy and len(older) < len(found):
            wanted[item.read_model] = Like(live, store.copy_names(item), [fence.name for fence in older])
    if not wanted:
        return {"copies": {}, "copy_token": token}
    made = copy_on_server(store.database, list(wanted.values()), run.held)
    kept = {"copies": {name: copy.identity for name, copy in zip(wanted, made, strict=True)}, "copy_token": token}
    run.rebuilds.note(run.record, **kept)
    return kept
