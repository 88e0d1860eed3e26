"""Where the data lies: one database, the settings that name its collections, and the projections at work on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from readmodel_pipelines.mongo.driver import Collection, Database
from readmodel_pipelines.mongo.fenced import Fence, FencedCollection
from readmodel_pipelines.mongo.kinds import check_kinds, expiry_of
from readmodel_pipelines.mongo.names import collection_of, copy_names, shadow_names
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings

Shadows = Mapping[str, Fence]
"""What is being built beside live collections, by read model."""
NO_SHADOWS: Shadows = {}


@dataclass(frozen=True, slots=True)
class Store:
    """A database, its settings, and some projections; gives the collections of each."""

    database: Database
    settings: Settings
    projections: Sequence[Projection]

    def of(self, projections: Iterable[Projection]) -> Store:
        """The same for other projections."""
        return replace(self, projections=tuple(projections))

    @property
    def repair_queue(self) -> Collection:
        """The tasks that producers and this project add."""
        return Collection(self.database, self.settings.repair_queue_collection)

    @property
    def events(self) -> Collection:
        """The events; nobody but the application writes there."""
        return Collection(self.database, self.settings.events_collection)

    def live(self, projection: Projection) -> Collection:
        """The collection that the application reads."""
        return Collection(self.database, collection_of(self.settings, projection))

    def shadow(self, projection: Projection, shadows: Shadows) -> FencedCollection:
        """The collection that a rebuild builds beside it."""
        return FencedCollection(self.database, shadows[projection.read_model])

    def place(self, projection: Projection, shadows: Shadows) -> Collection:
        """Where a read model lies, if these are the ones that are being built."""
        return self.shadow(projection, shadows) if projection.read_model in shadows else self.live(projection)

    def shadow_names(self, projection: Projection) -> tuple[str, ...]:
        """Those of which one is that of its shadow."""
        return shadow_names(collection_of(self.settings, projection))

    def copy_names(self, projection: Projection) -> tuple[str, ...]:
        """Those of which one is that of the copy of what it was before the last rebuild in a shadow."""
        return copy_names(collection_of(self.settings, projection))

    def check(self, *, writes: bool) -> list[str]:
        """Refuse what cannot be read, or written, for what it is; gives what is to be known of it, as warnings.

        Raises:
            UnsuitableCollection: it cannot be.
        """
        lives = [self.live(item) for item in self.projections]
        names = [item.name for item in lives]
        check_kinds(self.database, [self.settings.events_collection, *names], kept=names if writes else ())
        return [
            f"{live.name}: MongoDB deletes documents by its index {index}. One that expired is missing for a "
            "verification, and a rebuild makes it again."
            for live in lives
            if (index := expiry_of(live))
        ]

    def sizes(self) -> dict[str, int]:
        """About how many documents each read model has, as the server estimates it."""
        return {item.read_model: self.live(item).estimated_document_count() for item in self.projections}
