"""Reads the facts that are judged: everything here asks the server, with the commands and queries of ordinary work.

Nothing is written, no event is read, and no query is run to see how fast it is: the server only explains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from readmodel_pipelines.bookkeeping.findings import Findings
from readmodel_pipelines.bookkeeping.held_leases import leases_held, not_given_back
from readmodel_pipelines.bookkeeping.leases import is_gone
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.doctor.data import Answered
from readmodel_pipelines.doctor.plans import plan_of, plan_of_pipeline
from readmodel_pipelines.doctor.rights import Lacking
from readmodel_pipelines.doctor.server import History
from readmodel_pipelines.doctor.work import LeaseSeen, RebuildSeen
from readmodel_pipelines.mongo.changes import time_of
from readmodel_pipelines.mongo.event_store import EventStore, version_ranges_of
from readmodel_pipelines.mongo.names import FINDINGS, collection_of, shadow_name
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.rights import ROLES, held, lacking, privileges
from readmodel_pipelines.mongo.scan import Document
from readmodel_pipelines.mongo.server import DENIED, server_time
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.projections.registry import by_fold
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.ranges import IdRange
from readmodel_pipelines.settings import Settings

Clock = Callable[[], datetime]

_CLOCK_LOOKS = 3
_SOME_IDS = ("00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff")
_A_RANGE = IdRange("4", "8")
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at: the database of the settings and the read models in it."""

    database: Database[Document]
    settings: Settings
    projections: Sequence[Projection]

    @property
    def collections(self) -> dict[str, str]:
        """The live collection of every read model."""
        return {item.read_model: collection_of(self.settings, item) for item in self.projections}


@dataclass(frozen=True, slots=True)
class Reached:
    """What the first words with the server told; `user` is empty when nobody is logged in."""

    hosts: Sequence[str]
    user: str
    version: str
    hello: Document
    seconds: float


def reached(database: Database[Document]) -> Reached:
    """The way to the server, and what it is."""
    client = database.client
    hello = client.admin.command("hello")
    began = time.perf_counter()
    client.admin.command("ping")
    seconds = time.perf_counter() - began
    told = client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    user = f"{told[0]['user']}@{told[0]['db']}" if told else ""
    version = str(client.admin.command("buildInfo")["version"])
    return Reached([host for host, _ in sorted(client.nodes)], user, version, hello, seconds)


def clock_ahead(database: Database[Document], now: Clock) -> tuple[float, float]:
    """By how many seconds the server's clock is ahead of `now`, give or take how many: from the quickest answer."""
    looks = []
    for _ in range(_CLOCK_LOOKS):
        asked = now()
        theirs = server_time(database)
        answered = now()
        half = (answered - asked) / 2
        looks.append((half.total_seconds(), (theirs - asked - half).total_seconds()))
    half_trip, ahead = min(looks)
    # The server tells whole milliseconds.
    return ahead, half_trip + 0.001


def history(database: Database[Document]) -> History | None:
    """How far the oplog reaches back; None when this user is not told."""
    try:
        status = database.client.admin.command({"serverStatus": 1, "oplog": 1, **_LEAN})
    except OperationFailure as error:
        if error.code in DENIED:
            return None
        raise
    oplog = status["oplog"]
    earliest, latest = (oplog[name].as_datetime().replace(tzinfo=None) for name in ("earliestOptime", "latestOptime"))
    return History(earliest, latest, float(status["uptime"]))


def needed_history(place: Place) -> Iterator[tuple[str, datetime]]:
    """What goes on from a moment in the history of changes, and that moment, naive."""
    for read_model, moment in Verifications(place.database).verified_up_to().items():
        yield f"the last verification of {read_model}", moment.replace(tzinfo=None)
    for record in _unfinished(place):
        if record.get("token"):
            yield f"the rebuild {record['_id']}", time_of(record["token"]).as_datetime().replace(tzinfo=None)


def longest_rebuild_seconds(place: Place) -> float:
    """How long the longest of the last rebuilds took that are done."""
    done = [
        item for item in Rebuilds(place.database).listed() if item["state"] == RebuildState.DONE and "ended_at" in item
    ]
    return max(((item["ended_at"] - item["started_at"]).total_seconds() for item in done), default=0.0)


