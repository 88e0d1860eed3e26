"""A database whose commands are repeated after a transient error, like those of `Collection`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pymongo.database

from readmodel_pipelines.mongo.patience import patiently
from readmodel_pipelines.projections.projection import Document

AnyDatabase = pymongo.database.Database[Document]
"""A database of the driver."""


class PatientDatabase(AnyDatabase):
    """Also with other options. Results that would need a cursor come at once; they are always small."""

    def with_options(self, *args: Any, **options: Any) -> PatientDatabase:  # type: ignore[override]
        """The same database with other options."""
        other = super().with_options(*args, **options)
        concerns = other.read_preference, other.write_concern, other.read_concern
        return PatientDatabase(self.client, self.name, other.codec_options, *concerns)

    def command(self, *args: Any, **options: Any) -> Any:
        """Run a command that is harmless to repeat, or whose caller can tell; inside a transaction only the whole is
        repeated.
        """
        if options.get("session") is not None:
            return super().command(*args, **options)
        return patiently(lambda: super(PatientDatabase, self).command(*args, **options), self.client)

    def aggregate(self, *args: Any, **options: Any) -> Iterator[Document]:  # type: ignore[override]
        """The result of an aggregation."""
        return iter(patiently(lambda: list(super(PatientDatabase, self).aggregate(*args, **options)), self.client))

    def list_collections(self, *args: Any, **options: Any) -> Iterator[Any]:  # type: ignore[override]
        """The existing collections."""
        listed = super().list_collections
        return iter(patiently(lambda: list(listed(*args, **options)), self.client))

    def list_collection_names(self, *args: Any, **options: Any) -> list[str]:
        """The names of the existing collections."""
        return patiently(lambda: super(PatientDatabase, self).list_collection_names(*args, **options), self.client)

    def drop_collection(self, *args: Any, **options: Any) -> Any:
        """Drop a collection; a missing one counts as dropped."""
        return patiently(lambda: super(PatientDatabase, self).drop_collection(*args, **options), self.client)
