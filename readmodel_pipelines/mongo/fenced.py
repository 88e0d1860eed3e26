"""Collections known by name and UUID: the server refuses writes to another collection of that name, or after a rename.

A process can freeze between checking its lease and sending a command. So a process that takes over renames the
collection being written. The server (6.0 and later) refuses each write whose UUID (`collectionUUID`) does not match the
collection of that name, and creates no missing one. The driver's own methods cannot send a UUID.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import bson
from bson import ObjectId
from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect, BulkWriteError, DocumentTooLarge, OperationFailure
from pymongo.results import BulkWriteResult
from pymongo.write_concern import WriteConcern

from readmodel_pipelines.errors import LeaseLost
from readmodel_pipelines.mongo.collection import BY_BYTES, Collection

MAJORITY = WriteConcern("majority")
MISMATCH = 361
"""The code of the server's refusal."""
_MOST_BYTES = 32 * 1024 * 1024
_LARGEST = 16 * 1024 * 1024
_ROOM_OF_A_STATEMENT = 16 * 1024
_NOTHING: Mapping[str, Any] = {"$match": {"_id": {"$in": []}}}
_TOLD: CodecOptions[dict[str, Any]] = CodecOptions(unicode_decode_error_handler="replace")


def uuid_of(identity: str) -> Binary:
    """A UUID in the form that commands need."""
    return Binary(bytes.fromhex(identity), UUID_SUBTYPE)


