"""The end of a rebuild, once all ranges are done: what both strategies need of it, and that of one in place."""

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
from readmodel_pipelines.reconcile.second_look import SecondLook
from readmodel_pipelines.reconcile.summary import Summary


class Refused(Exception):
    """The rebuild goes no further, and nothing that it refuses is done; `str()` says why, and what allows it."""


def sink_in_place(run: Run, look: SecondLook, summary: Summary, limit: DeletionLimit) -> InPlace:
    """The sink that goes on with what the ranges put off, of a read model."""
    live = run.store.live(look.lane.projection).name
    deferred = DeferredInMongo(run.store.database, run.record.owner(live))
    return InPlace(look, summary, run.held.check, limit, deferred)


def check_history(run: Run) -> None:
    """Raises `HistoryLost` when what was done so far may lack what happened meanwhile."""
    run.following.drain(run.shadows)
    if run.following.lost:
        raise HistoryLost(run.following.lost)


def again(run: Run, why: HistoryLost) -> None:
    """Have all ranges done once more, followed from now on."""
    run.warn(f"The history of changes was lost, so everything was compared again: {why}.")
    changed: dict[str, Any] = {}
    if not run.record.no_history:
        changed["token"] = token_of_now(run.store.events)
    if run.record.in_shadow:
        changed["foreign_lost"] = True
        changed["live_tokens"] = {item.read_model: token_of_now(run.store.live(item)) for item in run.store.projections}
        index_shadows(run)
    # The ranges first: a run that is killed in between finds them open, and comes here again.
    run.rebuilds.again(run.record, run.held.mark)
    reached(Moment.SECOND_PASS_BEGUN)
    run.to(RebuildState.BUILDING, passes=run.record.passes + 1, **changed)


def index_shadows(run: Run) -> None:
    """Give the shadows the indexes of the live collections."""
    for item in run.store.projections:
        index_like(run.store.database, run.store.live(item).name, run.built[item.read_model], item)


def finish_in_place(run: Run) -> bool:
    """Delete what nobody wants, write what had to wait for that, catch up; whether there are keys to forget.

    Raises:
        HistoryLost: do all ranges again.
        Refused: too many deletions; the rest is done.
    """
    run.check_window()
    run.on_phase("Every range is done. Deferred deletions and writes follow.")
    put_off = has_put_off(run.store.database, run.record.read_models, run.record.id)
    refused = put_off and _do_what_was_put_off(run)
    catch_up_in_place(run, CatchUp(run.store, run.following, run.held.check))
    if refused:
        raise Refused(f"Rebuild {run.record.id} is done but for its deletions; resume it to allow them.")
    # Of a rebuild in slices others may still remember what they saw.
    return put_off or run.request.slice is not None


def _do_what_was_put_off(run: Run) -> bool:
    """Whether deletions are refused; the rest is done."""
    check_history(run)
    # What is done here, besides the ranges: a run that is killed has it counted by whoever goes on.
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
    """Reconcile what writers touched meanwhile in the live collections."""
    run.on_phase("Catch-up: compare the touched aggregates again, until one round writes nothing.")
    warning = catch_up.until_nothing_is_written()
    if warning:
        run.warn(warning)
    for name, counts in catch_up.summary.read_models.items():
        run.summary.read_models[name].failed += counts.failed
    run.summary.take_over(catch_up.summary.findings)
    run.outcome.caught_up = (run.outcome.caught_up or 0) + catch_up.written
