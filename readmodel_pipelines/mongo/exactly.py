"""Reads documents one by one and byte by byte, so that values that the driver cannot decode hide no other document.

For small collections, in which any program may have written any value.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.scan import found


def found_exactly(
    collection: Collection,
    where: Mapping[str, Any],
    fields: Mapping[str, Any] | None = None,
    sort: Sequence[tuple[str, int]] = (),
    limit: int = 0,
) -> Iterator[Document]:
    """The documents of a `find`; the filter may contain values read in this way."""
    return found(collection, where, fields, sort=list(sort) or None, limit=limit)