@dataclass(frozen=True, slots=True)
class Fence:
    """A collection's name and UUID; a rename keeps the UUID, and no other collection has it."""

    name: str
    identity: str

    @property
    def said(self) -> Mapping[str, Any]:
        """The part of a command with the UUID."""
        return {"collectionUUID": uuid_of(self.identity)}

    def lost(self) -> LeaseLost:
        """The error for the server's refusal."""
        return LeaseLost(
            f"Another run took over or dropped {self.name}. Nothing more was written.",
            hint="`readmodel rebuilds list` shows that run. Run the command again afterwards if needed.",
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """For commands with a UUID: a refusal becomes `LeaseLost`."""
        try:
            yield
        except OperationFailure as error:
            if error.code != MISMATCH:
                raise
            raise self.lost() from None

    def command(self, database: Any, command: str, **options: Any) -> None:
        """Run a command that changes the collection permanently.

        Raises:
            LeaseLost: the collection no longer has that name.
        """
        with self.held():
            database.command(command, self.name, writeConcern=MAJORITY.document, **options, **self.said)


class FencedCollection(Collection):
    """A fenced collection: `bulk_write` and `take_from` write to it, all other methods only read."""

    def __init__(self, database: Any, fence: Fence, *options: Any) -> None:
        super().__init__(database, fence.name, False, *options)
        self._fence = fence

    @property
    def fence(self) -> Fence:
        """Its name and UUID."""
        return self._fence

    def with_options(self, *args: Any, **options: Any) -> FencedCollection:  # type: ignore[override]
        """The same collection with other options."""
        other = super().with_options(*args, **options)
        concerns = other.read_preference, other.write_concern, other.read_concern
        return FencedCollection(self.database, self._fence, other.codec_options, *concerns)

    def take_from(self, other: Collection, pipeline: Sequence[Mapping[str, Any]], write: Mapping[str, Any]) -> None:
        """Write the result of a pipeline over another collection here, with `$merge` or `$out`; all on the server.

        These stages contain no UUID of their target. So the command runs on this collection, with an empty result, and
        the other one is joined.
        """
        joined: list[Mapping[str, Any]] = [_NOTHING, {"$unionWith": {"coll": other.name, "pipeline": [*pipeline]}}]
        with self._fence.held():
            # `$merge` uses the collation of both collections, because it needs an index on `_id` with that collation.
            collation = None if "$merge" in write else BY_BYTES
            self.aggregate([*joined, write], bypassDocumentValidation=True, collation=collation, **self._fence.said)

    def bulk_write(  # type: ignore[override]
        self,
        requests: Sequence[Any],
        ordered: bool = True,
        bypass_document_validation: bool | None = None,
        session: ClientSession | None = None,
    ) -> BulkWriteResult:
        """Like the driver's, in as many commands as needed; an unordered one continues after an error.

        Raises:
            LeaseLost: this collection no longer has that name.
        """

        def write(*, again: bool) -> BulkWriteResult:
            return self._written(requests, ordered, bypass_document_validation, session)

        return self._in_bulk(
            write,
            lambda place: isinstance(requests[place], InsertOne),
            lambda counts: BulkWriteResult(counts, True),
            {"session": session},
        )

    def _written(
        self,
        requests: Sequence[Any],
        ordered: bool,
        bypass_document_validation: bool | None,
        session: ClientSession | None,
    ) -> BulkWriteResult:
        statements = _Statements(self.codec_options)
        for request in requests:
            request._add_to_bulk(statements)
        told: dict[str, Any] = dict.fromkeys(("nInserted", "nUpserted", "nMatched", "nModified", "nRemoved"), 0)
        told |= {"upserted": [], "writeErrors": [], "writeConcernErrors": []}
        for verb, places in statements.commands(ordered):
            documents = [statements.made[place][1] for place in places]
            command = {verb: self.name, "ordered": ordered, _FIELDS[verb]: documents, **self._fence.said}
            if bypass_document_validation and verb != "delete":
                command["bypassDocumentValidation"] = True
            _add(told, verb, places, self._sent(command, session))
            if any(error["code"] == MISMATCH for error in told["writeErrors"]):
                raise self._fence.lost()
            if ordered and told["writeErrors"]:
                break
        if told["writeErrors"] or told["writeConcernErrors"]:
            told["writeErrors"].sort(key=lambda error: error["index"])
            raise BulkWriteError(told)
        return BulkWriteResult(told, True)

    def _sent(self, command: dict[str, Any], session: ClientSession | None) -> Mapping[str, Any]:
        if session is not None and session.in_transaction:
            return self.database.command(command, codec_options=_TOLD, session=session)
        command["writeConcern"] = self.write_concern.document
        try:
            return self.database.command(command, codec_options=_TOLD, session=session)
        except AutoReconnect:
            # Only once, like the driver's own, because repeated writes here are harmless.
            return self.database.command(command, codec_options=_TOLD, session=session)

    def _unfenced(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this method sends no UUID; write with `bulk_write`")

    insert_one = insert_many = replace_one = update_one = update_many = delete_one = delete_many = _unfenced
    find_one_and_delete = find_one_and_replace = find_one_and_update = _unfenced
    create_index = create_indexes = drop_index = drop_indexes = drop = rename = _unfenced


_FIELDS = {"insert": "documents", "update": "updates", "delete": "deletes"}


class _Statements:
    """The statements of the driver's requests, with their commands; the requests add them as to the driver's bulk."""

    def __init__(self, codec: CodecOptions[Any]) -> None:
        self.made: list[tuple[str, RawBSONDocument]] = []
        self._codec = codec

    def add_insert(self, document: Any) -> None:
        if not isinstance(document, RawBSONDocument) and "_id" not in document:
            document["_id"] = ObjectId()
        self._add("insert", document)

    def add_update(self, q: Any, u: Any, multi: bool, upsert: bool, hint: Any = None, **_: Any) -> None:
        statement = {"q": q, "u": u, "multi": multi, "upsert": upsert, "collation": BY_BYTES}
        self._add("update", statement if hint is None else statement | {"hint": hint})

    def add_replace(self, q: Any, u: Any, upsert: bool | None, **_: Any) -> None:
        self.add_update(q, u, False, bool(upsert))

    def add_delete(self, q: Any, limit: int, hint: Any = None, **_: Any) -> None:
        statement = {"q": q, "limit": limit, "collation": BY_BYTES}
        self._add("delete", statement if hint is None else statement | {"hint": hint})

    def _add(self, verb: str, statement: Any) -> None:
        raw = statement.raw if isinstance(statement, RawBSONDocument) else bson.encode(statement, False, self._codec)
        if len(raw) > _LARGEST + (0 if verb == "insert" else _ROOM_OF_A_STATEMENT):
            raise DocumentTooLarge(f"{verb!r} of {len(raw):,} bytes is larger than the server accepts")
        self.made.append((verb, RawBSONDocument(raw)))

    def commands(self, ordered: bool) -> Iterator[tuple[str, list[int]]]:
        """(command, positions of the statements), none larger than the maximum message."""
        places: Sequence[int] = range(len(self.made))
        if not ordered:
            places = sorted(places, key=lambda place: list(_FIELDS).index(self.made[place][0]))
        some: list[int] = []
        size, verb = 0, ""
        for place in places:
            own, raw = self.made[place]
            if some and (own != verb or size + len(raw.raw) > _MOST_BYTES):
                yield verb, some
                some, size = [], 0
            verb = own
            some.append(place)
            size += len(raw.raw)
        if some:
            yield verb, some


def _add(told: dict[str, Any], verb: str, places: Sequence[int], reply: Mapping[str, Any]) -> None:
    """Add the server's reply to a command to a result."""
    done, upserted = reply.get("n", 0), reply.get("upserted", [])
    match verb:
        case "insert":
            told["nInserted"] += done
        case "delete":
            told["nRemoved"] += done
        case _:
            told["nUpserted"] += len(upserted)
            told["nMatched"] += done - len(upserted)
            told["nModified"] += reply.get("nModified", 0)
    told["upserted"] += [{**item, "index": places[item["index"]]} for item in upserted]
    told["writeErrors"] += [{**item, "index": places[item["index"]]} for item in reply.get("writeErrors", ())]
    if "writeConcernError" in reply:
        told["writeConcernErrors"].append(reply["writeConcernError"])
