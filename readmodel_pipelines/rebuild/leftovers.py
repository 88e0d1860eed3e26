"""What a rebuild keeps on the server while it goes on, and leaves to nobody when it ends."""

from __future__ import annotations

from collections.abc import Collection

from pymongo.database import Database

from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord
from readmodel_pipelines.bookkeeping.scratch import forget
from readmodel_pipelines.cutover.shadow import drop
from readmodel_pipelines.mongo.names import copy_name, shadow_name
from readmodel_pipelines.mongo.scan import Document


def forget_keys(database: Database[Document], record: RebuildRecord) -> None:
    """Forget the keys that it put off or noticed."""
    forget(database, [record.owner(live) for live in record.read_models])


def drop_aborted(database: Database[Document], record: RebuildRecord, held: Collection[str]) -> None:
    """Forget its keys, and drop its shadows and copies of those live collections whose leases the caller holds.

    Those of the others have the same names as what a rebuild that is at work may have; the next one drops them.
    """
    forget_keys(database, record)
    lives = [live for live in record.read_models if live in held]
    copies = {copy_name(live) for live in lives} & set(record.copies.values())
    drop(database, [*map(shadow_name, lives), *copies])
