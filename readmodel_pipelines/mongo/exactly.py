"""Documents one by one and to the byte: what the driver cannot read, or gives back as something else, hides no other.

For documents that are not read by the million, and of which anybody may have written anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from readmodel_pipelines.events.exact import sendable
from readmodel_pipelines.mongo.collection import BY_BYTES
from readmodel_pipelines.mongo.decoding import documents_of
from readmodel_pipelines.mongo.driver import Collection, Document


def found_exactly(
    collection: Collection,
    where: Mapping[str, Any],
    fields: Mapping[str, Any] | None = None,
    sort: Sequence[tuple[str, int]] = (),
    limit: int = 0,
) -> Iterator[Document]:
    """What a `find` gives; the filter may name values that were read so."""
    ordered = list(sort) or None
    batches: Any = collection.find_raw_batches(sendable(where), fields, sort=ordered, limit=limit, collation=BY_BYTES)
    return (document for batch in batches for document in documents_of(batch))
