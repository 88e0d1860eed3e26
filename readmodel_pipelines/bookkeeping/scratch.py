"""What runs keep on the server while they go on: keys, in collections that all runs share.

Their names are fixed, because MongoDB grants rights by exact names. A key's `_id` is `{of, run, kind, key}`: the live
collection whose lease the run holds, the run, what the key is for, and the key; so the only index gives the keys of one
run and kind, and who keeps the same key again keeps it once. What a run that was killed leaves behind is deleted by
whoever holds the lease next: nobody else can be at work there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey

from readmodel_pipelines.mongo.driver import CODEC, Collection, Database, Document
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose keys: a run's, over a live collection. A rebuild that may be resumed is known by its id."""

    of: str
    run: str

    def keyed(self, kind: str, keys: Sequence[Any]) -> list[Document]:
        """The `_id`s of keys."""
        return [{"of": self.of, "run": self.run, "kind": kind, "key": key} for key in keys]

    def kept(self, kind: str) -> Document:
        """The filter for all keys of a kind."""
        start = {"of": self.of, "run": self.run, "kind": kind}
        return {"_id": {"$gte": {**start, "key": MinKey()}, "$lte": {**start, "key": MaxKey()}}}

    def everything(self) -> Document:
        """The filter for all keys."""
        start = {"of": self.of, "run": self.run}
        return {"_id": {"$gte": start, "$lt": {**start, "kind": MaxKey()}}}


def scratch(database: Database, name: str) -> Collection:
    """One of the collections."""
    return database.get_collection(name, codec_options=CODEC)


def forget(database: Database, owners: Iterable[Owner]) -> None:
    """Delete all keys of these runs."""
    where = {"$or": [owner.everything() for owner in owners]}
    for name in (DEFERRED, TOUCHED):
        scratch(database, name).delete_many(where)


def forget_killed(database: Database, lives: Sequence[str], but: str) -> None:
    """For whoever holds the leases of these live collections: delete what other runs left, but that of this rebuild."""
    gone: list[Document] = []
    for live in lives:
        start = {"of": live, "run": but}
        gone.append({"_id": {"$gte": {"of": live}, "$lt": start}})
        gone.append({"_id": {"$gt": {**start, "kind": MaxKey()}, "$lt": {"of": live, "run": MaxKey()}}})
    for name in (DEFERRED, TOUCHED):
        scratch(database, name).delete_many({"$or": gone})
