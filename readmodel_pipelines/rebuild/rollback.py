"""Rolls back a rebuild in a shadow: restores the copies, applies later events, and verifies everything.

The steps: record which read models are restored; rename their copies over them; apply the events since the copies were
made; verify everything (`restored.py`). Only then is the record `rolled_back`. Until then it is `rolling_back`, and the
same command continues it after any crash.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import Leases, hold_leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.cutover.built import built, moved_on
from readmodel_pipelines.cutover.definition import index_like
from readmodel_pipelines.cutover.swap import NotThere, swap
from readmodel_pipelines.errors import LeaseLost, NoCopy, UsageError
from readmodel_pipelines.lanes import counts_of
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import DENIED, Database, OperationFailure
from readmodel_pipelines.mongo.fenced import Fence
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.mongo.verb import verb
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold, projections_for
from readmodel_pipelines.rebuild.catch_up import CatchUp, Following
from readmodel_pipelines.rebuild.restored import verify_restored
from readmodel_pipelines.rebuild.verbs import drop_left, forget_if_ended
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings


@verb
def roll_back(database: Database, settings: Settings, rebuild_id: str) -> Summary:
    """Restore the copies that a rebuild in a shadow kept, apply the events since, and verify everything.

    Foreign fields written since then are lost, and so are the rebuilt documents. A document that was wrong when the
    copy was made, or was repaired since without a new event, is wrong again. It is a finding, counts as failed, and its
    repair is queued. If the copy has another or an unknown schema version, only certainly stale documents are queued.

    Raises:
        UsageError: there is no such rebuild, it is not done, it has no copy, or another one is unfinished.
        ReadModelBusy: another process rebuilds one of the read models.
        LeaseLost: another process took over; the message lists the restored read models.
    """
    rebuilds = Rebuilds(database)
    record = rebuilds.get(rebuild_id)
    store = Store(database, settings, [item for item in projections_for(settings) if item.name in record.names])
    summary = Summary("rebuild", "all", read_models=counts_of(store.projections))
    started = time.perf_counter()
    with hold_leases(database, record.read_models, settings.lease_seconds) as held:
        # Checked again, because another rebuild may have replaced the copies meanwhile.
        record = rebuilds.taken_over(record, held.confirm)
        copies = _copies_there(store, record)
        summary.warnings += _check_rollback(rebuilds, record, store.projections, copies)
        restored = [item for item in store.projections if item.read_model in {*copies, *record.put_back}]
        restored = restored or list(store.projections)
        names = [item.read_model for item in restored]
        summary.warnings += _forget_how_far(database, restored)
        copies = _moved_on(store, copies, held)
        for item in restored:
            if copy := copies.get(item.read_model):
                index_like(database, store.live(item).name, copy, item)
        changed = {"token": record.copy_token, "live_tokens": {}, "put_back": names}
        record = rebuilds.to(record, RebuildState.ROLLING_BACK, **changed)
        try:
            _swap_back(store, restored, copies, held)
            caught_up = _catch_up(store, record, held, summary)
            for group in by_fold(restored):
                verify_restored(store.of(group), record, summary)
            held.check()
        except LeaseLost as lost:
            forget_if_ended(database, record)
            raise _lost_there(lost, record, _copies_there(store, record)) from None
        rebuilds.to(record, RebuildState.ROLLED_BACK)
        # Deleted last, because a run that takes over an unfinished rollback needs these keys.
        forget(database, record.read_models, record.id, record.runs)
        with suppress(LeaseLost):
            drop_left(database, rebuilds, record.read_models, held.confirm)
    summary.rebuilds.append(
        RebuildOutcome(rebuild_id, caught_up=caught_up, state=RebuildState.ROLLED_BACK, read_models=names)
    )
    summary.seconds = time.perf_counter() - started
    return summary


def _copies_there(store: Store, record: RebuildRecord) -> Mapping[str, Fence]:
    there = {}
    for item in store.projections:
        for fence in built(store.database, store.copy_names(item)):
            # Earlier versions recorded the name.
            if record.copies.get(item.read_model) in (fence.identity, fence.name):
                there[item.read_model] = fence
    return there


def _moved_on(store: Store, copies: Mapping[str, Fence], held: Leases) -> Mapping[str, Fence]:
    """Move the copies to other names, so that the server refuses late commands of another rollback."""
    moved = {
        item.read_model: moved_on(store.database, store.copy_names(item), copies[item.read_model].identity, held)
        for item in store.projections
        if item.read_model in copies
    }
    return {name: fence for name, fence in moved.items() if fence is not None}


def _swap_back(store: Store, restored: Sequence[Projection], copies: Mapping[str, Fence], held: Leases) -> None:
    def look(copy: Fence, item: Projection) -> None:
        held.check()
        index_like(store.database, store.live(item).name, copy, item)

    for item in restored:
        if copy := copies.get(item.read_model):
            try:
                swap(store.database, copy, store.live(item).name, store.settings, look=partial(look, copy, item))
            except NotThere:
                raise copy.lost() from None


def _catch_up(store: Store, record: RebuildRecord, held: Leases, summary: Summary) -> int:
    """Reconcile the aggregates with events since the copies were made; returns the number of documents written."""
    following = Following(store, record)
    catch_up = CatchUp(store, following, held.check)
    try:
        warning = catch_up.until_nothing_is_written()
    except HistoryLost as error:
        warning = f"{error}: the changes since the copy are unknown; the verification of everything finds them."
    finally:
        following.close()
    summary.warnings += [warning] if warning else []
    return catch_up.written


def _lost_there(lost: LeaseLost, record: RebuildRecord, copies: Collection[str]) -> LeaseLost:
    """The loss of the lease, with the restored and the other read models."""
    is_back = [name for name in record.put_back if name not in copies]
    is_not = [name for name in record.put_back if name in copies]
    told = [f"{' and '.join(is_back)}: restored, possibly stale"] if is_back else []
    told += [f"{' and '.join(is_not)}: not restored"] if is_not else []
    return LeaseLost(
        f"The rollback of {record.id} lost its lease before its end. {'; '.join(told)}.",
        hint=f"{lost.hint} `readmodel rebuilds rollback {record.id}` continues it.",
    )


def _forget_how_far(database: Database, projections: Sequence[Projection]) -> list[str]:
    """Delete the watermarks, so that the next incremental verification covers the restored documents."""
    try:
        Verifications(database).forget_watermarks([item.read_model for item in projections])
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
        return ["The user may not delete from readmodel_watermarks. Verify everything before the next `--since last`."]
    return []


def _check_rollback(
    rebuilds: Rebuilds, record: RebuildRecord, projections: Sequence[Projection], copies: Mapping[str, Fence]
) -> list[str]:
    """Refuse an impossible rollback, or one that would damage another rebuild; returns messages on read models left
    out.
    """
    again = record.state in (RebuildState.ROLLING_BACK, RebuildState.ROLLED_BACK)
    if not copies and not again:
        raise NoCopy(
            f"Rebuild {record.id} has no copy of the previous documents.",
            hint="Only a rebuild in a shadow keeps a copy, until the next one (READMODEL_KEEP_COPY).",
        )
    others = [other for other in rebuilds.unfinished(record.read_models) if other.id != record.id]
    for other in others:
        raise UsageError(
            f"Rebuild {other.id} of {' and '.join(other.read_models)} is unfinished and works on the same collections.",
            hint=f"Resume it, or abort it first: `readmodel rebuilds abort {other.id}`.",
        )
    unknown = set(record.names) - {item.name for item in projections}
    if unknown:
        raise UsageError(
            f"Rebuild {record.id} made {', '.join(sorted(unknown))}, whose projection no longer exists.",
            hint="Add the projection to READMODEL_PROJECTIONS until the rollback is done.",
        )
    without = [] if again else [item.read_model for item in projections if item.read_model not in copies]
    return [f"{read_model} has no copy of its previous documents and stays as it is." for read_model in without]
