"""The required indexes by collection: those of the application (DATA_CONTRACT.md), and our own."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.mongo import names
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its key, whether it is unique, and its name if it is fixed.

    With `expire_seconds` its documents are deleted this long after the date in it; `only` is its partial filter, empty
    for all documents.
    """

    key: tuple[tuple[str, int], ...]
    unique: bool = False
    name: str | None = None
    expire_seconds: int | None = None
    only: Mapping[str, Any] | None = None

    def name_beside(self, taken: Container[str]) -> str:
        """Its name, or another one if a foreign index with its own collation has that name."""
        name = self.name or "_".join(f"{field}_{way}" for field, way in self.key)
        return f"{name}_by_bytes" if name in taken else name

    @property
    def options(self) -> dict[str, Any]:
        """The options for MongoDB besides key and name."""
        named = {"partialFilterExpression": self.only, "expireAfterSeconds": self.expire_seconds}
        return {"unique": self.unique, **{option: value for option, value in named.items() if value is not None}}


EVENTS = (
    Index((("aggregate_id", 1), ("version", 1)), unique=True, name="idx_events_aggregate_version_unique"),
    Index((("event_type", 1), ("occurred_at", -1))),
    Index((("aggregate_type", 1), ("occurred_at", -1))),
)
REPAIR_QUEUE = (
    Index((("status", 1), ("created_at", 1))),
    Index((("aggregate_id", 1), ("aggregate_type", 1))),
    Index((("task_type", 1), ("status", 1))),
    Index((("retry_count", 1), ("status", 1))),
    # Ours: due tasks in order, and the open tasks of an aggregate, however many it has completed.
    Index((("status", 1), ("next_attempt_at", 1), ("created_at", 1))),
    Index((("aggregate_id", 1), ("status", 1))),
    # Ours: dead letters are counted by reason without being read.
    Index((("status", 1), ("reason", 1)), name="dead_letters_by_reason", only={"status": "failed"}),
)
FINDINGS = (
    Index((("read_model", 1), ("state", 1), ("aggregate_id", 1))),
    # Open ones are counted, and the oldest is found, without being read.
    Index((("read_model", 1), ("state", 1), ("outcome", 1), ("first_seen", 1))),
    Index((("closed_at", 1),), name="expiry", expire_seconds=90 * _DAY),
)
VERIFICATIONS = (
    Index((("read_model", 1), ("started_at", -1))),
    # The last verification of everything, however many partial ones followed.
    Index((("read_model", 1), ("tier", 1), ("coverage", 1), ("started_at", -1))),
    Index((("started_at", 1),), name="expiry", expire_seconds=400 * _DAY),
)
REBUILDS = (
    Index((("of", 1), ("number", 1))),
    Index((("kind", 1), ("started_at", -1))),
    Index((("ended_at", 1),), name="expiry", expire_seconds=400 * _DAY),
)
# Leases of dead workers, once no takeover can follow.
LEASES = (Index((("expires_at", 1),), name="expiry", expire_seconds=_DAY),)


def of_read_model(projection: Projection) -> tuple[Index, ...]:
    """The unique indexes of a read model: its key, and the other unique fields."""
    return tuple(Index(((name, 1),), unique=True) for name in (projection.key, *projection.unique))


def wanted_indexes(settings: Settings) -> Mapping[str, tuple[Index, ...]]:
    """Every required index, by collection."""
    retention = Index(
        (("completed_at", 1),),
        name="retention_of_completed",
        expire_seconds=int(settings.repair_retention_days * _DAY),
        only={"status": "completed"},
    )
    return {
        settings.events_collection: EVENTS,
        settings.repair_queue_collection: (*REPAIR_QUEUE, retention),
        names.LEASES: LEASES,
        names.FINDINGS: FINDINGS,
        names.VERIFICATIONS: VERIFICATIONS,
        names.REBUILDS: REBUILDS,
        **{collection_of(settings, item): of_read_model(item) for item in projections_for(settings)},
    }
