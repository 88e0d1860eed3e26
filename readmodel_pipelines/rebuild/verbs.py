"""What can be done with a rebuild besides resuming it: abort one that is unfinished, roll back one that is done."""

import time
from collections.abc import Collection, Mapping, Sequence

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord, Rebuilds
from readmodel_pipelines.cutover.shadow import drop, index_like, swap
from readmodel_pipelines.errors import NoCopy, UsageError
from readmodel_pipelines.lanes import counts_of
from readmodel_pipelines.mongo.changes import HistoryLost
from readmodel_pipelines.mongo.driver import Database, there
from readmodel_pipelines.mongo.names import copy_name, shadow_name
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.rebuild.catch_up import CatchUp, Following
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.about import RebuildOutcome
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines.settings import Settings


def abort(database: Database, settings: Settings, rebuild_id: str) -> RebuildRecord:
    """Give up an unfinished rebuild; what it wrote in place stays, for it is right, and a shadow is dropped.

    Raises:
        UsageError: there is no such rebuild, or it is not in a state from which it can be aborted.
        ReadModelBusy: it is at work.
    """
    rebuilds = Rebuilds(database)
    record = rebuilds.get(rebuild_id)
    with hold_leases(database, record.read_models, settings.lease_seconds):
        record = rebuilds.to(record, RebuildState.ABORTED)
        drop_aborted(database, record, record.read_models)
    return record


def drop_aborted(database: Database, record: RebuildRecord, held: Collection[str]) -> None:
    """Forget its keys, and drop its shadows and copies of those live collections whose leases the caller holds.

    Those of the others have the same names as what a rebuild that is at work may have; the next one drops them.
    """
    forget(database, record.read_models, record.id)
    lives = [live for live in record.read_models if live in held]
    copies = {copy_name(live) for live in lives} & set(record.copies.values())
    drop(database, [*map(shadow_name, lives), *copies])


def roll_back(database: Database, settings: Settings, rebuild_id: str) -> Summary:
    """Put back the copies of what the read models were before a rebuild in a shadow, then catch up.

    What others wrote to foreign fields since then is lost, and so is what the rebuild made.

    Raises:
        UsageError: there is no such rebuild, it is not done, or it has no copy; or another one is unfinished.
        ReadModelBusy: somebody rebuilds one of the read models.
    """
    rebuilds = Rebuilds(database)
    record = rebuilds.get(rebuild_id)
    store = Store(database, settings, [item for item in projections_for(settings) if item.name in record.names])
    summary = Summary("rebuild", "all", read_models=counts_of(store.projections))
    started = time.perf_counter()
    with hold_leases(database, record.read_models, settings.lease_seconds) as held:
        # Again: meanwhile another rebuild would have made copies of the same names.
        record = rebuilds.get(rebuild_id)
        kept = there(database, record.copies.values())
        copies = {name: copy for name, copy in record.copies.items() if copy in kept}
        summary.warnings += _check_rollback(rebuilds, record, store.projections, copies)
        record = rebuilds.to(record, RebuildState.ROLLED_BACK, token=record.copy_token, live_tokens={})
        for item in store.projections:
            if item.read_model in copies:
                live = store.live(item).name
                index_like(database, live, copies[item.read_model], item)
                held.check()
                swap(database, copies[item.read_model], live)
        following = Following(store, record)
        try:
            catch_up = CatchUp(store, following, held.check)
            warning = catch_up.until_nothing_is_written()
        except HistoryLost as error:
            warning = f"{error}: rebuild in place, for what happened since the copy was made is missing."
        finally:
            following.close()
            forget(database, record.read_models, record.id)
    summary.warnings += [warning] if warning else []
    summary.rebuild = RebuildOutcome(rebuild_id, caught_up=catch_up.written, state=RebuildState.ROLLED_BACK)
    summary.seconds = time.perf_counter() - started
    return summary


def _check_rollback(
    rebuilds: Rebuilds, record: RebuildRecord, projections: Sequence[Projection], copies: Mapping[str, str]
) -> list[str]:
    """Refuse a rollback that cannot be, or that would spoil another rebuild; gives what it leaves out, in words."""
    again = record.state is RebuildState.ROLLED_BACK
    if not copies and not again:
        raise NoCopy(
            f"Rebuild {record.id} has no copy of what was before.",
            hint="Only a rebuild in a shadow keeps one, until the next (READMODEL_KEEP_COPY).",
        )
    others = [other for other in rebuilds.unfinished(record.read_models) if other.id != record.id]
    for other in others:
        raise UsageError(
            f"Rebuild {other.id} of {' and '.join(other.read_models)} is unfinished, and would go on with what "
            "the rollback replaces.",
            hint=f"Resume it, or abort it first: `readmodel rebuilds abort {other.id}`.",
        )
    unknown = set(record.names) - {item.name for item in projections}
    if unknown:
        raise UsageError(
            f"Rebuild {record.id} made {', '.join(sorted(unknown))}, which there is no projection of any more.",
            hint="Name it in READMODEL_PROJECTIONS until the rollback is done.",
        )
    without = [] if again else [item.read_model for item in projections if item.read_model not in copies]
    return [f"{read_model} has no copy of what was before, and stays as it is." for read_model in without]
