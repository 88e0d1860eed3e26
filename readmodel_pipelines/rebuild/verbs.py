"""Giving up a rebuild that is unfinished; dropping what rebuilds built that nobody goes on with."""

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
    """Give up an unfinished rebuild; what it wrote in place stays, for it is right, and what it built is dropped.

    Of one that is given up already what is left is dropped.

    In the middle of its swap, too: what is swapped in stays then, and `to_do` on the record says so.

    Raises:
        UsageError: there is no such rebuild, or it is not in a state from which it can be aborted.
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
    """Forget the keys of a rebuild that nobody goes on with, and drop what it built, whoever works there now."""
    forget(database, record.read_models, record.id, record.runs)
    names = [name for live in record.read_models for name in (*shadow_names(live), *copy_names(live))]
    own = {*record.shadows.values(), *record.copies.values()}
    drop(database, [fence for fence in built(database, names) if fence.identity in own])


def forget_if_ended(database: Database, record: RebuildRecord) -> None:
    """For whoever lost its leases: what it noted for a rebuild that somebody else ended, it noted for nobody."""
    with suppress(PyMongoError, UsageError):
        if Rebuilds(database).get(record.id).state not in UNFINISHED:
            forget(database, record.read_models, record.id, record.runs)


def drop_left(database: Database, rebuilds: Rebuilds, lives: Sequence[str], confirm: Callable[[], None]) -> None:
    """For whoever holds the leases of these live collections: drop what was built beside them and is nobody's.

    `confirm` raises `LeaseLost` when they are not the caller's own.
    """
    found = built(database, [name for live in lives for name in (*shadow_names(live), *copy_names(live))])
    wanted = rebuilds.built()
    left = [fence for fence in found if not {fence.name, fence.identity} & wanted]
    if left:
        # Seen first, then confirmed: it is not what somebody makes who took over.
        confirm()
        drop(database, left)
