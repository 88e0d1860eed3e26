"""The swap of a rebuild in a shadow: one read model after another, with what happens to the live ones at that moment.

Whether one is swapped in tells the live collection alone: it is the one that was built. Until the first one is, all of
it can be refused; from then on a read model that cannot be swapped in is left out.
"""

from readmodel_pipelines.cutover.built import identity
from readmodel_pipelines.cutover.definition import ShadowFailed, bring_along, do_again, parts, redefined_since
from readmodel_pipelines.cutover.foreign import LiveReplaced
from readmodel_pipelines.cutover.shadow import sync_all_foreign
from readmodel_pipelines.cutover.swap import NotThere, swap
from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import OperationFailure
from readmodel_pipelines.mongo.failures import is_the_servers
from readmodel_pipelines.mongo.fenced import Fence
from readmodel_pipelines.mongo.store import NO_SHADOWS, Shadows
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.finish import catch_up_in_place, check_history, sink_in_place
from readmodel_pipelines.rebuild.left_out import leave_out, refuse, replaced
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.reconcile.summary import Summary

_SHOWN = 3
_LOOKS = 5
"""So often a definition that changes all the time is brought along before the swap; the rest comes after it."""


def swap_in(run: Run, catch_up: CatchUp) -> None:
    """Put the shadows in the place of the live collections, and catch up with what happened around that moment.

    Raises:
        HistoryLost: nothing was swapped in; do all ranges again.
        Refused: nothing was swapped in, and nothing can be.
        SwapBlocked: others had a live collection locked at each try; resume.
    """
    run.on_phase("Cut-over: one rename puts the shadow in the place of the live collection.")
    database, built = run.store.database, run.record.shadows
    to_swap = {
        item.read_model
        for item in run.store.projections
        if identity(database, run.store.live(item).name) != built.get(item.read_model)
    }
    swapped = len(to_swap) < len(run.store.projections)
    left = {name: fence for name, fence in run.shadows.items() if name in to_swap}
    for item in run.store.projections:
        if item.read_model in to_swap - left.keys():
            _give_up(run, catch_up, item, NotThere(f"of {item.read_model}"), swapped)
    try:
        if not swapped:
            check_history(run)
        catch_up.once(left)
    except (LiveReplaced, ShadowFailed) as error:
        if swapped:
            raise
        raise refuse(run, _why(run, error)) from None
    for item in run.store.projections:
        if item.read_model in left:
            try:
                _swap(run, catch_up, item, left, may_turn_back=not swapped)
            except (LiveReplaced, NotThere, ShadowFailed) as error:
                _give_up(run, catch_up, item, error, swapped)
                continue
            finally:
                del left[item.read_model]
            swapped = True
        _apply_late(run, item)
    try:
        catch_up.once(NO_SHADOWS)
        for item in run.store.projections:
            # To documents that were not there before.
            _apply_late(run, item)
        catch_up_in_place(run, catch_up)
        if run.following.lost:
            raise HistoryLost(run.following.lost)
    except HistoryLost as error:
        _look_at_everything(run, error)


def _swap(run: Run, catch_up: CatchUp, item: Projection, left: Shadows, *, may_turn_back: bool) -> None:
    database, follower = run.store.database, run.following.foreign.get(item.read_model)
    live, shadow = run.store.live(item).name, left[item.read_model]

    def look() -> None:
        """As late as can be: what comes after this is in the change stream alone."""
        run.held.check()
        for _ in range(_LOOKS):
            if follower is not None:
                follower.redefined.clear()
            if not bring_along(database, live, shadow, item):
                break
            # An index takes its time.
            catch_up.once(left)
        catch_up.foreign_once(item, left)
        if run.following.lost and may_turn_back:
            raise HistoryLost(run.following.lost)
        if run.following.lost:
            # Nobody tells which of them others changed.
            sync_all_foreign(run.store.live(item), run.store.shadow(item, left), item)
        reached(Moment.LAST_LOOK_DONE)
        run.held.check()

    before = run.record.lives.get(item.read_model, "")
    swap(database, shadow, live, run.store.settings, before=before, look=look, say=run.on_phase)


def _give_up(run: Run, catch_up: CatchUp, item: Projection, error: Exception, swapped: bool) -> None:
    why = _why(run, error)
    if not swapped:
        raise refuse(run, why)
    leave_out(run, catch_up, item, why)


def _why(run: Run, error: Exception) -> str:
    match error:
        case LiveReplaced():
            return replaced(run, str(error))
        case NotThere():
            return f"The shadow {error} is not there any more, or is another one: it is to be built anew."
        case _:
            return str(error)


def _apply_late(run: Run, projection: Projection) -> None:
    """What others did to the live collection between the last look at it and the swap is done to the new one."""
    read_model = projection.read_model
    follower = run.following.foreign.get(read_model)
    if follower is None:
        return
    live = run.store.live(projection)
    try:
        follower.apply(live)
    except HistoryLost as error:
        run.following.lost = str(error)
    if follower.not_applied:
        some = ", ".join(map(str, follower.not_applied[:_SHOWN]))
        run.warn(
            f"{projection.read_model}: foreign fields written right at the cut-over could not be carried over to "
            f"{len(follower.not_applied):,} documents: {some}."
        )
        follower.not_applied.clear()
    newer = redefined_since(live, follower.renamed_at) if follower.redefined and follower.renamed_at else set()
    for change in follower.redefined:
        if parts(change) & newer:
            # Somebody had another mind of it meanwhile.
            continue
        try:
            do_again(run.store.database, Fence(live.name, run.record.shadows[read_model]), change, projection)
        except OperationFailure as error:
            if is_the_servers(error.code):
                raise
            run.warn(
                f"{live.name}: a change of its definition right at the cut-over ({change['operationType']}) could not "
                f"be carried over: {str((error.details or {}).get('errmsg', error))[:300]}"
            )
    follower.redefined.clear()


def _look_at_everything(run: Run, why: HistoryLost) -> None:
    """After a swap there is no way back to the ranges: one pass in place instead."""
    run.following.lost = ""
    summary = Summary("rebuild", "", 0, read_models=counts_of(run.store.projections))
    opened = OpenedPass(run.store, summary.read_models, run.claims)
    sinks = opened.into(lambda lane: sink_in_place(run, opened.again(lane), summary, run.limit), summary)
    opened.reconcile_odd_ids()
    opened.reconcile()
    for sink in sinks:
        sink.finish()
    run.summary.warnings += [
        f"The changes around the cut-over are unknown, so everything was compared again: {why}. "
        "Foreign fields written at that moment may be missing.",
        *summary.warnings,
    ]
    for name, counts in summary.read_models.items():
        run.summary.read_models[name].failed += counts.failed