def lacking_by_role(place: Place) -> dict[str, Lacking] | None:
    """What the user lacks of every role; None when nobody is logged in."""
    holds = held(place.database)
    if holds is None:
        return None
    return {role.name: lacking(privileges(role, place.settings, place.projections), holds) for role in ROLES}


def collection_names(database: Database[Document]) -> set[str]:
    """The collections that the user has any right on."""
    return set(database.list_collection_names(authorizedCollections=True))


def sizes(place: Place, there: set[str]) -> dict[str, int]:
    """About how many documents events and read models have, where they are there."""
    names = {place.settings.events_collection, *place.collections.values()} & there
    return {name: place.database[name].estimated_document_count() for name in names}


def queries(place: Place) -> Iterator[Answered]:
    """The main queries as their modules make them, and how they would be answered."""
    database, settings = place.database, place.settings
    events = database[settings.events_collection]
    store = EventStore(events)
    for group in by_fold(place.projections):
        fold = group[0].fold
        asked = (
            ("all streams in order", store.query(fold)),
            ("a range of streams in order", store.query(fold, within=_A_RANGE)),
            ("some streams", store.query(fold, _SOME_IDS)),
        )
        for what, query in asked:
            yield Answered(f"{what} ({fold.aggregate_type})", events.name, plan_of(events, query))
        versions = plan_of_pipeline(events, version_ranges_of(fold), store.version_index)
        yield Answered(f"versions of all streams ({fold.aggregate_type})", events.name, versions, optional=True)
    for item in place.projections:
        live = database[collection_of(settings, item)]
        model = ReadModelCollection(live, item)
        yield Answered("all documents in order", live.name, plan_of(live, model.query()))
        yield Answered("a range of documents in order", live.name, plan_of(live, model.query(within=_A_RANGE)))
        yield Answered("some documents", live.name, plan_of(live, model.query(_SOME_IDS)))
    tasks = database[settings.repair_queue_collection]
    waiting, abandoned = RepairQueue.due_queries(datetime.now(UTC))
    yield Answered("tasks that are due, in order", tasks.name, plan_of(tasks, waiting))
    yield Answered("tasks of workers that died", tasks.name, plan_of(tasks, abandoned))
    for item in place.projections:
        findings = database[FINDINGS]
        plan = plan_of(findings, Findings.open_query(item.read_model))
        yield Answered(f"open findings of {item.read_model}", FINDINGS, plan)


def findings(place: Place) -> tuple[dict[str, dict[str, int]], dict[str, datetime | None]]:
    """Open findings by read model and outcome; when each read model was verified last."""
    remembered, verifications = Findings(place.database), Verifications(place.database)
    last = {name: verifications.last_verification(name) for name in place.collections}
    return (
        {name: remembered.open_by_outcome(name) for name in place.collections},
        {name: record["started_at"] if record else None for name, record in last.items()},
    )


def leases(database: Database[Document]) -> list[LeaseSeen]:
    """Those that are not given back."""
    return [
        LeaseSeen(item.on or f"repairs of {item.number:,} aggregates", item.holder, item.until, is_gone(item.holder))
        for item in not_given_back(database)
    ]


def rebuilds(place: Place) -> list[RebuildSeen]:
    """Those that are not at their end."""
    now = naive_now(place.database)
    at_work = leases_held(place.database).of_rebuilds
    return [
        RebuildSeen(
            str(record["_id"]),
            RebuildState(record["state"]),
            tuple(record.get("names") or record["read_models"]),
            record["strategy"] == "shadow",
            (now - record["started_at"]).total_seconds(),
            not at_work.isdisjoint(record["read_models"]),
        )
        for record in _unfinished(place)
    ]


def shadows_left(place: Place, there: set[str]) -> set[str]:
    """Shadows of read models that no rebuild goes on with."""
    busy: set[Any] = set(leases_held(place.database).of_rebuilds)
    for record in _unfinished(place):
        if record["strategy"] == "shadow":
            busy.update(record["read_models"])
    return {shadow_name(live) for live in place.collections.values() if live not in busy} & there


def naive_now(database: Database[Document]) -> datetime:
    """The server's time as its dates come back: in UTC, without saying so."""
    return server_time(database).replace(tzinfo=None)


def _unfinished(place: Place) -> list[Document]:
    return Rebuilds(place.database).unfinished(list(place.collections.values()))
