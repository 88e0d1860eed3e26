"""Giving up a rebuild that is unfinished."""

from collections.abc import Collection

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuilds import RebuildRecord, Rebuilds
from readmodel_pipelines.cutover.shadow import drop
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import copy_name, shadow_name
from readmodel_pipelines.rebuild_state import RebuildState
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
