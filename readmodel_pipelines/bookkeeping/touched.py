"""What was touched while a rebuild goes on, kept on the server, so that memory does not limit how long it may take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pymongo import UpdateOne

from readmodel_pipelines.bookkeeping.scratch import Owner, scratch
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import Database
from readmodel_pipelines.mongo.names import TOUCHED

EVENTS = "events"
_BATCH = 1_000


class Touched:
    """What was touched while a rebuild goes on, by kind: `EVENTS`, or a read model for its foreign fields."""

    def __init__(self, database: Database, owner: Owner) -> None:
        self._collection = scratch(database, TOUCHED)
        self._owner = owner

    def add(self, kind: str, ids: Sequence[Any]) -> None:
        """Remember them, each once."""
        keys = self._owner.keyed(kind, ids)
        if keys:
            self._collection.bulk_write(
                [UpdateOne({"_id": key}, {"$setOnInsert": {"kind": kind}}, upsert=True) for key in keys], ordered=False
            )

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """Those remembered, some at a time; a batch is forgotten once the next one is asked for."""
        remembered = self._owner.kept(kind)
        while batch := [item["_id"] for item in self._collection.find(remembered, {"_id": 1}, limit=_BATCH)]:
            reached(Moment.TOUCHED_GIVEN, kind=kind)
            yield [key["key"] for key in batch]
            reached(Moment.TOUCHED_WORKED_OFF, kind=kind)
            self._collection.delete_many({"_id": {"$in": batch}})
            reached(Moment.TOUCHED_FORGOTTEN, kind=kind)
