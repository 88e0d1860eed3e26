"""Keys that runs store on the server, of any number: deferred until the end of all ranges, or touched meanwhile.

All runs share the collections, whose names are fixed because MongoDB grants rights by exact names. A key's `_id` is
`{of, run, kind, key}`: the live collection whose lease the run holds, the run, the purpose, and the key. So the index
on `_id` yields the keys of one run and kind, and storing a key twice keeps one. The next holder of the lease deletes
the keys of a killed run, because nobody else can work there.

A touched key also has `by`, the number of the run that stored it. A run that takes a rebuild over also works off the
keys of earlier runs. A frozen run that wakes up deletes no keys of later ones.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from readmodel_pipelines.side_by_side import side_by_side

EVENTS = "events"
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of keys: a run over a live collection. A resumable rebuild is identified by its id."""

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
    """The keys of an owner, shared by the workers of a rebuild and by the run that resumes it.

    Adding the same key again, for example after a crash, keeps one.
    """

    def __init__(self, database: Database, owner: Owner) -> None:
        self._collection = _collection(database, DEFERRED)
        self._owner = owner
        self._unwritten: list[Document] = []

    def add(self, kind: str, keys: Sequence[Any]) -> None:
        """Add deferred keys."""
        self._unwritten += [{"_id": key} for key in self._owner.keyed(kind, keys)]
        if len(self._unwritten) >= KEYS_AT_ONCE:
            self.write()

    def count(self, kind: str) -> int:
        """The number of deferred keys."""
        self.write()
        return self._collection.count_documents(self._owner.kept(kind))

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The keys, in batches of some hundred."""
        self.write()
        for page in paged(self._collection, self._owner.kept(kind), {"_id": 1}, "_id", KEYS_AT_ONCE):
            yield [_as_kept(document["_id"]) for document in page]

    def write(self) -> None:
        """Ensure that all deferred keys are stored on the server."""
        documents, self._unwritten = self._unwritten, []
        if documents:
            with duplicates_allowed():
                self._collection.insert_many(documents, ordered=False)


class Touched:
    """The keys touched during a rebuild, by kind: `EVENTS`, or a read model for its foreign fields.

    `by` is the number of this run of the rebuild.
    """

    def __init__(self, database: Database, owner: Owner, by: int = 1) -> None:
        self._collection = _collection(database, TOUCHED)
        self._owner = owner
        self._by = by
        # How often keys were recorded, and that number when none was left. Keys of other processes are found too: this
        # process reads the same changes from its own token, and records them itself.
        self._added: Counter[str] = Counter()
        self._none_left: dict[str, int] = {}

    def add(self, kind: str, ids: Sequence[Any]) -> None:
        """Record keys; a repeated key is kept once."""
        new = {"$setOnInsert": {"kind": kind}}
        noted = ({**key, "by": self._by} for key in self._owner.keyed(kind, ids))
        upserts = [UpdateOne({"_id": key}, new, upsert=True) for key in noted]
        if upserts:
            try:
                self._collection.bulk_write(upserts, ordered=False)
            finally:
                # After the write, so that a reader that found none before looks again.
                self._added[kind] += 1

    def batches(self, kind: str) -> Iterator[list[Any]]:
        """The recorded keys in batches; a batch is deleted when the next one is requested.

        The server is not asked again until another key is recorded.
        """
        remembered = {**self._owner.kept(kind), **_up_to(self._by)}
        while self._none_left.get(kind) != (added := self._added[kind]):
            batch = [item["_id"] for item in self._collection.find(remembered, {"_id": 1}, limit=_BATCH)]
            if not batch:
                self._none_left[kind] = added
                return
            reached(Moment.TOUCHED_GIVEN, kind=kind)
            yield list(map(_as_kept, batch))
            reached(Moment.TOUCHED_WORKED_OFF, kind=kind)
            self._collection.delete_many({"_id": {"$in": batch}})
            reached(Moment.TOUCHED_FORGOTTEN, kind=kind)


def has_put_off(database: Database, lives: Sequence[str], run: str) -> bool:
    """Whether any key of a run, over these live collections, is deferred."""
    return _collection(database, DEFERRED).find_one(_any_of(_of_run(lives, run)), {"_id": 1}) is not None


def forget(database: Database, lives: Sequence[str], run: str, by: int) -> None:
    """Delete all keys of a run over these live collections, except those of runs that took it over since."""
    its_own = {**_any_of(_of_run(lives, run)), **_up_to(by)}
    side_by_side(*(partial(_collection(database, name).delete_many, its_own) for name in (DEFERRED, TOUCHED)))


def forget_killed(database: Database, lives: Sequence[str], but: str, there: Container[str]) -> None:
    """For the holder of these live collections' leases: delete the keys of other runs, except of this rebuild.

    Collections missing from `there` are skipped.
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
    # Earlier versions did not store the run.
    return {"_id.by": {"$not": {"$gt": by}}}


def _any_of(ranges: Sequence[Document]) -> Document:
    return {"$or": [{"_id": within} for within in ranges]}


def _collection(database: Database, name: str) -> Collection:
    return Collection(database, name, codec_options=CODEC)


def _storable(key: Any) -> Any:
    """A text or an ObjectId unchanged, any other value as the bytes of a document, because deep nesting could exceed
    the limit.
    """
    return key if is_plain(key) or isinstance(key, ObjectId) else Binary(written({"": key}), USER_DEFINED_SUBTYPE)


def _as_kept(document_id: Document) -> Any:
    key = document_id["key"]
    is_packed = isinstance(key, Binary) and key.subtype == USER_DEFINED_SUBTYPE
    return read(key)[""] if is_packed else key
