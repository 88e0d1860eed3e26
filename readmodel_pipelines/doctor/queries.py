"""Checks from `explain` whether the server answers the main queries through an index and in order.

Only the planner runs, no query. Plans nest differently by version and topology, so only the names of their stages
count, at any depth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from readmodel_pipelines.bookkeeping.repair_queue import RepairQueue
from readmodel_pipelines.bookkeeping.verifications import Findings
from readmodel_pipelines.doctor.check import Check, Health, worst
from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.event_store import EventStore
from readmodel_pipelines.mongo.names import FINDINGS
from readmodel_pipelines.mongo.read_model import ReadModelCollection
from readmodel_pipelines.mongo.scan import Query
from readmodel_pipelines.mongo.store import Store
from readmodel_pipelines.mongo.stream_ends import last_versions
from readmodel_pipelines.projections.registry import by_fold
from readmodel_pipelines.reconcile.ranges import IdRange

_SOME_IDS = ("00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff")
_A_RANGE = IdRange("4", "8")
# The plans that the server rejected, or describes a second time in other terms.
_NOT_THE_PLAN = ("rejectedPlans", "slotBasedPlan", "command", "serverInfo", "serverParameters")


@dataclass(frozen=True, slots=True)
class Plan:
    """The names of a plan's stages, its indexes, and whether one of them is multikey.

    A multikey index, which holds arrays, gives no order.
    """

    stages: frozenset[str]
    indexes: tuple[str, ...] = ()
    arrays: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """A query in words, its collection, and its plan; `optional` if the feature that uses it is not needed."""

    what: str
    collection: str
    plan: Plan
    optional: bool = False


def queries(store: Store) -> Iterator[Answered]:
    """The main queries as their modules build them, and their plans."""
    events = EventStore(store.events)
    versions = {"aggregate": store.events.name, "pipeline": last_versions(), "cursor": {}}
    for group in by_fold(store.projections):
        fold = group[0].fold
        of_fold = f"({fold.aggregate_type})"
        yield _found(f"all streams in order {of_fold}", store.events, events.query(fold))
        yield _found(f"a range of streams in order {of_fold}", store.events, events.query(fold, within=_A_RANGE))
        yield _found(f"some streams {of_fold}", store.events, events.query(fold, _SOME_IDS))
        yield _answered(f"versions of all streams {of_fold}", store.events, versions, optional=True, hint=events.index)
    for item in store.projections:
        live = store.live(item)
        model = ReadModelCollection(live, item)
        yield _found("all documents in order", live, model.query())
        yield _found("a range of documents in order", live, model.query(within=_A_RANGE))
        yield _found("some documents", live, model.query(_SOME_IDS))
    tasks = store.repair_queue
    waiting, abandoned = RepairQueue.due_queries(datetime.now(UTC), store.settings.repair_lease_seconds)
    yield _found("tasks that are due, in order", tasks, waiting)
    yield _found("tasks of workers that died", tasks, abandoned)
    for item in store.projections:
        query = Findings.open_query(item.read_model)
        yield _found(f"open findings of {item.read_model}", Collection(store.database, FINDINGS), query)


def _found(what: str, collection: Collection, query: Query) -> Answered:
    find = {"find": collection.name, "filter": query.where}
    return _answered(what, collection, find, projection=query.fields, sort=dict(query.sort), hint=query.index)


def _answered(what: str, collection: Collection, command: Document, *, optional: bool = False, **more: Any) -> Answered:
    explained = collection.plan(command | {name: value for name, value in more.items() if value})
    return Answered(what, collection.name, parse(explained), optional)


def parse(explained: Mapping[str, Any]) -> Plan:
    """The plan in an answer of the server."""
    parts = list(_parts(explained))
    return Plan(
        frozenset(part["stage"] for part in parts),
        tuple(dict.fromkeys(part["indexName"] for part in parts if "indexName" in part)),
        any(part.get("isMultiKey") for part in parts),
    )


def _parts(plan: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(plan, Mapping):
        if isinstance(plan.get("stage"), str):
            yield plan
        for name, part in plan.items():
            if name not in _NOT_THE_PLAN:
                yield from _parts(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from _parts(part)


def judge_queries(queries: Sequence[Answered]) -> Check:
    """Whether the main queries are answered through indexes, in the requested order."""
    # The plan for a collection that does not exist.
    asked = [query for query in queries if query.plan.stages != {"EOF"}]
    wrong = [(query, told) for query in asked if (told := _against(query.plan))]
    if not asked:
        return Check("queries", Health.OK, "No collection exists yet, so no query can be slow.")
    if not wrong:
        return Check("queries", Health.OK, f"All {len(asked)} main queries read an index, in order (explain).")
    hint = "`readmodel ensure-indexes` creates the missing indexes."
    if any(query.plan.arrays for query, _ in wrong):
        hint += (
            " An index that holds an array, or ever did, gives no order. Find the events or documents whose id is an "
            "array (`readmodel verify-consistency --type all --all`) and remove them. Then drop the index and create "
            "it again."
        )
    return Check(
        "queries",
        worst(Health.WARNING if query.optional else Health.PROBLEM for query, _ in wrong),
        f"{len(wrong)} of {len(asked)} main queries are not answered by an index alone (explain).",
        hint,
        tuple(f"{query.collection}, {query.what}: {told}" for query, told in wrong),
    )


def _against(plan: Plan) -> str:
    sorts = "SORT" in plan.stages
    if "COLLSCAN" in plan.stages:
        return "reads every document" + (" and sorts them in memory" if sorts else "")
    why = " (it holds arrays)" if plan.arrays else ""
    return f"sorts in memory, after a scan of {', '.join(plan.indexes)}{why}" if sorts else ""
