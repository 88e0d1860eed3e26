"""Aborts an unfinished rebuild, and drops collections of rebuilds that nobody continues."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from readmodel_pipelines.bookkeeping.kept_keys import forget
from readmodel_pipelines.bookkeeping.leases import hold_leases
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.cutover.built import built, drop
from readmodel_pipelines.errors import UsageError
from readmodel_pipelines.mongo.driver import Database, PyMongoError
from readmodel_pipelines.mongo.names import copy_names, shadow_names
from readmodel_pipelines.mongo.verb import verb
from readmodel_pipelines.rebuild_state import UNFINISHED, RebuildState
from readmodel_pipelines.settings import Settings

_AT_ITS_SWAP = (
    "It was in its cut-over. A read model that was cut over stays, without a catch-up of that moment: rebuild in "
    "place, or verify."
)


@verb
def abort(database: Database, settings: Settings, rebuild_id: str) -> RebuildRecord:
    """Abort an unfinished rebuild and drop its shadow; documents written in place are right and stay.

    For a rebuild that is already aborted, drop its remains. It also works during a cut-over: read models that are
    already cut over stay, and `to_do` on the record says so.

    Raises:
        UsageError: there is no such rebuild, or its state does not allow it.
        ReadModelBusy: it is at work.
    """
    rebuilds = Rebuilds(database)
    record = rebuilds.get(rebuild_id)
    with hold_leases(database, record.read_models, settings.lease_seconds) as held:
        record = rebuilds.taken_over(record, held.confirm)
        if record.state is not RebuildState.ABORTED:
            to_do = {"to_do": _AT_ITS_SWAP} if record.state is RebuildState.SWAPPING else {}
            record = rebuilds.to(record, RebuildState.ABORTED, **to_do)
        drop_aborted(database, record)
        drop_left(database, rebuilds, record.read_models, held.confirm)
    return record


def drop_aborted(database: Database, record: RebuildRecord) -> None:
    """Delete the keys of an aborted rebuild and drop its collections, even if a process still works there."""
    forget(database, record.read_models, record.id, record.runs)
    names = [name for live in record.read_models for name in (*shadow_names(live), *copy_names(live))]
    own = {*record.shadows.values(), *record.copies.values()}
    drop(database, [fence for fence in built(database, names) if fence.identity in own])


def forget_if_ended(database: Database, record: RebuildRecord) -> None:
    """Delete the keys of a run that lost its leases, if another process ended its rebuild."""
    with suppress(PyMongoError, UsageError):
        if Rebuilds(database).get(record.id).state not in UNFINISHED:
            forget(database, record.read_models, record.id, record.runs)


def drop_left(database: Database, rebuilds: Rebuilds, lives: Sequence[str], confirm: Callable[[], None]) -> None:
    """For the holder of these live collections' leases: drop collections beside them that no rebuild needs.

    `confirm` raises `LeaseLost` if the leases are no longer the caller's.
    """
    found = built(database, [name for live in lives for name in (*shadow_names(live), *copy_names(live))])
    wanted = rebuilds.built()
    left = [fence for fence in found if not {fence.name, fence.identity} & wanted]
    if left:
        # Read first, then confirmed: it is not a collection of a run that took over.
        confirm()
        drop(database, left)
