"""The changes of events since a moment: a change stream, resumed from a token and read up to now."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp
from pymongo.change_stream import ChangeStream

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import (
    CODEC,
    DENIED,
    Collection,
    Database,
    Document,
    OperationFailure,
    PyMongoError,
)
from readmodel_pipelines.mongo.event_store import spellings
from readmodel_pipelines.mongo.failures import is_the_servers
from readmodel_pipelines.mongo.patience import Attempts, patiently

MOST_IDS = 200_000
"""Maximum number of changed aggregates held in memory; with more, a pass over all of them is faster."""

AWAIT_MS = 1
"""Milliseconds that the server waits for a change before it answers that there is none."""
_SILENCE_SECONDS = 1.0
_IDS_AT_ONCE = 1_000
_STANDALONE = 40573
_TOO_LARGE = 10334
_HISTORY_LOST = {136, 260, 280, 286}

Token = Mapping[str, Any]


@dataclass(slots=True)
class Changes:
    """The aggregates with new events, up to `token`, from which the next read continues.

    `unknown` is the reason if they are unknown, so that any aggregate may have changed. `token` is None if the server
    has no change streams.
    """

    ids: set[str] = field(default_factory=set)
    token: Token | None = None
    unknown: str = ""


class HistoryLost(Exception):
    """The changes are unknown: the oplog was overwritten, or events were changed or deleted."""


class NoHistory(Exception):
    """The server has no oplog, or this user may not read it; `str()` says which."""


def changes_since(events: Collection, stored_as: Sequence[str], token: Token | None) -> Changes:
    """The aggregates of these types with events since `token`; without a token only the token of this moment."""
    if token is None:
        return _from_now_on(events, "there was no verification with these settings to continue from")
    ids: set[str] = set()
    try:
        with closing(Follower(events, stored_as, token)) as follower:
            for some in follower.drain():
                ids.update(some)
                if len(ids) > MOST_IDS:
                    raise HistoryLost(f"more than {MOST_IDS:,} aggregates changed since the last verification")
            if not follower.met_odd_ids:
                return Changes(ids, follower.token)
            unknown = "there are new events with an aggregate id that is no text"
    except HistoryLost as error:
        unknown = str(error)
    except OperationFailure as error:
        unknown = _in_words(error)
    # A full comparison covers the unread changes, and late events of a stream.
    return _from_now_on(events, unknown)


class Followed:
    """A change stream from a token on; after an interrupted read the next one begins at `token`.

    `token` follows the last change that was processed, as the reader sets it, or `worked_off` at the end. `watch` opens
    the stream after a token.

    Raises (here and in `up_to_now`):
        HistoryLost: the oplog no longer has the token, or the stream cannot report all changes.
    """

    def __init__(
        self,
        collection: Collection,
        watch: Callable[[Token | None], ChangeStream[Document]],
        token: Token | None = None,
    ) -> None:
        self._collection = collection
        self._watch = watch
        self.token = token
        self._furthest = ""
        self._ended = False
        self._broken_off = False
        self._answers: list[Document | None] = []
        self._stream = patiently(self._opened, collection.database.client)

    def _opened(self) -> ChangeStream[Document]:
        try:
            return self._watch(self.token)
        except OperationFailure as error:
            raise lost(error) from None

    def ask(self) -> None:
        """Ask for what comes next, which `up_to_now` then begins with; several can be asked side by side."""
        if not self._ended and not self._broken_off:
            # Set before the request: if its answer is not processed, the next read opens the stream at the token again.
            self._broken_off = True
            with suppress(PyMongoError):
                self._answers = [self._stream.try_next()]

    def up_to_now(self, now: Timestamp | None = None) -> Iterator[Document]:
        """The changes up to now, or up to a recent moment; each at least once."""
        attempts = Attempts(self._collection.database.client)
        while not self._ended:
            try:
                answers, self._answers = self._answers, []
                if self._broken_off and not answers:
                    self.close()
                    self._stream = self._opened()
                self._broken_off = True
                for change in drained(self._stream, self._collection, now, answers):
                    if change["_id"]["_data"] > self._furthest:
                        self._furthest = change["_id"]["_data"]
                        attempts.went_on()
                    yield change
                attempts.went_on()
                return
            except PyMongoError as error:
                attempts.failed(error)

    def worked_off(self) -> None:
        """Record that all changes read are processed."""
        self._broken_off = False
        self.token = self._stream.resume_token or self.token

    def end(self) -> None:
        """Stop reading changes."""
        self._ended = True

    def close(self) -> None:
        """Close the server's cursor."""
        with suppress(PyMongoError):
            self._stream.close()


class Follower:
    """Follows the events appended to streams of some types, from a token on.

    Raises (here and in `drain`):
        HistoryLost: the oplog no longer has the token.
    """

    def __init__(self, events: Collection, stored_as: Sequence[str], token: Token) -> None:
        self.met_odd_ids = False
        # Not `resume_after`, which refuses to continue after a dropped or renamed collection.
        self._followed = Followed(events, lambda behind: _watch(events, stored_as, start_after=behind), token)
        self.close, self.ask = self._followed.close, self._followed.ask

    @property
    def token(self) -> Token | None:
        """The token after the events returned so far."""
        return self._followed.token

    def drain(self, now: Timestamp | None = None) -> Iterator[list[str]]:
        """The aggregates with new events up to now, in batches of some hundred; `token` then follows them."""
        reached(Moment.HISTORY_READ)
        ids: set[str] = set()
        for change in self._followed.up_to_now(now):
            if change["operationType"] != "insert":
                raise HistoryLost("events were changed or deleted, which no application does")
            aggregate_id: Any = change.get("text")
            # No other stream can be trusted then.
            if is_plain(aggregate_id):
                ids.add(aggregate_id)
            else:
                self.met_odd_ids = True
            if len(ids) >= _IDS_AT_ONCE:
                yield sorted(ids)
                ids.clear()
                self._followed.token = change["_id"]
        yield sorted(ids)
        self._followed.worked_off()


