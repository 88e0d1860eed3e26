"""Documents one by one and to the byte: what the driver cannot read, or gives back as something else, hides no other.

For documents that are not read by the million, and of which anybody may have written anything.
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
    """What a `find` gives; the filter may name values that were read so."""
    return found(collection, where, fields, sort=list(sort) or None, limit=limit)
