"""The overview of all work: read models, findings, the repair queue, leases, rebuilds. Judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from readmodel_pipelines.bookkeeping.held_leases import TakenLease, taken_leases
from readmodel_pipelines.bookkeeping.ignored import Ignored
from readmodel_pipelines.bookkeeping.queue_stats import QueueStats
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Findings, Verifications
from readmodel_pipelines.mongo.driver import Database, server_time
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

_MOST_REBUILDS = 3


@dataclass(frozen=True, slots=True)
class ReadModelStatus:
    """One read model: approximate number of documents, open findings by outcome, and its last verification, if any."""

    documents: int
    open: Mapping[str, int]
    verified_at: datetime | None
    coverage: str | None
    checked: int
    discrepancies: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole overview, at the time `now` (naive, by the server's clock)."""

    database: str
    now: datetime
    events: int
    read_models: Mapping[str, ReadModelStatus]
    ignored: int
    queue: QueueStats
    leases: list[TakenLease]
    rebuilds: list[Mapping[str, Any]]


def look_at(database: Database, settings: Settings) -> Overview:
    """Read the overview: counts by index, estimates, single documents. Writes nothing."""
    store = Store(database, settings, projections_for(settings))
    sizes, findings, verifications = store.sizes(), Findings(database), Verifications(database)
    read_models = {}
    for item in store.projections:
        last = verifications.last_verification(item.read_model)
        counts = last["counts"] if last else {}
        read_models[item.read_model] = ReadModelStatus(
            sizes[item.read_model],
            findings.open_by_outcome(item.read_model),
            last["started_at"] if last else None,
            last["coverage"] if last else None,
            counts.get("checked", 0),
            counts.get("discrepancies", 0),
        )
    return Overview(
        settings.database,
        server_time(database).replace(tzinfo=None),
        store.events.estimated_document_count(),
        read_models,
        sum(in_force for _, in_force in Ignored(database).listed()),
        RepairQueue(database, settings).stats(),
        [lease for lease in taken_leases(database) if not lease.over],
        list(Rebuilds(database).listed(_MOST_REBUILDS)),
    )
