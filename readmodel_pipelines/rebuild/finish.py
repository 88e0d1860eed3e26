"""The end of a rebuild after all ranges: the parts that both strategies share, and the end in place."""

from dataclasses import replace
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import DeferredInMongo, has_put_off
from readmodel_pipelines.cutover.definition import index_like
from readmodel_pipelines.lanes import OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost, token_of_now
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.recheck import Recheck
from readmodel_pipelines.reconcile.summary import Summary


class Refused(Exception):
    """The rebuild stops before an irreversible step; `str()` has the reason and the remedy."""


def sink_in_place(run: Run, look: Recheck, summary: Summary, limit: DeletionLimit) -> InPlace:
    """The sink that writes a read model's deferred changes."""
    live = run.store.live(look.lane.projection).name
    deferred = DeferredInMongo(run.store.database, run.record.owner(live))
    return InPlace(look, summary, run.held.check, limit, deferred)


def check_history(run: Run) -> None:
    """Raise `HistoryLost` if the ranges may lack changes made meanwhile."""
    run.following.drain(run.shadows)
    refuse_lost(run)


def refuse_lost(run: Run) -> None:
    """Raise `HistoryLost` if the changes up to the last that was read are not all known."""
    if run.following.lost:
        raise HistoryLost(run.following.lost)


def again(run: Run, why: HistoryLost) -> None:
    """Reopen all ranges, and follow changes from now on."""
    run.warn(f"The history of changes was lost, so everything was compared again: {why}.")
    changed: dict[str, Any] = {}
    if not run.record.no_history:
        changed["token"] = token_of_now(run.store.events)
    if run.record.in_shadow:
        changed["foreign_lost"] = True
        changed["live_tokens"] = {item.read_model: token_of_now(run.store.live(item)) for item in run.store.projections}
        index_shadows(run)
    # The ranges first: a run killed in between finds them open, and gets here again.
    run.rebuilds.again(run.record, run.held.mark)
    reached(Moment.SECOND_PASS_BEGUN)
    run.to(RebuildState.BUILDING, passes=run.record.passes + 1, **changed)


def index_shadows(run: Run) -> None:
    """Give the shadows the indexes of the live collections."""
    for item in run.store.projections:
        index_like(run.store.database, run.store.live(item).name, run.built[item.read_model], item)


def finish_in_place(run: Run) -> bool:
    """Delete unwanted documents, write deferred ones, catch up; returns whether deferred keys remain to be deleted.

    Raises:
        HistoryLost: all ranges must be done again.
        Refused: too many deletions; everything else is done.
    """
    run.check_window()
    run.on_phase("Every range is done. Deferred deletions and writes follow.")
    put_off = has_put_off(run.store.database, run.record.read_models, run.record.id)
    refused = put_off and _do_what_was_put_off(run)
    catch_up_in_place(run, CatchUp(run.store, run.following, run.held.check))
    if refused:
        raise Refused(
            f"Rebuild {run.record.id} is finished except for its deletions. Resume it with --allow-deletions."
        )
    # Other slices of the rebuild may still add keys.
    return put_off or run.request.slice is not None


def _do_what_was_put_off(run: Run) -> bool:
    """Do the deferred deletions and writes; returns whether the deletions are refused."""
    check_history(run)
    # Counted besides the ranges, so that the counts survive if this run is killed.
    before = {name: Counts(**counts) for name, counts in run.record.finished.items()}
    here = counts_of(run.store.projections)
    opened = OpenedPass(run.store, here, run.claims)
    refused = False
    for lane in opened.lanes:
        name = lane.projection.read_model
        sink = sink_in_place(run, opened.again(lane), run.summary, run.limit)
        sink.finish()
        refused |= sink.deletions_refused
        run.summary.read_models[name].add(here[name])
        so_far = before.get(name, Counts())
        so_far.add(replace(here[name], failed=0))
        run.rebuilds.note(run.record, **{f"finished.{name}": so_far.as_dict()})
    return refused


def catch_up_in_place(run: Run, catch_up: CatchUp) -> None:
    """Reconcile the touched aggregates in the live collections."""
    run.on_phase("Catch-up: compare the touched aggregates again, until one round writes nothing.")
    warning = catch_up.until_nothing_is_written()
    if warning:
        run.warn(warning)
    for name, counts in catch_up.summary.read_models.items():
        run.summary.read_models[name].failed += counts.failed
    run.summary.take_over(catch_up.summary.findings)
    run.outcome.caught_up = (run.outcome.caught_up or 0) + catch_up.written
