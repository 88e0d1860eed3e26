"""The event store in its future state: a stream followed by events that will be appended."""

from collections.abc import Iterator, Sequence
from typing import Any

import bson
from pymongo.read_concern import ReadConcern

from readmodel_pipelines.events.stream import Fold
from readmodel_pipelines.mongo.driver import CODEC, Collection, Document
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.reconcile.ranges import EVERYTHING, IdRange


class EventsAhead(EventStore):
    """Reads one stream, with `last` as its last stored event, followed by the new events.

    It reads stored events that a majority may not have yet, because an application may depend on an own event from a
    moment ago. They are durable as soon as the new ones are, which are appended after them.
    """

    def __init__(self, collection: Collection, new: Sequence[bytes]) -> None:
        super().__init__(collection.with_options(read_concern=ReadConcern("local")))
        self._stored = EventStore(collection)
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

    def beside(self) -> EventStore:
        """The stored events alone, as a majority has them, for looks after the new ones are appended.

        Others may have appended later ones by then, which are not durable yet.
        """
        return self._stored.beside()
