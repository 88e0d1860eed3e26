"""Reads the facts that are judged: everything here asks the server, with the commands and queries of ordinary work.

Nothing is written, no event is read, and no query is run to see how fast it is: the server only explains it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from readmodel_pipelines.bookkeeping.findings import Findings
from readmodel_pipelines.bookkeeping.held_leases import leases_held
from readmodel_pipelines.bookkeeping.rebuild_record import RebuildRecord, record_of
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.doctor.data import Answered
from readmodel_pipelines.doctor.plans import plan_of, plan_of_pipeline
from readmodel_pipelines.doctor.rights import Lacking
from readmodel_pipelines.doctor.server import History
from readmodel_pipelines.mongo.changes import time_of
from readmodel_pipelines.mongo.driver import DENIED, Collection, Database, Document, OperationFailure, server_time
from readmodel_pipelines.mongo.event_store import EventStore, version_ranges_of
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.rights import ROLES, held, lacking, privileges
from readmodel_pipelines.mongo.scan import Query
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import by_fold
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.ranges import IdRange

Clock = Callable[[], datetime]

_CLOCK_LOOKS = 3
_SOME_IDS = ("00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff")
_A_RANGE = IdRange("4", "8")
_LEAN = {"metrics": 0, "tcmalloc": 0, "wiredTiger": 0}


@dataclass(frozen=True, slots=True)
class Reached:
    """What the first words with the server told; `user` is empty when nobody is logged in."""

    hosts: Sequence[str]
    user: str
    version: str
    hello: Document
    seconds: float


def reached(database: Database) -> Reached:
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


def clock_ahead(database: Database, now: Clock) -> tuple[float, float]:
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


def history(database: Database) -> History | None:
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


def needed_history(store: Store) -> Iterator[tuple[str, datetime]]:
    """What goes on from a moment in the history of changes, and that moment, naive."""
    for read_model, moment in Verifications(store.database).verified_up_to().items():
        yield f"the last verification of {read_model}", moment.replace(tzinfo=None)
    for record in _unfinished(store):
        if record.token:
            yield f"the rebuild {record.id}", time_of(record.token).as_datetime().replace(tzinfo=None)


def longest_rebuild_seconds(store: Store) -> float:
    """How long the longest of the last rebuilds took that are done."""
    done = Rebuilds(store.database).listed(state=RebuildState.DONE.value)
    return max((record_of(item).seconds for item in done), default=0.0)


def lacking_by_role(store: Store) -> dict[str, Lacking] | None:
    """What the user lacks of every role; None when nobody is logged in."""
    holds = held(store.database)
    if holds is None:
        return None
    return {role.name: lacking(privileges(role, store.settings), holds) for role in ROLES}


def collection_names(database: Database) -> set[str]:
    """The collections that the user has any right on."""
    return set(database.list_collection_names(authorizedCollections=True))


def sizes(store: Store, there: set[str]) -> dict[str, int]:
    """About how many documents events and read models have, where they are there."""
    names = {store.events.name, *live_names(store)} & there
    return {name: store.database[name].estimated_document_count() for name in names}


def queries(store: Store) -> Iterator[Answered]:
    """The main queries as their modules make them, and how they would be answered."""
    events = EventStore(store.events)
    for group in by_fold(store.projections):
        fold = group[0].fold
        of_fold = f"({fold.aggregate_type})"
        yield _answered(f"all streams in order {of_fold}", store.events, events.query(fold))
        yield _answered(f"a range of streams in order {of_fold}", store.events, events.query(fold, within=_A_RANGE))
        yield _answered(f"some streams {of_fold}", store.events, events.query(fold, _SOME_IDS))
        versions = plan_of_pipeline(store.events, version_ranges_of(fold), events.version_index)
        yield Answered(f"versions of all streams {of_fold}", store.events.name, versions, optional=True)
    for item in store.projections:
        live = store.live(item)
        model = ReadModelCollection(live, item)
        yield _answered("all documents in order", live, model.query())
        yield _answered("a range of documents in order", live, model.query(within=_A_RANGE))
        yield _answered("some documents", live, model.query(_SOME_IDS))
    tasks = store.database[store.settings.repair_queue_collection]
    waiting, abandoned = RepairQueue.due_queries(datetime.now(UTC))
    yield _answered("tasks that are due, in order", tasks, waiting)
    yield _answered("tasks of workers that died", tasks, abandoned)
    for name in (item.read_model for item in store.projections):
        yield _answered(f"open findings of {name}", store.database[FINDINGS], Findings.open_query(name))


def _answered(what: str, collection: Collection, query: Query) -> Answered:
    return Answered(what, collection.name, plan_of(collection, query))


def findings(store: Store) -> tuple[dict[str, dict[str, int]], dict[str, datetime | None]]:
    """Open findings by read model and outcome; when each read model was verified last."""
    remembered, verifications = Findings(store.database), Verifications(store.database)
    names = [item.read_model for item in store.projections]
    last = {name: verifications.last_verification(name) for name in names}
    return (
        {name: remembered.open_by_outcome(name) for name in names},
        {name: record["started_at"] if record else None for name, record in last.items()},
    )


def rebuilds(store: Store, there: set[str]) -> tuple[list[RebuildRecord], frozenset[str], set[str]]:
    """Those that are not at their end, the live collections that any holds, and shadows that none goes on with."""
    unfinished, held = _unfinished(store), leases_held(store.database).of_rebuilds
    busy = {*held, *(live for record in unfinished if record.in_shadow for live in record.read_models)}
    left = {store.shadow(item).name for item in store.projections if store.live(item).name not in busy}
    return unfinished, held, left & there


def naive_now(database: Database) -> datetime:
    """The server's time as its dates come back: in UTC, without saying so."""
    return server_time(database).replace(tzinfo=None)


def _unfinished(store: Store) -> list[RebuildRecord]:
    return Rebuilds(store.database).unfinished(live_names(store))


def live_names(store: Store) -> list[str]:
    """The live collection of every read model."""
    return [store.live(item).name for item in store.projections]