def drained(
    stream: ChangeStream[Document],
    collection: Collection,
    until: Timestamp | None = None,
    answers: Iterable[Document | None] = (),
) -> Iterator[Document]:
    """The changes of a collection up to now, or up to that moment; the token then follows them.

    `answers` are those that it gave already.

    Raises:
        HistoryLost: the stream cannot report all changes.
    """
    now = until or time_of_server(collection.database)
    if collection.database.client.is_mongos:
        _reach_on_every_shard(collection, now)
    heard = time.monotonic()
    given = list(answers)
    while given or stream.alive:
        try:
            change = given.pop(0) if given else stream.try_next()
        except OperationFailure as error:
            raise lost(error) from None
        if change is not None:
            yield dict(change)
        if change["clusterTime"] > now if change else time_of(stream.resume_token) >= now:
            return
        if change is not None:
            heard = time.monotonic()
        elif time.monotonic() - heard >= _SILENCE_SECONDS:
            _ask_for_primary(collection, now)
            heard = time.monotonic()


def _ask_for_primary(collection: Collection, moment: Timestamp) -> None:
    """Raise the driver's error if there is no primary.

    A former primary that lost its majority keeps the stream open and reports no change, forever: the awaited moment is
    that of its own write, which no majority has.
    """
    if collection.database.client.is_mongos:
        _reach_on_every_shard(collection, moment)
    else:
        time_of_server(collection.database)


def _reach_on_every_shard(collection: Collection, moment: Timestamp) -> None:
    """Advance the oplog of every shard to this time, even if nothing is written there.

    A `mongos` returns changes up to a time that all shards have passed. A shard without writes records the time only
    every ten seconds (`periodicNoopIntervalSecs`). A read at a cluster time makes it record that at once. A change
    stream reads on all shards.
    """
    pipeline: list[Mapping[str, Any]] = [{"$match": {"operationType": "none of them"}}]
    with collection.database.client.start_session() as session:
        session.advance_operation_time(moment)
        collection.watch(pipeline, max_await_time_ms=AWAIT_MS, session=session).close()


def time_of_server(database: Database) -> Timestamp:
    """The time of the last operation that the server knows."""
    admin = database.client.admin
    # In its first seconds a replica set has no key to sign times, and omits it from its replies.
    now: Timestamp = admin.command("ping").get("operationTime") or admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return now


def lost(error: OperationFailure) -> Exception:
    """The error of a change stream, as `HistoryLost` if it is that."""
    if error.code == _TOO_LARGE:
        return HistoryLost("a change is too large for a change stream")
    if error.code in _HISTORY_LOST:
        return HistoryLost("the oplog does not reach back that far")
    return error


def token_of_now(collection: Collection) -> Token:
    """The token from which to follow future changes.

    Raises:
        NoHistory: the server has no change streams.
    """
    changes = _from_now_on(collection, "")
    if changes.token is None:
        raise NoHistory(changes.unknown)
    return changes.token


def _from_now_on(events: Collection, unknown: str) -> Changes:
    def now() -> Token | None:
        with _watch(events, ()) as stream:
            if stream.resume_token is None:
                stream.try_next()
            return stream.resume_token

    try:
        return Changes(token=patiently(now, events.database.client), unknown=unknown)
    except OperationFailure as error:
        return Changes(unknown=_in_words(error))


def _in_words(error: OperationFailure) -> str:
    if error.code == _STANDALONE:
        return "a standalone server has no change streams; run MongoDB as a replica set"
    if error.code in DENIED:
        return "the user may not open a change stream on the events"
    if is_the_servers(error.code):
        # It would work a moment later; this does not mean that there is no oplog.
        raise error
    return f"the server returns no changes of the events (error {error.code})"


def _watch(events: Collection, stored_as: Sequence[str], start_after: Token | None = None) -> ChangeStream[Document]:
    reached(Moment.HISTORY_ASKED_FOR, collection=events.name)
    of_others = {"operationType": "insert", "fullDocument.aggregate_type": {"$nin": spellings(stored_as)}}
    # The driver may be unable to decode events of other types.
    is_text = {"$eq": [{"$type": "$fullDocument.aggregate_id"}, "string"]}
    text = {"$cond": [is_text, "$fullDocument.aggregate_id", "$$REMOVE"]}
    pipeline: list[Mapping[str, Any]] = [
        {"$match": {"$nor": [of_others]}},
        {"$project": {"operationType": 1, "clusterTime": 1, "text": text}},
    ]
    watched = events.with_options(codec_options=CODEC)
    return watched.watch(pipeline, start_after=start_after, max_await_time_ms=AWAIT_MS)


def right_after(moment: Timestamp) -> Timestamp:
    """The next cluster time after this one."""
    return Timestamp(moment.time, moment.inc + 1)


def time_of(token: Token | None) -> Timestamp:
    """The cluster time in a token: its text begins with the time as sortable bytes, in hexadecimal."""
    text = str((token or {}).get("_data", ""))
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))
