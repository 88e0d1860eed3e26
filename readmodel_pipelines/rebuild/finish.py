"""The end of a rebuild, once all ranges are done: deletions and catch-up; of a shadow, the gate and the swap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from readmodel_pipelines.bookkeeping.deferred import DeferredInMongo
from readmodel_pipelines.bookkeeping.leases import Held
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.scratch import forget
from readmodel_pipelines.bookkeeping.touched import Touched
from readmodel_pipelines.cutover.shadow import copy_on_server, drop, identity, index_like, is_there, swap, sync_foreign
from readmodel_pipelines.lanes import Contested, Lanes, noting
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.changes import HistoryLost, token_of_now
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import collection_of, copy_name
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.following import Following
from readmodel_pipelines.rebuild.gate import Gate
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.counts import Counts
from readmodel_pipelines.reconcile.deletions import DeletionLimit
from readmodel_pipelines.reconcile.finding import finding_of
from readmodel_pipelines.reconcile.in_place import InPlace
from readmodel_pipelines.reconcile.odd_ids import reconcile_odd_ids
from readmodel_pipelines.reconcile.run import reconcile
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings

_SHOWN = 3
_FOLLOW_SECONDS = 0.5


class Refused(Exception):
    """The rebuild goes no further, and nothing that it refuses is done; `str()` says why, and what allows it."""


@dataclass(slots=True)
class Finish:
    """What the end of a rebuild needs. `shadows` are the collections that were built, by read model."""

    database: Database[Document]
    settings: Settings
    projections: Sequence[Projection]
    record: RebuildRecord
    summary: Summary
    held: Held
    claims: Contested
    following: Following
    touched: Touched
    shadows: Mapping[str, str]
    allow_deletions: bool
    workers: int
    on_phase: Callable[[str], object]
    check_window: Callable[[], None]

    @property
    def limit(self) -> DeletionLimit:
        """How many documents may go."""
        return DeletionLimit(1.0 if self.allow_deletions else self.settings.max_delete_share)

    @property
    def catch_up(self) -> CatchUp:
        """What reconciles again what was touched."""
        return CatchUp(self.database, self.settings, self.projections, self.following, self.touched, self.held.check)

    def live(self, projection: Projection) -> str:
        """The name of the live collection."""
        return collection_of(self.settings, projection)

    def check_history(self) -> None:
        """Raises `HistoryLost` when what was done so far may lack what happened meanwhile."""
        self.following.drain(self.shadows)
        if self.following.lost:
            raise HistoryLost(self.following.lost)
        if self.record.no_history and self.record.first_pass:
            raise HistoryLost(self.record.no_history)

    def again(self, why: HistoryLost) -> RebuildRecord:
        """Have all ranges done once more, followed from now on; gives the record."""
        self.summary.warnings.append(f"What happened meanwhile is not known, so everything was looked at again: {why}.")
        rebuilds = Rebuilds(self.database)
        changed: dict[str, Any] = {}
        if not self.record.no_history:
            changed["token"] = token_of_now(self.database[self.settings.events_collection])
        if self.shadows:
            changed["foreign_lost"] = True
            changed["live_tokens"] = {
                item.read_model: token_of_now(self.database[self.live(item)]) for item in self.projections
            }
            _index(self)
        # The ranges first: a run that is killed in between finds them open, and comes here again.
        rebuilds.again(self.record)
        reached(Moment.SECOND_PASS_BEGUN)
        return rebuilds.to(self.record, RebuildState.BUILDING, passes=self.record.passes + 1, **changed)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow in the background while something takes long, so that history cannot run away."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(_FOLLOW_SECONDS):
                # What goes wrong is met by the next look, in words.
                with suppress(Exception):
                    self.following.drain(self.shadows)

        thread = threading.Thread(target=follow, name="following events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def finish_in_place(finish: Finish) -> None:
    """Delete what nobody wants, write what had to wait for that, catch up.

    Raises:
        HistoryLost: do all ranges again.
        Refused: too many deletions; the rest is done.
    """
    finish.check_window()
    finish.check_history()
    finish.on_phase("Every range is done. What nobody wants is deleted, and what had to wait for that is written.")
    # What is done here, besides the ranges: a run that is killed has it counted by whoever goes on.
    before = {name: Counts(**counts) for name, counts in finish.record.finished.items()}
    here = {item.read_model: Counts() for item in finish.projections}
    opened = Lanes(
        finish.database,
        finish.settings,
        finish.projections,
        counts=here,
        contested=finish.claims,
    )
    refused = False
    for lane in opened.lanes:
        deferred = DeferredInMongo(finish.database, finish.record.owner(finish.live(lane.projection)))
        sink = InPlace(opened.again(lane), finish.summary, finish.held.check, finish.limit, deferred)
        sink.finish()
        refused |= sink.deletions_refused
        name = lane.projection.read_model
        finish.summary.read_models[name].add(here[name])
        so_far = before.get(name, Counts())
        so_far.add(replace(here[name], failed=0))
        Rebuilds(finish.database).note(finish.record, **{f"finished.{name}": so_far.as_dict()})
    _catch_up_in_place(finish, finish.catch_up)
    if refused:
        raise Refused(f"Rebuild {finish.record.id} is done but for its deletions; resume it to allow them.")


def _catch_up_in_place(finish: Finish, catch_up: CatchUp) -> None:
    finish.on_phase("Catch-up: what writers touched meanwhile is reconciled, until a look writes nothing.")
    warning = catch_up.until_nothing_is_written()
    if warning:
        finish.summary.warnings.append(warning)
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
        finish.check_window()
        finish.check_history()
        finish.on_phase("Every range is done. The shadow gets its indexes, and catches up with what writers did.")
        reached(Moment.SHADOW_INDEXES)
        with finish.followed():
            _index(finish)
        _mend(finish)
        catch_up.until_small(finish.shadows)
        finish.check_window()
        _check_deletions(finish)
        reached(Moment.GATE)
        finish.on_phase("Gate: the shadow is verified; the live collection is still as it was.")
        _pass_gate(finish, catch_up)
        reached(Moment.GATE_PASSED)
        finish.check_window()
        if finish.settings.keep_copy:
            finish.on_phase("The gate is passed. A copy of the live collection is made, for a rollback.")
        with finish.followed():
            copies = _keep_copies(finish)
        reached(Moment.COPY_MADE)
        catch_up.once(finish.shadows)
        # The last moment to turn back.
        finish.check_history()
        _check_deletions(finish)
        finish.held.check()
        finish.record = Rebuilds(finish.database).to(finish.record, RebuildState.SWAPPING, **copies)
    _swap(finish, catch_up)


def _index(finish: Finish) -> None:
    for item in finish.projections:
        index_like(finish.database, finish.live(item), finish.shadows[item.read_model], item)


def _mend(finish: Finish) -> None:
    """After a second pass over shadows: what it put off, and foreign fields that nobody followed."""
    if finish.record.first_pass:
        return
    scratch = Summary("rebuild", "", 0)
    scratch.read_models = {name: type(counts)() for name, counts in finish.summary.read_models.items()}
    opened = Lanes(
        finish.database,
        finish.settings,
        finish.projections,
        counts=scratch.read_models,
        contested=finish.claims,
        collections=finish.shadows,
    )
    for lane in opened.lanes:
        name = lane.projection.read_model
        deferred = DeferredInMongo(finish.database, finish.record.owner(finish.live(lane.projection)))
        InPlace(opened.again(lane), scratch, finish.held.check, DeletionLimit(1.0), deferred).finish()
        mended = {**finish.record.mended, name: finish.record.mended.get(name, 0) + lane.counts.deleted}
        finish.record = replace(finish.record, mended=mended)
        Rebuilds(finish.database).note(finish.record, mended=mended)
        live, shadow = finish.database[finish.live(lane.projection)], finish.database[finish.shadows[name]]
        sync_foreign(live, shadow, lane.projection, {})


def _check_deletions(finish: Finish) -> None:
    for item in finish.projections:
        counts = finish.summary.read_models[item.read_model]
        documents = finish.database[finish.live(item)].estimated_document_count()
        # What the ranges did not take over, and what a second look took out, should events have vanished meanwhile.
        deletions = counts.deleted + finish.record.mended.get(item.read_model, 0)
        reached(Moment.DELETIONS_COUNTED)
        if not finish.limit.allows(deletions, documents):
            _take_back(finish)
            raise Refused(finish.limit.refusal(item.read_model, deletions, documents))


def _take_back(finish: Finish) -> None:
    """Nothing of it is written, and the counts must not say so."""
    for item in finish.projections:
        counts = finish.summary.read_models[item.read_model]
        counts.inserted = counts.replaced = counts.deleted = 0


def _pass_gate(finish: Finish, catch_up: CatchUp) -> None:
    ranges = [item.whole for item in Rebuilds(finish.database).ranges(finish.record)]
    wrong = Gate(
        finish.database,
        finish.settings,
        finish.projections,
        finish.shadows,
        finish.claims,
        ranges,
        finish.workers,
        catch_up,
        finish.followed,
    ).what_is_wrong()
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
    token = token_of_now(finish.database[finish.settings.events_collection])
    lives = {item.read_model: finish.live(item) for item in finish.projections}
    names = {read_model: copy_name(live) for read_model, live in lives.items()}
    # The copies of whoever took over would have the same names.
    finish.held.check()
    Rebuilds(finish.database).keep_copies(finish.record, names, token)
    drop(finish.database, names.values())
    copies = {}
    for read_model, live in lives.items():
        if finish.settings.keep_copy and is_there(finish.database, live):
            copies[read_model] = names[read_model]
            copy_on_server(finish.database, live, copies[read_model])
    return {"copies": copies, "copy_token": token}


def _swap(finish: Finish, catch_up: CatchUp) -> None:
    """Of a run that was killed meanwhile some are swapped already: those have no shadow any more.

    One of that name that is not the one that was built was made by a run that did not know yet that its lease is lost.
    """
    finish.on_phase("Swap: the shadow takes the live collection's place, with one rename.")
    built = finish.record.shadows
    left = {name: item for name, item in finish.shadows.items() if built.get(name) == identity(finish.database, item)}
    catch_up.once(left)
    for item in finish.projections:
        if item.read_model in left:
            finish.held.check()
            # As late as can be: what comes after this is in the change stream alone.
            catch_up.foreign_once(item, left)
            reached(Moment.LAST_LOOK_DONE)
            # Were the lease lost, this might be the half-built shadow of whoever took over.
            finish.held.check()
            swap(finish.database, left[item.read_model], finish.live(item))
        _apply_foreign(finish, item)
    try:
        catch_up.once({})
        for item in finish.projections:
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
        follower.apply(finish.database[finish.live(projection)])
    except HistoryLost as error:
        finish.following.lost = str(error)
    if follower.not_applied:
        some = ", ".join(map(str, follower.not_applied[:_SHOWN]))
        finish.summary.warnings.append(
            f"{projection.read_model}: what others wrote into fields of their own right at the swap could not be "
            f"carried over to {len(follower.not_applied):,} documents: {some}."
        )
        follower.not_applied.clear()


def _look_at_everything(finish: Finish, why: HistoryLost) -> None:
    """After a swap there is no way back to the ranges: one pass in place instead."""
    finish.following.lost = ""
    # All that was put off is done, and all that was touched is looked at now.
    forget(finish.database, finish.record.owners)
    summary = Summary("rebuild", "", 0)
    summary.read_models = {item.read_model: Counts() for item in finish.projections}
    opened = Lanes(
        finish.database, finish.settings, finish.projections, counts=summary.read_models, contested=finish.claims
    )
    sinks = [
        InPlace(
            opened.again(lane),
            summary,
            finish.held.check,
            finish.limit,
            DeferredInMongo(finish.database, finish.record.owner(finish.live(lane.projection))),
        )
        for lane in opened.lanes
    ]
    for lane, sink in zip(opened.lanes, sinks, strict=True):
        lane.emit = noting(lane, summary, sink.accept)
    reconcile_odd_ids(opened.store, opened.lanes)
    reconcile(opened.store, opened.lanes, finish.settings.allow_malformed)
    for sink in sinks:
        sink.finish()
    finish.summary.warnings += [
        f"What happened around the swap is not known, so everything was looked at again: {why}. "
        "Foreign fields that others wrote within that moment may be missing.",
        *summary.warnings,
    ]
    for name, counts in summary.read_models.items():
        finish.summary.read_models[name].failed += counts.failed
