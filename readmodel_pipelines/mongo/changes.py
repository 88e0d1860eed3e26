"""What happened to the events since a moment: a change stream, resumed from a token and drained up to now."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp
from pymongo.change_stream import ChangeStream

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.driver import CODEC, DENIED, Collection, Database, Document, OperationFailure
from readmodel_pipelines.mongo.event_store import spellings
from readmodel_pipelines.mongo.failures import is_the_servers

MOST_IDS = 200_000
"""Beyond so many changed aggregates a pass over all of them is the quicker way, and they are not held in memory."""

AWAIT_MS = 1
"""How long the server waits for a change before it says that there is none."""
_IDS_AT_ONCE = 1_000
_STANDALONE = 40573
_HISTORY_LOST = {136, 260, 280, 286}

Token = Mapping[str, Any]


@dataclass(slots=True)
class Changes:
    """Aggregates with new events, up to `token`, from where the next look goes on.

    `unknown` says why they cannot be told, so that any aggregate may have changed; `token` is None when the server
    gives none.
    """

    ids: set[str] = field(default_factory=set)
    token: Token | None = None
    unknown: str = ""


class HistoryLost(Exception):
    """What changed cannot be told any more: the server's history was overwritten, or the events were tampered with."""


class NoHistory(Exception):
    """A server that keeps no history of changes, or shows it to others only; `str()` says which."""


def changes_since(events: Collection, stored_as: Sequence[str], token: Token | None) -> Changes:
    """The aggregates of these types that got events since `token`; without one only the token of this moment."""
    if token is None:
        return _from_now_on(events, "there was no verification with these settings to go on from")
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
    # The rest of what was not told, or comes behind the end of a stream, is covered by looking at everything.
    return _from_now_on(events, unknown)


class Follower:
    """Follows the events that are appended to streams of some types, from a token on.

    Raises (here and in `drain`):
        HistoryLost: the token lies before what the server remembers.
    """

    def __init__(self, events: Collection, stored_as: Sequence[str], token: Token) -> None:
        self._events = events
        self.token = token
        self.met_odd_ids = False
        try:
            # Not `resume_after`, which refuses to go on behind a dropped or renamed collection.
            self._stream = _watch(events, stored_as, start_after=token)
        except OperationFailure as error:
            raise lost(error) from None

    def drain(self) -> Iterator[list[str]]:
        """The aggregates with new events up to now, some hundred at a time; `token` is then behind them."""
        reached(Moment.HISTORY_READ)
        ids: set[str] = set()
        for change in drained(self._stream, self._events.database):
            if change["operationType"] != "insert":
                raise HistoryLost("events were changed or deleted, which no application does")
            aggregate_id: Any = change.get("text")
            # No other stream can be trusted.
            if is_plain(aggregate_id):
                ids.add(aggregate_id)
            else:
                self.met_odd_ids = True
            if len(ids) >= _IDS_AT_ONCE:
                yield sorted(ids)
                ids.clear()
                self.token = change["_id"]
        yield sorted(ids)
        self.token = self._stream.resume_token or self.token

    def close(self) -> None:
        """Let go of the server's cursor."""
        self._stream.close()


def drained(stream: ChangeStream[Document], database: Database) -> Iterator[Document]:
    """What a change stream tells up to this moment; its own token is then behind that.

    Raises:
        HistoryLost: it cannot tell everything.
    """
    now = _time_of_server(database)
    while stream.alive:
        try:
            change = stream.try_next()
        except OperationFailure as error:
            raise lost(error) from None
        if change is not None:
            yield dict(change)
        if change["clusterTime"] > now if change else time_of(stream.resume_token) >= now:
            return


def _time_of_server(database: Database) -> Timestamp:
    """The time of the last operation that the server knows of."""
    admin = database.client.admin
    # A replica set that has no key yet to sign times with, in its first seconds, leaves it out of its replies.
    now: Timestamp = admin.command("ping").get("operationTime") or admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return now


def lost(error: OperationFailure) -> Exception:
    """The error of a change stream, as `HistoryLost` where it is that."""
    if error.code in _HISTORY_LOST:
        return HistoryLost("the server's history of changes does not reach back so far")
    return error


def token_of_now(collection: Collection) -> Token:
    """From where to follow what is written from now on.

    Raises:
        NoHistory: there is no such thing here.
    """
    changes = _from_now_on(collection, "")
    if changes.token is None:
        raise NoHistory(changes.unknown)
    return changes.token


def _from_now_on(events: Collection, unknown: str) -> Changes:
    try:
        with _watch(events, ()) as stream:
            if stream.resume_token is None:
                stream.try_next()
            return Changes(token=stream.resume_token, unknown=unknown)
    except OperationFailure as error:
        return Changes(unknown=_in_words(error))


def _in_words(error: OperationFailure) -> str:
    if error.code == _STANDALONE:
        return "a standalone server keeps no history of changes; run MongoDB as a replica set"
    if error.code in DENIED:
        return "the user may not open a change stream on the events"
    if is_the_servers(error.code):
        # A moment later it would tell: this does not mean that there is no history.
        raise error
    return f"the server gives no changes of the events (error {error.code})"


def _watch(events: Collection, stored_as: Sequence[str], start_after: Token | None = None) -> ChangeStream[Document]:
    reached(Moment.HISTORY_ASKED_FOR, collection=events.name)
    of_others = {"operationType": "insert", "fullDocument.aggregate_type": {"$nin": spellings(stored_as)}}
    # Of other types the driver may not be able to read what is there.
    is_text = {"$eq": [{"$type": "$fullDocument.aggregate_id"}, "string"]}
    text = {"$cond": [is_text, "$fullDocument.aggregate_id", "$$REMOVE"]}
    pipeline: list[Mapping[str, Any]] = [
        {"$match": {"$nor": [of_others]}},
        {"$project": {"operationType": 1, "clusterTime": 1, "text": text}},
    ]
    watched = events.with_options(codec_options=CODEC)
    return watched.watch(pipeline, start_after=start_after, max_await_time_ms=AWAIT_MS)


def time_of(token: Token | None) -> Timestamp:
    """The moment in a token: its text begins with the cluster time as the server's sortable bytes, in hexadecimal."""
    text = str((token or {}).get("_data", ""))
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))
