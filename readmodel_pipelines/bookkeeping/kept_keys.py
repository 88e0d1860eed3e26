"""Keys that runs keep on the server while they go on, which may hold any number: put off, or touched meanwhile.

The collections are shared by all runs and their names are fixed, because MongoDB grants rights by exact names. A key's
`_id` is `{of, run, kind, key}`: the live collection whose lease the run holds, the run, what the key is for, and the
key; so the only index gives the keys of one run and kind, and who keeps the same key again keeps it once. What a run
that was killed leaves behind is deleted by whoever holds the lease next: nobody else can be at work there.

What is touched has `by` behind the key, the number of the run that noted it: whoever takes a rebuild over works off
what those before noted too, and what it notes itself, nobody who sleeps meanwhile forgets when he wakes.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson.binary import USER_DEFINED_SUBTYPE, Binary
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from pymongo import UpdateOne

from readmodel_pipelines.events.exact import read, written
from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import CODEC, Collection, Database, Document, duplicates_allowed
from readmodel_pipelines.mongo.names import DEFERRED, TOUCHED
from readmodel_pipelines.mongo.scan import paged
from readmodel_pipelines.reconcile.deletions import KEYS_AT_ONCE, Deferred

EVENTS = "events"
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose keys: a run's, over a live collection. A rebuild that may be resumed is known by its id."""

    of: str
    run: str

    def keyed(self, kind: str, keys: Sequence[Any]) -> list[Document]:
        """The `_id`s of keys."""
        return [{"of": self.of, "run": self.run, "kind": kind, "key": _storable(key)} for key in keys]

    def kept(self, kind: str) -> Document:
        """The filter for all keys of a kind."""
        start = {"of": self.of, "run": self.run, "kind": kind}
        return {"_id": {"$gte": {**start, "key": MinKey()}, "$lte": {**start, "key": MaxKey()}}}


class DeferredInMongo(Deferred):
    """The keys of an owner: the workers of a rebuild, and who resumes it, share them.

    Who puts off the same key again, after a crash for example, puts it off once.
    """

    def __init__(self, database: Database, owner: Owner) -> None:
        self._collection = _collection(database, DEFERRED)
        self._owner = owner
        self._unwritten: list[Document] = []

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Put keys off."""
        self._unwritten += [{"_id": key} for key in self._owner.keyed(kind, keys)]
        if len(self._unwritten) >= KEYS_AT_ONCE:
            self.write()

    def count(self, kind: str) -> int:
        """How many were put off."""
        self.write()
        return self._collection.count_documents(self._owner.kept(kind))

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, some hundred at a time."""
        self.write()
        for page in paged(self._collection, self._owner.kept(kind), {"_id": 1}, "_id", KEYS_AT_ONCE):
            yield [_as_kept(document["_id"]) for document in page]

    def write(self) -> None:
        """Make sure that nothing put off is lost with this process."""
        documents, self._unwritten = self._unwritten, []
        if documents:
            with duplicates_allowed():
                self._collection.insert_many(documents, ordered=False)


class Touched:
    """What was touched while a rebuild goes on, by kind: `EVENTS`, or a read model for its foreign fields.

    `by` is the number of this run of the rebuild.
    """

    def __init__(self, database: Database, owner: Owner, by: int = 1) -> None:
        self._collection = _collection(database, TOUCHED)
        self._owner = owner
        self._by = by

    def add(self, kind: str, ids: Sequence[Any]) -> None:
        """Remember them, each once."""
        new = {"$setOnInsert": {"kind": kind}}
        noted = ({**key, "by": self._by} for key in self._owner.keyed(kind, ids))
        upserts = [UpdateOne({"_id": key}, new, upsert=True) for key in noted]
        if upserts:
            self._collection.bulk_write(upserts, ordered=False)

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """Those remembered, some at a time; a batch is forgotten once the next one is asked for."""
        remembered = {**self._owner.kept(kind), **_up_to(self._by)}
        while batch := [item["_id"] for item in self._collection.find(remembered, {"_id": 1}, limit=_BATCH)]:
            reached(Moment.TOUCHED_GIVEN, kind=kind)
            yield list(map(_as_kept, batch))
            reached(Moment.TOUCHED_WORKED_OFF, kind=kind)
            self._collection.delete_many({"_id": {"$in": batch}})
            reached(Moment.TOUCHED_FORGOTTEN, kind=kind)


def has_put_off(database: Database, lives: Sequence[str], run: str) -> bool:
    """Whether any key of a run, over these live collections, is put off."""
    return _collection(database, DEFERRED).find_one(_any_of(_of_run(lives, run)), {"_id": 1}) is not None


def forget(database: Database, lives: Sequence[str], run: str, by: int) -> None:
    """Delete all keys of a run, over these live collections, but what was noted by whoever took it over since."""
    for name in (DEFERRED, TOUCHED):
        _collection(database, name).delete_many({**_any_of(_of_run(lives, run)), **_up_to(by)})


def forget_killed(database: Database, lives: Sequence[str], but: str, there: Container[str]) -> None:
    """For whoever holds the leases of these live collections: delete what other runs left, but that of this rebuild.

    Collections that are not `there` are not asked.
    """
    before = [{"$gte": {"of": live}, "$lt": {"of": live, "run": but}} for live in lives]
    behind = [
        {"$gt": {"of": live, "run": but, "kind": MaxKey()}, "$lt": {"of": live, "run": MaxKey()}} for live in lives
    ]
    for name in (DEFERRED, TOUCHED):
        if name in there:
            _collection(database, name).delete_many(_any_of(before + behind))


def _of_run(lives: Sequence[str], run: str) -> list[Document]:
    starts = [{"of": live, "run": run} for live in lives]
    return [{"$gte": start, "$lt": {**start, "kind": MaxKey()}} for start in starts]


def _up_to(by: int) -> Document:
    # Earlier versions did not say who noted it.
    return {"_id.by": {"$not": {"$gt": by}}}


def _any_of(ranges: Sequence[Document]) -> Document:
    return {"$or": [{"_id": within} for within in ranges]}


def _collection(database: Database, name: str) -> Collection:
    return Collection(database, name, codec_options=CODEC)


def _storable(key: Any) -> Any:
    """A text and an ObjectId as they are, anything else as the bytes of a document: what nests deeply has no room."""
    return key if is_plain(key) or isinstance(key, ObjectId) else Binary(written({"": key}), USER_DEFINED_SUBTYPE)


def _as_kept(document_id: Document) -> Any:
    key = document_id["key"]
    is_packed = isinstance(key, Binary) and key.subtype == USER_DEFINED_SUBTYPE
    return read(key)[""] if is_packed else key
