"""What happened to the events since a moment: a change stream, resumed from a token and drained up to now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp
from pymongo.change_stream import ChangeStream
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from readmodel_pipelines.events.ids import is_plain
from readmodel_pipelines.moments import Moment, reached
from readmodel_pipelines.mongo.scan import CODEC, Document
from readmodel_pipelines.mongo.server import DENIED

MOST_IDS = 200_000
"""Beyond so many changed aggregates a pass over all of them is the quicker way, and they are not held in memory."""

_AWAIT_MS = 5
_IDS_AT_ONCE = 1_000
_STANDALONE = 40573
HISTORY_LOST = {136, 260, 280, 286}

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


def changes_since(events: Collection[Document], stored_as: Sequence[str], token: Token | None) -> Changes:
    """The aggregates of these types that got events since `token`; without one only the token of this moment."""
    if token is None:
        return _from_now_on(events, "there was no verification with these settings to go on from")
    changes = Changes(token=token)
    try:
        # Not `resume_after`, which refuses to go on behind a dropped or renamed collection.
        with _watch(events, stored_as, start_after=token) as stream:
            _drain(events, stream, changes)
    except OperationFailure as error:
        changes.unknown = _in_words(error)
    # The rest of what was not told, or comes behind the end of a stream, is covered by looking at everything.
    return _from_now_on(events, changes.unknown) if changes.unknown else changes


class HistoryLost(Exception):
    """What changed cannot be told any more: the server's history was overwritten, or the events were tampered with."""


class NoHistory(Exception):
    """A server that keeps no history of changes, or shows it to others only; `str()` says which."""


class Follower:
    """Follows the events that are appended to streams of some types, from a token on.

    Raises (here and in `drain`):
        HistoryLost: the token lies before what the server remembers.
    """

    def __init__(self, events: Collection[Document], stored_as: Sequence[str], token: Token) -> None:
        self._events = events
        self.token = token
        try:
            self._stream = _watch(events, stored_as, start_after=token)
        except OperationFailure as error:
            raise _lost(error) from None

    def drain(self) -> Iterator[list[str]]:
        """The aggregates with new events up to now, some hundred at a time; `token` is then behind them."""
        reached(Moment.HISTORY_READ)
        now: Timestamp = self._events.database.client.admin.command("ping")["operationTime"]
        ids: set[str] = set()
        while True:
            try:
                change = self._stream.try_next()
            except OperationFailure as error:
                raise _lost(error) from None
            if change is not None and change["operationType"] != "insert":
                raise HistoryLost("events were changed or deleted, which no application does")
            if change is not None:
                aggregate_id = change["fullDocument"].get("aggregate_id")
                # No other stream can be trusted.
                if is_plain(aggregate_id):
                    ids.add(aggregate_id)
            token: Token = change["_id"] if change else self._stream.resume_token or self.token
            ended = (change is None and time_of(token) >= now) or bool(change and change["clusterTime"] > now)
            if len(ids) >= _IDS_AT_ONCE or ended:
                yield sorted(ids)
                ids.clear()
                self.token = token
            if ended:
                return

    def close(self) -> None:
        """Let go of the server's cursor."""
        self._stream.close()


def token_of_now(events: Collection[Document]) -> Token:
    """From where to follow what is appended from now on.

    Raises:
        NoHistory: there is no such thing here.
    """
    reached(Moment.HISTORY_BEGUN, collection=events.name)
    changes = _from_now_on(events, "")
    if changes.token is None:
        raise NoHistory(changes.unknown)
    return changes.token


def _lost(error: OperationFailure) -> Exception:
    return (
        HistoryLost("the server's history of changes does not reach back so far")
        if error.code in HISTORY_LOST
        else error
    )


def _from_now_on(events: Collection[Document], unknown: str) -> Changes:
    try:
        with _watch(events, ()) as stream:
            stream.try_next()
            return Changes(token=stream.resume_token, unknown=unknown)
    except OperationFailure as error:
        return Changes(unknown=_in_words(error))


def _in_words(error: OperationFailure) -> str:
    if error.code in HISTORY_LOST:
        return "the server's history of changes no longer reaches back to the last verification"
    if error.code == _STANDALONE:
        return "a standalone server keeps no history of changes; run MongoDB as a replica set"
    if error.code in DENIED:
        return "the user may not open a change stream on the events"
    return f"the server gives no changes of the events (error {error.code})"


def _watch(
    events: Collection[Document], stored_as: Sequence[str], start_after: Token | None = None
) -> ChangeStream[Document]:
    of_others = {"operationType": "insert", "fullDocument.aggregate_type": {"$nin": list(stored_as)}}
    pipeline: list[Mapping[str, Any]] = [
        {"$match": {"$nor": [of_others]}},
        {"$project": {"operationType": 1, "clusterTime": 1, "fullDocument.aggregate_id": 1}},
    ]
    watched = events.with_options(codec_options=CODEC)
    return watched.watch(pipeline, start_after=start_after, max_await_time_ms=_AWAIT_MS)


def _drain(events: Collection[Document], stream: ChangeStream[Document], changes: Changes) -> None:
    now: Timestamp = events.database.client.admin.command("ping")["operationTime"]
    while not changes.unknown:
        change = stream.try_next()
        if change is None:
            changes.token = stream.resume_token
            if not stream.alive or time_of(stream.resume_token) >= now:
                return
            continue
        changes.token = change["_id"]
        if change["operationType"] != "insert":
            changes.unknown = "events were changed or deleted, which no application does"
            return
        aggregate_id = change["fullDocument"].get("aggregate_id")
        if not is_plain(aggregate_id):
            changes.unknown = "there are new events with an aggregate id that is no text"
            return
        changes.ids.add(aggregate_id)
        if len(changes.ids) > MOST_IDS:
            changes.unknown = f"more than {MOST_IDS:,} aggregates changed since the last verification"
        if change["clusterTime"] > now:
            return


def time_of(token: Token | None) -> Timestamp:
    """The moment in a token: its text begins with the cluster time as the server's sortable bytes, in hexadecimal."""
    text = str((token or {}).get("_data", ""))
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))
