"""Examines everything, in order: what needs no MongoDB, the way to it, the server, what lies there, what goes on.

A check that the server does not let anybody make, or does not answer in time, is told as such and costs no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pymongo
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.doctor import gather
from readmodel_pipelines.doctor.check import Check, Diagnosis, Health
from readmodel_pipelines.doctor.configuration import judge_embedded, judge_settings, settings_in_force
from readmodel_pipelines.doctor.data import judge_collections, judge_indexes, judge_queries
from readmodel_pipelines.doctor.gather import Clock, Place, Reached
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
from readmodel_pipelines.mongo.indexes import flaws
from readmodel_pipelines.mongo.rights import role_named
from readmodel_pipelines.mongo.scan import ODD_RECORD
from readmodel_pipelines.mongo.server import DENIED
from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.settings import Settings

ON_SERVER = (
    *("version", "replica set", "clock", "rights", "collections", "indexes", "queries"),
    *("history", "repair queue", "findings", "leases", "rebuilds"),
)
_LONGEST = 300
_SECONDS = 20.0


def _local_clock() -> datetime:
    return datetime.now(UTC)


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
                _examine_server(Place(database, settings, projections), diagnosis, role, now, seconds)
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


def _examine_server(place: Place, diagnosis: Diagnosis, role: str, now: Clock, seconds: float) -> None:
    database, settings = place.database, place.settings
    met = gather.reached(database)
    there = _collections_or_refused(place, met)
    diagnosis.checks += [
        judge_connection(settings.shown_uri(), met.hosts, met.user, met.seconds),
        judge_version(met.version),
        judge_topology(met.hello),
        judge_clock(*gather.clock_ahead(database, now), settings.grace_seconds),
        judge_rights(met.user, gather.lacking_by_role(place), role, local=is_local(met.hosts)),
    ]
    for name, make in (*_of_data(place, there), *_of_work(place, there, met)):
        diagnosis.checks.append(_told(name, make, seconds))


def _collections_or_refused(place: Place, met: Reached) -> set[str]:
    with _unless_denied():
        return gather.collection_names(place.database)
    if met.user:
        return set()
    raise MongoUnavailable(
        f"MongoDB at {place.settings.shown_uri()} answers, and wants somebody to log in.",
        hint="Name user, password and authSource in READMODEL_MONGODB_URI: mongodb://user:password@host/?authSource=…",
    )


def _of_data(place: Place, there: set[str]) -> list[tuple[str, Callable[[], Check]]]:
    settings, models = place.settings, list(place.collections.values())

    def collections() -> Check:
        sizes = gather.sizes(place, there)
        return judge_collections(settings.database, settings.events_collection, models, sizes, there)

    return [
        ("collections", collections),
        ("indexes", lambda: judge_indexes(flaws(place.database, settings, place.projections), there)),
        ("queries", lambda: judge_queries(list(gather.queries(place)))),
    ]


def _of_work(place: Place, there: set[str], met: Reached) -> list[tuple[str, Callable[[], Check]]]:
    database, settings = place.database, place.settings

    def history() -> Check:
        needed = list(gather.needed_history(place))
        return judge_history(gather.history(database), needed, gather.longest_rebuild_seconds(place))

    def queue() -> Check:
        stats = RepairQueue(database, settings).stats()
        return judge_queue(stats, settings.repair_queue_warning, settings.repair_queue_limit)

    def rebuilds() -> Check:
        left = gather.shadows_left(place, there)
        return judge_rebuilds(gather.rebuilds(place), left, settings.rebuild_valid_days)

    checks: list[tuple[str, Callable[[], Check]]] = [
        ("repair queue", queue),
        ("findings", lambda: judge_findings(*gather.findings(place), gather.naive_now(database))),
        ("leases", lambda: judge_leases(gather.leases(database), gather.naive_now(database))),
        ("rebuilds", rebuilds),
    ]
    # A server alone keeps no history; a mongos does not tell.
    return [("history", history), *checks] if "setName" in met.hello else checks


def _told(name: str, make: Callable[[], Check], seconds: float) -> Check:
    try:
        with pymongo.timeout(seconds):
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


@contextmanager
def _unless_denied() -> Iterator[None]:
    try:
        yield
    except OperationFailure as error:
        if error.code not in DENIED:
            raise
