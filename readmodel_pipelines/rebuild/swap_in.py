"""The cut-over of a rebuild in a shadow: one read model after another, with the changes made at that moment.

A read model is cut over if its live collection is the one that the rebuild built; nothing else records it. Before the
first cut-over the whole rebuild can be refused. Afterwards, a read model that cannot be cut over is left out.
"""

from readmodel_pipelines.cutover.built import identities
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
from readmodel_pipelines.rebuild.finish import catch_up_in_place, refuse_lost, sink_in_place
from readmodel_pipelines.rebuild.left_out import leave_out, refuse, replaced
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.reconcile.summary import Summary

_SHOWN = 3
_LOOKS = 5
"""How often a changing definition is copied before the cut-over; later changes are applied after it."""


def swap_in(run: Run, catch_up: CatchUp) -> None:
    """Replace the live collections by the shadows, and apply the changes made around that moment.

    Raises:
        HistoryLost: no read model was cut over; all ranges must be done again.
        Refused: no read model was cut over, and none can be.
        SwapBlocked: others locked a live collection at each attempt; resume.
    """
    run.on_phase("Cut-over: one rename puts the shadow in the place of the live collection.")
    built, lives = run.record.shadows, {item.read_model: run.store.live(item).name for item in run.store.projections}
    now = identities(run.store.database, lives.values())
    to_swap = {read_model for read_model, live in lives.items() if now.get(live, "") != built.get(read_model)}
    swapped = len(to_swap) < len(run.store.projections)
    left = {name: fence for name, fence in run.shadows.items() if name in to_swap}
    for item in run.store.projections:
        if item.read_model in to_swap - left.keys():
            _give_up(run, catch_up, item, NotThere(f"of {item.read_model}"), swapped)
    try:
        catch_up.once(left)
        if not swapped:
            refuse_lost(run)
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
            # Writes of others to documents that did not exist before.
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
        """Read the changes as late as possible; later ones are only in the change stream."""
        run.held.check()
        for _ in range(_LOOKS):
            if follower is not None:
                follower.redefined.clear()
            if not bring_along(database, live, shadow, item):
                break
            # An index build takes time.
            catch_up.once(left)
        catch_up.foreign_once(item, left)
        if run.following.lost and may_turn_back:
            raise HistoryLost(run.following.lost)
        if run.following.lost:
            # The documents changed by others are unknown.
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
            return f"The shadow {error} no longer exists, or was replaced, so it must be built again."
        case _:
            return str(error)


def _apply_late(run: Run, projection: Projection) -> None:
    """Apply to the new collection the changes of the live one between its last read and the cut-over."""
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
            # Somebody has changed it again meanwhile.
            continue
        try:
            do_again(run.store.database, Fence(live.name, run.record.shadows[read_model]), change, projection)
        except OperationFailure as error:
            if is_the_servers(error.code):
                raise
            run.warn(
                f"{live.name}: a change of its definition right at the cut-over ({change['operationType']}) could not "
                f"be applied: {str((error.details or {}).get('errmsg', error))[:300]}"
            )
    follower.redefined.clear()


def _look_at_everything(run: Run, why: HistoryLost) -> None:
    """One pass in place, because the ranges cannot be repeated after a cut-over."""
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
