"""Reads the facts of one scrape from MongoDB: counts by index, single documents, estimates. No event is ever read.

All of a scrape together has a limit of time that the server knows, too: a scrape never hangs, and nothing works on
after Prometheus has given up. What is cheap comes first, so that a part that takes too long costs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pymongo
from pymongo.database import Database
from pymongo.errors import PyMongoError

from readmodel_pipelines.bookkeeping.findings import Findings
from readmodel_pipelines.bookkeeping.held_leases import leases_held
from readmodel_pipelines.bookkeeping.rebuilds import Rebuilds
from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Verifications
from readmodel_pipelines.errors import raised
from readmodel_pipelines.metrics.facts import Coverage, Ended, Facts, OpenFindings, Rebuilding, Sizes, Unfinished
from readmodel_pipelines.mongo.names import collection_of
from readmodel_pipelines.mongo.scan import ODD_RECORD, Document
from readmodel_pipelines.mongo.server import server_time
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild_state import RebuildState
from readmodel_pipelines.reconcile.summary import EVERYTHING
from readmodel_pipelines.settings import Settings

_LONGEST_WHY = 200


def gather(
    database: Database[Document], settings: Settings, projections: tuple[Projection, ...], seconds: float
) -> Facts:
    """What there is to know, asked for within so many seconds. What MongoDB does not tell is missing in the facts.

    Raises:
        PyMongoError: MongoDB does not answer, or does not let us in.
    """
    collections = {item.read_model: collection_of(settings, item) for item in projections}
    facts = Facts(collections, settings.repair_queue_warning, settings.repair_queue_limit)

    def rebuilds() -> None:
        facts.rebuilds = _rebuilds(database, facts)

    def verifications() -> None:
        facts.verifications = dict(_verifications(database, facts))

    def leases() -> None:
        facts.leases = leases_held(database)

    def sizes() -> None:
        facts.sizes = _sizes(database, settings, facts)

    def findings() -> None:
        remembered = Findings(database)
        facts.findings = {
            name: OpenFindings(remembered.open_by_outcome(name), remembered.oldest_open(name)) for name in collections
        }

    def queue() -> None:
        facts.queue = RepairQueue(database, settings).stats()

    parts: tuple[Callable[[], None], ...] = (rebuilds, verifications, leases, sizes, findings, queue)
    with pymongo.timeout(seconds):
        server_time(database)
        for read in parts:
            facts.parts[read.__name__] = _why_not(read)
    return facts


def _why_not(read: Callable[[], None]) -> str:
    try:
        read()
    except PyMongoError as error:
        return str(error)[:_LONGEST_WHY]
    except ODD_RECORD as error:
        return f"a record has another form ({raised(error)})"[:_LONGEST_WHY]
    return ""


def _rebuilds(database: Database[Document], facts: Facts) -> Rebuilding:
    records = Rebuilds(database)
    done = {}
    for name, collection in facts.collections.items():
        record = records.last_done(collection)
        # The counts come a moment after the end.
        if record is not None and name in record.get("counts", {}):
            done[name] = _done(record, name)
    unfinished: dict[str, Unfinished] = {}
    # The newest first: an older one would be dropped by whoever goes on with it.
    for record in records.unfinished(list(facts.collections.values())):
        found = _unfinished(records, record)
        for name, collection in facts.collections.items():
            if collection in record["read_models"]:
                unfinished.setdefault(name, found)
    return Rebuilding(done, unfinished)


def _done(record: Document, read_model: str) -> Ended:
    took: float = (record["ended_at"] - record["started_at"]).total_seconds()
    # Records of earlier versions do not tell for how long nobody worked on them.
    seconds = max(0.0, took - record.get("idle_seconds", 0.0))
    return Ended(record["ended_at"], seconds, record["events"], record["counts"][read_model])


def _unfinished(records: Rebuilds, record: Document) -> Unfinished:
    progress = records.progress_of(record)
    return Unfinished(
        RebuildState(record["state"]),
        record["started_at"],
        progress.at,
        progress.events,
        progress.ranges_done / record["ranges"] if record["ranges"] else 1.0,
        record.get("passes", 1) == 1,
    )


def _verifications(database: Database[Document], facts: Facts) -> Iterator[tuple[tuple[str, Coverage], Ended]]:
    verifications = Verifications(database)
    asked: tuple[tuple[Coverage, dict[str, Any]], ...] = (
        ("any", {}),
        ("everything", {"tier": "documents", "coverage": EVERYTHING}),
    )
    for name in facts.collections:
        for coverage, about in asked:
            record = verifications.last_verification(name, **about)
            if record is not None:
                yield (name, coverage), _ended(record)


def _ended(record: Document) -> Ended:
    started_at, seconds = record["started_at"], record["seconds"]
    # Records of earlier versions only tell how long it read.
    ended_at = record.get("ended_at") or started_at + timedelta(seconds=seconds)
    return Ended(ended_at, (ended_at - started_at).total_seconds(), record["events"], record["counts"])


def _sizes(database: Database[Document], settings: Settings, facts: Facts) -> Sizes:
    documents = {name: database[item].estimated_document_count() for name, item in facts.collections.items()}
    return Sizes(documents, database[settings.events_collection].estimated_document_count())
