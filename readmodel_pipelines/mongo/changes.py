"""What happened to the events since a moment: a change stream, resumed from a token and drained up to now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp
from pymongo.change_stream import ChangeStream
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from readmodel_pipelines.events.values import is_plain
from readmodel_pipelines.mongo.connection import DENIED
from readmodel_pipelines.mongo.scan import CODEC, Document

MOST_IDS = 200_000
"""Beyond so many changed aggregates a pass over all of them is the quicker way, and they are not held in memory."""

_AWAIT_MS = 50
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


def _from_now_on(events: Collection[Document], unknown: str) -> Changes:
    try:
        with _watch(events, ()) as stream:
            stream.try_next()
            return Changes(token=stream.resume_token, unknown=unknown)
    except OperationFailure as error:
        return Changes(unknown=_in_words(error))


def _in_words(error: OperationFailure) -> str:
    if error.code in _HISTORY_LOST:
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
            if not stream.alive or _time_of(stream.resume_token) >= now:
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


def _time_of(token: Token | None) -> Timestamp:
    """The moment in a token: its text begins with the cluster time as the server's sortable bytes, in hexadecimal."""
    text = str((token or {}).get("_data", ""))
    return Timestamp(int(text[2:10], 16), int(text[10:18], 16))
