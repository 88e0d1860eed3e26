"""Runs all checks in order: settings, embedded server, connection, server, data, work.

A check that the server refuses or does not answer in time is reported as such; the others still run.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from readmodel_pipelines.bookkeeping.held_leases import taken_leases
from readmodel_pipelines.bookkeeping.rebuild_record import record_of
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Findings, Verifications
from readmodel_pipelines.doctor import queries, server, work
from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.configuration import judge_embedded, judge_settings, settings_in_force
from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.env_file import contradicted
from readmodel_pipelines.errors import (
    EmbeddedServerError,
    MongoUnavailable,
    ReadModelError,
    ServerTooOld,
    UnsuitableCollection,
    raised,
)
from readmodel_pipelines.mongo.changes import time_of
from readmodel_pipelines.mongo.client import passed_over
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import (
    DENIED,
    ODD_RECORD,
    Collection,
    Database,
    OperationFailure,
    PyMongoError,
    server_time,
    timeout,
)
from readmodel_pipelines.mongo.indexes import flaws
from readmodel_pipelines.mongo.kinds import check_kinds
from readmodel_pipelines.mongo.read_order import reading_of
from readmodel_pipelines.mongo.rights import LOG_IN, ROLES, held, lacking, privileges, role_named
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.reading import spool_dir
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.settings import Settings

Clock = Callable[[], datetime]

ON_SERVER = (
    *("version", "replica set", "clock", "rights", "collections", "indexes", "queries", "reading"),
    *("history", "repair queue", "findings", "leases", "rebuilds"),
)
_LONGEST = 300
_SECONDS = 20.0
_local_clock: Clock = partial(datetime.now, UTC)


def examine(
    settings: Settings, role: str = "dagster", *, now: Clock = _local_clock, seconds: float = _SECONDS
) -> Diagnosis:
    """Run all checks for a user who should have the rights of `role`; `now` is this machine's clock.

    `seconds` limits each check of data or work.

    Raises:
        UsageError: there is no such role, or the settings name read models that cannot be loaded.
    """
    role_named(role)
    projections = projections_for(settings)
    diagnosis = Diagnosis(
        settings_in_force(settings), [judge_settings(settings, os.environ, contradicted(os.environ, Path.cwd()))]
    )
    if settings.mongodb_uri is None:
        diagnosis.checks.append(_embedded_server(settings))
    if diagnosis.state is Health.PROBLEM:
        diagnosis.no_mongodb = MongoUnavailable.exit_code
    else:
        try:
            with open_database(settings, waits=False) as database:
                _examine_server(Store(database, settings, projections), diagnosis, role, now, seconds)
        except ServerTooOld as error:
            diagnosis.no_mongodb = error.exit_code
            diagnosis.checks.append(server.too_old(error.message))
        except ReadModelError as error:
            diagnosis.no_mongodb = error.exit_code
            diagnosis.checks.append(Check("connection", Health.PROBLEM, error.message, error.hint))
    if diagnosis.no_mongodb:
        made = {check.name for check in diagnosis.checks}
        diagnosis.not_checked = [name for name in ON_SERVER if name not in made]
    return diagnosis


def _embedded_server(settings: Settings) -> Check:
    try:
        status = embedded.status(settings)
        return judge_embedded(status, "" if status.running else _why_it_cannot_start(settings))
    except EmbeddedServerError as error:
        return Check("embedded server", Health.PROBLEM, error.message, error.hint)


def _why_it_cannot_start(settings: Settings) -> str:
    try:
        mongod_program.probe(mongod_program.find_mongod(settings.mongod))
    except EmbeddedServerError as error:
        return f"It could not be started either: {error.message} {error.hint}"
    return ""


def _examine_server(store: Store, diagnosis: Diagnosis, role: str, now: Clock, seconds: float) -> None:
    database, settings = store.database, store.settings
    admin = database.client.admin
    hello = admin.command("hello")
    began = time.perf_counter()
    admin.command("ping")
    took = time.perf_counter() - began
    users = admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    user = f"{users[0]['user']}@{users[0]['db']}" if users else ""
    hosts = sorted(host for host, _ in database.client.nodes)
    there = _collections_or_refused(store, user)
    holds = held(database)
    lacks = None if holds is None else {item.name: lacking(privileges(item, settings), holds) for item in ROLES}
    diagnosis.checks += [
        server.judge_connection(settings.shown_uri(), hosts, user, took, passed_over(settings)),
        server.judge_version(str(admin.command("buildInfo")["version"])),
        server.judge_topology(hello),
        server.judge_clock(*server.clock_ahead(database, now), settings.grace_seconds),
        server.judge_rights(user, lacks, role, local=server.is_local(hosts)),
    ]
    for name, make in _of_data_and_work(store, there).items():
        # A standalone server has no oplog, and mongos does not show it.
        if name != "history" or "setName" in hello:
            diagnosis.checks.append(_told(name, make, seconds))


def _collections_or_refused(store: Store, user: str) -> set[str]:
    try:
        return set(store.database.list_collection_names(authorizedCollections=True))
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
    if user:
        return set()
    raise MongoUnavailable(f"MongoDB at {store.settings.shown_uri()} answers and requires a login.", hint=LOG_IN)


def _of_data_and_work(store: Store, there: set[str]) -> dict[str, Callable[[], Check]]:
    database, settings, events = store.database, store.settings, store.events.name
    live = [store.live(item).name for item in store.projections]

    def sizes() -> dict[str, int]:
        return {
            name: Collection(database, name).estimated_document_count() for name in (events, *live) if name in there
        }

    return {
        "collections": lambda: _kinds(store) or work.judge_collections(settings.database, events, live, sizes(), there),
        "indexes": lambda: work.judge_indexes(flaws(database, settings), there),
        "queries": lambda: queries.judge_queries(list(queries.queries(store))),
        "reading": lambda: work.judge_reading(reading_of(store.events, settings), spool_dir(settings)),
        "history": lambda: _history(database, live),
        "repair queue": lambda: work.judge_queue(
            RepairQueue(database, settings).stats(), settings.repair_queue_warning, settings.repair_queue_limit
        ),
        "findings": lambda: _findings(store),
        "leases": lambda: work.judge_leases(taken_leases(database), _naive_now(database)),
        "rebuilds": lambda: _rebuilds(store, live, there),
    }


def _kinds(store: Store) -> Check | None:
    """The reason why collections cannot be used because of their kind; None if all can."""
    try:
        warnings = store.check(writes=True)
        check_kinds(store.database, written=[store.repair_queue.name])
    except UnsuitableCollection as error:
        return Check("collections", Health.PROBLEM, error.message, error.hint)
    if not warnings:
        return None
    hint = "Drop that index, or accept that documents expire."
    return Check("collections", Health.WARNING, warnings[0], hint, tuple(warnings[1:]))


def _history(database: Database, live: Sequence[str]) -> Check:
    rebuilds = Rebuilds(database)
    verified = Verifications(database).verified_up_to()
    needed = [(f"the last verification of {name}", moment) for name, moment in verified.items()]
    going = [record for record in rebuilds.unfinished(live) if record.token]
    needed += [(f"the rebuild {record.id}", time_of(record.token).as_datetime()) for record in going]
    done = rebuilds.listed(state=RebuildState.DONE.value)
    longest = max((record_of(item).seconds for item in done), default=0.0)
    return server.judge_history(server.history(database), needed, longest)


def _findings(store: Store) -> Check:
    remembered, verifications = Findings(store.database), Verifications(store.database)
    names = [item.read_model for item in store.projections]
    last = {name: verifications.last_verification(name) for name in names}
    return work.judge_findings(
        {name: remembered.open_by_outcome(name) for name in names},
        {name: record["started_at"] if record else None for name, record in last.items()},
        _naive_now(store.database),
    )


def _rebuilds(store: Store, live: Sequence[str], there: set[str]) -> Check:
    unfinished = Rebuilds(store.database).unfinished(live)
    held = {lease.on for lease in taken_leases(store.database) if lease.is_at_work()}
    busy = {*held, *(name for record in unfinished if record.in_shadow for name in record.read_models)}
    left = {
        name for item in store.projections if store.live(item).name not in busy for name in store.shadow_names(item)
    }
    return work.judge_rebuilds(
        unfinished, held, left & there, _naive_now(store.database), store.settings.rebuild_valid_days
    )


def _naive_now(database: Database) -> datetime:
    """The server's time like its dates in results: in UTC, without a time zone."""
    return server_time(database).replace(tzinfo=None)


def _told(name: str, make: Callable[[], Check], seconds: float) -> Check:
    try:
        with timeout(seconds):
            return make()
    except PyMongoError as error:
        if error.timeout:
            hint = "db.currentOp() and the server's log show why it is busy. A large collection may lack an index."
            return Check(name, Health.PROBLEM, f"MongoDB did not answer within {seconds:g} s.", hint)
        if not isinstance(error, OperationFailure):
            raise
        if error.code in DENIED:
            hint = "`readmodel rights read_only` prints a role with this right."
            return Check(name, Health.WARNING, "This user may not read it.", hint)
        told = str((error.details or {}).get("errmsg", error))[:_LONGEST]
        return Check(name, Health.PROBLEM, f"MongoDB answered with error {error.code}: {told}")
    except ODD_RECORD as error:
        hint = "Another version or program wrote to a readmodel_… collection. Correct or delete that document."
        return Check(name, Health.PROBLEM, f"A record has another form ({raised(error)}).", hint)
