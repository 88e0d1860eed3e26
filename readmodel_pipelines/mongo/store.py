"""The place of the data: one database, the settings that name its collections, and the projections in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from readmodel_pipelines.mongo.driver import Collection, Database
from readmodel_pipelines.mongo.fenced import Fence, FencedCollection
from readmodel_pipelines.mongo.kinds import check_kinds, expiry_of
from readmodel_pipelines.mongo.names import collection_of, copy_names, shadow_names
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.settings import Settings
from readmodel_pipelines.side_by_side import side_by_side

Shadows = Mapping[str, Fence]
"""The shadows beside live collections, by read model."""
NO_SHADOWS: Shadows = {}


@dataclass(frozen=True, slots=True)
class Store:
    """A database, its settings, and some projections; returns the collections of each."""

    database: Database
    settings: Settings
    projections: Sequence[Projection]

    def of(self, projections: Iterable[Projection]) -> Store:
        """The same store for other projections."""
        return replace(self, projections=tuple(projections))

    @property
    def repair_queue(self) -> Collection:
        """The collection of repair tasks."""
        return Collection(self.database, self.settings.repair_queue_collection)

    @property
    def events(self) -> Collection:
        """The events, which only the application writes."""
        return Collection(self.database, self.settings.events_collection)

    def live(self, projection: Projection) -> Collection:
        """The collection that the application reads."""
        return Collection(self.database, collection_of(self.settings, projection))

    def shadow(self, projection: Projection, shadows: Shadows) -> FencedCollection:
        """The shadow that a rebuild builds beside it."""
        return FencedCollection(self.database, shadows[projection.read_model])

    def place(self, projection: Projection, shadows: Shadows) -> Collection:
        """The collection of a read model; its shadow, if it is among these."""
        return self.shadow(projection, shadows) if projection.read_model in shadows else self.live(projection)

    def shadow_names(self, projection: Projection) -> tuple[str, ...]:
        """The possible names of its shadow."""
        return shadow_names(collection_of(self.settings, projection))

    def copy_names(self, projection: Projection) -> tuple[str, ...]:
        """The possible names of its copy from before the last rebuild in a shadow."""
        return copy_names(collection_of(self.settings, projection))

    def check(self, *, writes: bool) -> list[str]:
        """Refuse unsuitable collections; returns warnings about the others.

        Raises:
            UnsuitableCollection: a collection does not support the needed reads or writes.
        """
        lives = [self.live(item) for item in self.projections]
        names = [item.name for item in lives]
        check_kinds(self.database, [self.settings.events_collection, *names], kept=names if writes else ())
        return [
            f"{live.name}: documents expire by its index {index}. A verification reports an expired one as missing, "
            "and a rebuild writes it again."
            for live, index in zip(lives, side_by_side(*(partial(expiry_of, live) for live in lives)), strict=True)
            if index
        ]

    def sizes(self) -> dict[str, int]:
        """The approximate number of documents of each read model, as the server estimates it."""
        return {item.read_model: self.live(item).estimated_document_count() for item in self.projections}
