"""Examines everything, in order: what needs no MongoDB, the way to it, the server, what lies there, what goes on.

A check that the server does not let anybody make, or does not answer in time, is told as such and costs no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from readmodel_pipelines.bookkeeping.held_leases import not_given_back
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.doctor import gather
from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.configuration import judge_embedded, judge_settings, settings_in_force
from readmodel_pipelines.doctor.data import judge_collections, judge_indexes, judge_queries
from readmodel_pipelines.doctor.gather import Clock, Reached
from readmodel_pipelines.doctor.rights import judge_rights
from readmodel_pipelines.doctor.server import (
    is_local,
    judge_clock,
    judge_connection,
    judge_history,
    judge_too_old,
    judge_topology,
    judge_version,
)
from readmodel_pipelines.doctor.work import judge_findings, judge_leases, judge_queue, judge_rebuilds
from readmodel_pipelines.embedded import mongod_program
from readmodel_pipelines.embedded import server as embedded
from readmodel_pipelines.errors import EmbeddedServerError, MongoUnavailable, ReadModelError, raised
from readmodel_pipelines.mongo.connection import open_database
from readmodel_pipelines.mongo.driver import (
    DENIED,
    ODD_RECORD,
    ConfigurationError,
    OperationFailure,
    PyMongoError,
    timeout,
)
from readmodel_pipelines.mongo.indexes import flaws
from readmodel_pipelines.mongo.rights import role_named
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

ON_SERVER = (
    *("version", "replica set", "clock", "rights", "collections", "indexes", "queries"),
    *("history", "repair queue", "findings", "leases", "rebuilds"),
)
_LONGEST = 300
_SECONDS = 20.0
_local_clock: Clock = partial(datetime.now, UTC)


def examine(
    settings: Settings, role: str = "dagster", *, now: Clock = _local_clock, seconds: float = _SECONDS
) -> Diagnosis:
    """Look at everything for a user who ought to have the rights of `role`; `now` is this machine's clock.

    A check of data or work may take so many seconds.

    Raises:
        UsageError: there is no such role, or the settings name read models that cannot be loaded.
    """
    role_named(role)
    projections = projections_for(settings)
    diagnosis = Diagnosis(settings_in_force(settings), [judge_settings(settings, os.environ)])
    if settings.mongodb_uri is None and not _embedded_runs(settings, diagnosis):
        diagnosis.no_mongodb = MongoUnavailable.exit_code
    else:
        try:
            with open_database(settings) as database:
                _examine_server(Store(database, settings, projections), diagnosis, role, now, seconds)
        except ConfigurationError as error:
            too_old = judge_too_old(str(error))
            if too_old is None:
                raise
            diagnosis.no_mongodb = MongoUnavailable.exit_code
            diagnosis.checks.append(too_old)
        except ReadModelError as error:
            diagnosis.no_mongodb = error.exit_code
            diagnosis.checks.append(Check("connection", Health.PROBLEM, error.message, error.hint))
    if diagnosis.no_mongodb:
        made = {check.name for check in diagnosis.checks}
        diagnosis.not_checked = [name for name in ON_SERVER if name not in made]
    return diagnosis


def _embedded_runs(settings: Settings, diagnosis: Diagnosis) -> bool:
    try:
        status = embedded.status(settings)
        cannot_start = "" if status.running else _why_it_cannot_start(settings)
    except EmbeddedServerError as error:
        diagnosis.checks.append(Check("embedded server", Health.PROBLEM, error.message, error.hint))
        return False
    diagnosis.checks.append(judge_embedded(status, cannot_start))
    return status.running


def _why_it_cannot_start(settings: Settings) -> str:
    try:
        mongod_program.probe(mongod_program.find_mongod(settings.mongod))
    except EmbeddedServerError as error:
        return f"It could not be started either: {error.message} {error.hint}"
    return ""


def _examine_server(store: Store, diagnosis: Diagnosis, role: str, now: Clock, seconds: float) -> None:
    database, settings = store.database, store.settings
    met = gather.reached(database)
    there = _collections_or_refused(store, met)
    diagnosis.checks += [
        judge_connection(settings.shown_uri(), met.hosts, met.user, met.seconds),
        judge_version(met.version),
        judge_topology(met.hello),
        judge_clock(*gather.clock_ahead(database, now), settings.grace_seconds),
        judge_rights(met.user, gather.lacking_by_role(store), role, local=is_local(met.hosts)),
    ]
    for name, make in _of_data_and_work(store, there).items():
        # A server alone keeps no history; a mongos does not tell.
        if name != "history" or "setName" in met.hello:
            diagnosis.checks.append(_told(name, make, seconds))


def _collections_or_refused(store: Store, met: Reached) -> set[str]:
    try:
        return gather.collection_names(store.database)
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
    if met.user:
        return set()
    raise MongoUnavailable(
        f"MongoDB at {store.settings.shown_uri()} answers, and wants somebody to log in.",
        hint="Name user, password and authSource in READMODEL_MONGODB_URI: mongodb://user:password@host/?authSource=…",
    )


def _of_data_and_work(store: Store, there: set[str]) -> dict[str, Callable[[], Check]]:
    database, settings = store.database, store.settings
    return {
        "collections": lambda: judge_collections(
            settings.database, store.events.name, gather.live_names(store), gather.sizes(store, there), there
        ),
        "indexes": lambda: judge_indexes(flaws(database, settings), there),
        "queries": lambda: judge_queries(list(gather.queries(store))),
        "history": lambda: judge_history(
            gather.history(database), list(gather.needed_history(store)), gather.longest_rebuild_seconds(store)
        ),
        "repair queue": lambda: judge_queue(
            RepairQueue(database, settings).stats(), settings.repair_queue_warning, settings.repair_queue_limit
        ),
        "findings": lambda: judge_findings(*gather.findings(store), gather.naive_now(database)),
        "leases": lambda: judge_leases(not_given_back(database), gather.naive_now(database)),
        "rebuilds": lambda: judge_rebuilds(
            *gather.rebuilds(store, there), gather.naive_now(database), settings.rebuild_valid_days
        ),
    }


def _told(name: str, make: Callable[[], Check], seconds: float) -> Check:
    try:
        with timeout(seconds):
            return make()
    except PyMongoError as error:
        if error.timeout:
            hint = (
                "See what keeps the server busy: db.currentOp(), its log. A missing index does, on a large collection."
            )
            return Check(name, Health.PROBLEM, f"MongoDB did not tell within {seconds:g} s.", hint)
        if not isinstance(error, OperationFailure):
            raise
        if error.code in DENIED:
            hint = "`readmodel rights read_only` prints the role that may."
            return Check(name, Health.WARNING, "This user may not look at it.", hint)
        told = str((error.details or {}).get("errmsg", error))[:_LONGEST]
        return Check(name, Health.PROBLEM, f"MongoDB does not tell (error {error.code}): {told}")
    except ODD_RECORD as error:
        hint = "Look at the readmodel_… collections: somebody else, or another version, wrote there."
        return Check(name, Health.PROBLEM, f"A record has another form ({raised(error)}).", hint)
