"""A database whose commands are asked again after a glitch, as those of `Collection` are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymongo.database

from readmodel_pipelines.mongo.patience import patiently
from readmodel_pipelines.projections.projection import Document

AnyDatabase = pymongo.database.Database[Document]
"""A database as the driver has it."""


class PatientDatabase(AnyDatabase):
    """Also with other options. What a cursor would give comes at once: it is never much."""

    def with_options(self, *args: Any, **options: Any) -> PatientDatabase:  # type: ignore[override]
        """The same with other options."""
        other = super().with_options(*args, **options)
        concerns = other.read_preference, other.write_concern, other.read_concern
        return PatientDatabase(self.client, self.name, other.codec_options, *concerns)

    def command(self, *args: Any, **options: Any) -> Any:
        """A command that may be asked for again, or of which who asks can tell; in a transaction only all of it can."""
        if options.get("session") is not None:
            return super().command(*args, **options)
        return patiently(lambda: super(PatientDatabase, self).command(*args, **options), self.client)

    def aggregate(self, *args: Any, **options: Any) -> Iterator[Document]:  # type: ignore[override]
        """What an aggregation gives."""
        return iter(patiently(lambda: list(super(PatientDatabase, self).aggregate(*args, **options)), self.client))

    def list_collections(self, *args: Any, **options: Any) -> Iterator[Any]:  # type: ignore[override]
        """What is there."""
        listed = super().list_collections
        return iter(patiently(lambda: list(listed(*args, **options)), self.client))

    def list_collection_names(self, *args: Any, **options: Any) -> list[str]:
        """The names of what is there."""
        return patiently(lambda: super(PatientDatabase, self).list_collection_names(*args, **options), self.client)

    def drop_collection(self, *args: Any, **options: Any) -> Any:
        """One that is not there is dropped already."""
        return patiently(lambda: super(PatientDatabase, self).drop_collection(*args, **options), self.client)
