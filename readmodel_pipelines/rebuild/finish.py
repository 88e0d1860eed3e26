"""The end of a rebuild, once all ranges are done: deletions and catch-up; of a shadow, the gate and the swap."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from readmodel_pipelines.bookkeeping.kept_keys import DeferredInMongo, forget
from readmodel_pipelines.bookkeeping.leases import Leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.cutover.shadow import copy_on_server, drop, identity, index_like, is_there, swap, sync_foreign
from readmodel_pipelines.lanes import Contested, OpenedPass, counts_of
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost, token_of_now
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.following import Following
from readmodel_pipelines.rebuild.gate import Gate
from readmodel_pipelines.rebuild.this_run import Run
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import finding_of
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.outcome import Counts
from readmodel_pipelines.reconcile.second_look import SecondLook
from readmodel_pipelines.reconcile.summary import Summary

_SHOWN = 3


class Refused(Exception):
    """The rebuild goes no further, and nothing that it refuses is done; `str()` says why, and what allows it."""


@dataclass(slots=True)
class Finish:
    """What the end of a rebuild needs."""

    run: Run
    record: RebuildRecord
    held: Leases
    claims: Contested
    following: Following

    @property
    def store(self) -> Store:
        """Where the read models lie."""
        return self.run.store

    @property
    def summary(self) -> Summary:
        """What the run says."""
        return self.run.summary

    @property
    def shadows(self) -> Collection[str]:
        """The read models that were built beside the live ones."""
        return self.record.built_beside(self.store.projections)

    @property
    def limit(self) -> DeletionLimit:
        """How many documents may go."""
        return DeletionLimit(1.0 if self.run.request.allow_deletions else self.store.settings.max_delete_share)

    @property
    def catch_up(self) -> CatchUp:
        """What reconciles again what was touched."""
        return CatchUp(self.store, self.following, self.held.check)

    def in_place(self, look: SecondLook, summary: Summary, limit: DeletionLimit) -> InPlace:
        """The sink that goes on with what the ranges put off, of a read model."""
        live = self.store.live(look.lane.projection).name
        deferred = DeferredInMongo(self.store.database, self.record.owner(live))
        return InPlace(look, summary, self.held.check, limit, deferred)

    def note(self, **changed: Any) -> None:
        """Write something on the record."""
        self.run.rebuilds.note(self.record, **changed)

    def check_history(self) -> None:
        """Raises `HistoryLost` when what was done so far may lack what happened meanwhile."""
        self.following.drain(self.shadows)
        if self.following.lost:
            raise HistoryLost(self.following.lost)
        if self.record.no_history and self.record.first_pass:
            raise HistoryLost(self.record.no_history)

    def again(self, why: HistoryLost) -> RebuildRecord:
        """Have all ranges done once more, followed from now on; gives the record."""
        self.run.warn(f"What happened meanwhile is not known, so everything was looked at again: {why}.")
        changed: dict[str, Any] = {}
        if not self.record.no_history:
            changed["token"] = token_of_now(self.store.events)
        if self.shadows:
            changed["foreign_lost"] = True
            changed["live_tokens"] = {
                item.read_model: token_of_now(self.store.live(item)) for item in self.store.projections
            }
            self.index()
        # The ranges first: a run that is killed in between finds them open, and comes here again.
        self.run.rebuilds.again(self.record)
        reached(Moment.SECOND_PASS_BEGUN)
        return self.run.rebuilds.to(self.record, RebuildState.BUILDING, passes=self.record.passes + 1, **changed)

    def index(self) -> None:
        """Give the shadows the indexes of the live collections."""
        for item in self.store.projections:
            index_like(self.store.database, self.store.live(item).name, self.store.shadow(item).name, item)


def finish_in_place(finish: Finish) -> None:
    """Delete what nobody wants, write what had to wait for that, catch up.

    Raises:
        HistoryLost: do all ranges again.
        Refused: too many deletions; the rest is done.
    """
    finish.run.check_window()
    finish.check_history()
    finish.run.on_phase("Every range is done. What nobody wants is deleted, and what had to wait for that is written.")
    # What is done here, besides the ranges: a run that is killed has it counted by whoever goes on.
    before = {name: Counts(**counts) for name, counts in finish.record.finished.items()}
    here = counts_of(finish.store.projections)
    opened = OpenedPass(finish.store, here, finish.claims)
    refused = False
    for lane in opened.lanes:
        name = lane.projection.read_model
        sink = finish.in_place(opened.again(lane), finish.summary, finish.limit)
        sink.finish()
        refused |= sink.deletions_refused
        finish.summary.read_models[name].add(here[name])
        so_far = before.get(name, Counts())
        so_far.add(replace(here[name], failed=0))
        finish.note(**{f"finished.{name}": so_far.as_dict()})
    _catch_up_in_place(finish, finish.catch_up)
    if refused:
        raise Refused(f"Rebuild {finish.record.id} is done but for its deletions; resume it to allow them.")


def _catch_up_in_place(finish: Finish, catch_up: CatchUp) -> None:
    finish.run.on_phase("Catch-up: what writers touched meanwhile is reconciled, until a look writes nothing.")
    warning = catch_up.until_nothing_is_written()
    if warning:
        finish.run.warn(warning)
    for name, counts in catch_up.summary.read_models.items():
        finish.summary.read_models[name].failed += counts.failed
    finish.summary.take_over(catch_up.summary.findings)
    finish.summary.rebuild.caught_up = (finish.summary.rebuild.caught_up or 0) + catch_up.written


def finish_shadow(finish: Finish) -> None:
    """Index the shadows, catch up, verify them, keep a copy of what was, and put them in its place.

    Raises:
        HistoryLost: do all ranges again.
        Refused: too many deletions, or the shadow is not right; the live collection is untouched.
    """
    catch_up = finish.catch_up
    if finish.record.state is not RebuildState.SWAPPING:
        finish.run.check_window()
        finish.check_history()
        finish.run.on_phase("Every range is done. The shadow gets its indexes, and catches up with what writers did.")
        reached(Moment.SHADOW_INDEXES)
        with finish.following.in_background():
            finish.index()
        _mend(finish)
        catch_up.until_small(finish.shadows)
        finish.run.check_window()
        _check_deletions(finish)
        reached(Moment.GATE)
        finish.run.on_phase("Gate: the shadow is verified; the live collection is still as it was.")
        _pass_gate(finish, catch_up)
        reached(Moment.GATE_PASSED)
        finish.run.check_window()
        if finish.store.settings.keep_copy:
            finish.run.on_phase("The gate is passed. A copy of the live collection is made, for a rollback.")
        with finish.following.in_background():
            copies = _keep_copies(finish)
        reached(Moment.COPY_MADE)
        catch_up.once(finish.shadows)
        # The last moment to turn back.
        finish.check_history()
        _check_deletions(finish)
        finish.held.check()
        finish.record = finish.run.rebuilds.to(finish.record, RebuildState.SWAPPING, **copies)
    _swap(finish, catch_up)


def _mend(finish: Finish) -> None:
    """After a second pass over shadows: what it put off, and foreign fields that nobody followed."""
    if finish.record.first_pass:
        return
    scratch = Summary("rebuild", "", 0, read_models=counts_of(finish.store.projections))
    opened = OpenedPass(finish.store, scratch.read_models, finish.claims, shadows=finish.shadows)
    for lane in opened.lanes:
        item, name = lane.projection, lane.projection.read_model
        finish.in_place(opened.again(lane), scratch, DeletionLimit(1.0)).finish()
        mended = {**finish.record.mended, name: finish.record.mended.get(name, 0) + lane.counts.deleted}
        finish.record = replace(finish.record, mended=mended)
        finish.note(mended=mended)
        sync_foreign(finish.store.live(item), finish.store.shadow(item), item, {})


def _check_deletions(finish: Finish) -> None:
    for item in finish.store.projections:
        counts = finish.summary.read_models[item.read_model]
        documents = finish.store.live(item).estimated_document_count()
        # What the ranges did not take over, and what a second look took out, should events have vanished meanwhile.
        deletions = counts.deleted + finish.record.mended.get(item.read_model, 0)
        reached(Moment.DELETIONS_COUNTED)
        if not finish.limit.allows(deletions, documents):
            _take_back(finish)
            raise Refused(finish.limit.refusal(item.read_model, deletions, documents))


def _take_back(finish: Finish) -> None:
    """Nothing of it is written, and the counts must not say so."""
    for item in finish.store.projections:
        counts = finish.summary.read_models[item.read_model]
        counts.inserted = counts.replaced = counts.deleted = 0


def _pass_gate(finish: Finish, catch_up: CatchUp) -> None:
    ranges = [item.whole for item in finish.run.rebuilds.ranges(finish.record)]
    workers = finish.run.workers
    gate = Gate(finish.store, finish.shadows, finish.claims, ranges, workers, catch_up, finish.following.in_background)
    wrong = gate.what_is_wrong()
    if not wrong:
        return
    _take_back(finish)
    for read_model, verdict in wrong:
        finding = finding_of(read_model, verdict)
        finding.failed = True
        finish.summary.read_models[read_model].failed += 1
        finish.summary.take_over([finding])
    some = ", ".join(
        f"{read_model} {verdict.aggregate_id}: {verdict.outcome}" for read_model, verdict in wrong[:_SHOWN]
    )
    raise Refused(
        f"The shadow of rebuild {finish.record.id} is not what the events say in {len(wrong):,} documents, and did "
        f"not take the place of the live one: {some}. Tell whoever wrote the projection; `readmodel rebuilds abort "
        f"{finish.record.id}` drops it."
    )


def _keep_copies(finish: Finish) -> dict[str, Any]:
    """One copy of a read model is kept: the last."""
    # What happens from here on is not in the copies for certain.
    store = finish.store
    token = token_of_now(store.events)
    names = {item.read_model: store.copy(item).name for item in store.projections}
    # The copies of whoever took over would have the same names.
    finish.held.check()
    finish.run.rebuilds.keep_copies(finish.record, names, token)
    drop(store.database, names.values())
    copies = {}
    for item in store.projections:
        if store.settings.keep_copy and is_there(store.database, store.live(item).name):
            copies[item.read_model] = names[item.read_model]
            copy_on_server(store.database, store.live(item).name, names[item.read_model])
    return {"copies": copies, "copy_token": token}


def _swap(finish: Finish, catch_up: CatchUp) -> None:
    """Of a run that was killed meanwhile some are swapped already: those have no shadow any more.

    One of that name that is not the one that was built was made by a run that did not know yet that its lease is lost.
    """
    finish.run.on_phase("Swap: the shadow takes the live collection's place, with one rename.")
    store, built = finish.store, finish.record.shadows
    left = {
        item.read_model
        for item in store.projections
        if built.get(item.read_model) == identity(store.database, store.shadow(item).name)
    }
    catch_up.once(left)
    for item in finish.store.projections:
        if item.read_model in left:
            finish.held.check()
            # As late as can be: what comes after this is in the change stream alone.
            catch_up.foreign_once(item, left)
            reached(Moment.LAST_LOOK_DONE)
            # Were the lease lost, this might be the half-built shadow of whoever took over.
            finish.held.check()
            swap(store.database, store.shadow(item).name, store.live(item).name)
        _apply_foreign(finish, item)
    try:
        catch_up.once(())
        for item in finish.store.projections:
            # To documents that were not there before.
            _apply_foreign(finish, item)
        _catch_up_in_place(finish, catch_up)
    except HistoryLost as error:
        _look_at_everything(finish, error)
    if finish.following.lost:
        _look_at_everything(finish, HistoryLost(finish.following.lost))


def _apply_foreign(finish: Finish, projection: Projection) -> None:
    follower = finish.following.foreign.get(projection.read_model)
    if follower is None:
        return
    try:
        follower.apply(finish.store.live(projection))
    except HistoryLost as error:
        finish.following.lost = str(error)
    if follower.not_applied:
        some = ", ".join(map(str, follower.not_applied[:_SHOWN]))
        finish.run.warn(
            f"{projection.read_model}: what others wrote into fields of their own right at the swap could not be "
            f"carried over to {len(follower.not_applied):,} documents: {some}."
        )
        follower.not_applied.clear()


def _look_at_everything(finish: Finish, why: HistoryLost) -> None:
    """After a swap there is no way back to the ranges: one pass in place instead."""
    finish.following.lost = ""
    # All that was put off is done, and all that was touched is looked at now.
    forget(finish.store.database, finish.record.read_models, finish.record.id)
    summary = Summary("rebuild", "", 0, read_models=counts_of(finish.store.projections))
    opened = OpenedPass(finish.store, summary.read_models, finish.claims)
    sinks = opened.into(lambda lane: finish.in_place(opened.again(lane), summary, finish.limit), summary)
    opened.reconcile_odd_ids()
    opened.reconcile()
    for sink in sinks:
        sink.finish()
    finish.summary.warnings += [
        f"What happened around the swap is not known, so everything was looked at again: {why}. "
        "Foreign fields that others wrote within that moment may be missing.",
        *summary.warnings,
    ]
    for name, counts in summary.read_models.items():
        finish.summary.read_models[name].failed += counts.failed
