"""The event store as it will be: a stream, and behind it the events that are about to be appended."""

from collections.abc import Iterator, Sequence
from typing import Any

import bson
from pymongo.read_concern import ReadConcern

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.mongo.driver import CODEC, Collection, Document
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange


class EventsAhead(EventStore):
    """Reads one stream; what it read last is in `last`, and behind that come the new events.

    What is stored is read as it is there now, not as a majority has it: an application may go by an event of its own
    that is a moment old. It is durable all the same as soon as the new ones are, which are appended behind it.
    """

    def __init__(self, collection: Collection, new: Sequence[bytes]) -> None:
        super().__init__(collection.with_options(read_concern=ReadConcern("local")))
        self._new = new
        self.last: Document = {}

    def read(
        self, fold: Fold[Any], ids: Sequence[str] | None = None, within: IdRange = EVERYTHING
    ) -> Iterator[Document]:
        """The events of the stream, then the new ones."""
        for event in super().read(fold, ids, within):
            self.last = event
            yield event
        for document in self._new:
            yield bson.decode(document, CODEC)
