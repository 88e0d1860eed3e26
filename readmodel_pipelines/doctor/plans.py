"""How the server would answer a query, from its `explain`: through an index or by reading everything, sorted or not.

Asking runs nothing: the planner alone is asked. Plans differ between versions and topologies in how they nest, so that
only the names of their stages count, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from readmodel_pipelines.mongo.driver import Collection, Document
from readmodel_pipelines.mongo.scan import Query

# What the server would have done, or does in its own words besides.
_NOT_THE_PLAN = ("rejectedPlans", "slotBasedPlan", "command", "serverInfo", "serverParameters")


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a plan, and the indexes that it reads."""

    stages: frozenset[str]
    indexes: tuple[str, ...] = ()
    arrays: bool = False
    """Whether one of these indexes holds arrays, which keep it from giving an order."""

    @property
    def reads_everything(self) -> bool:
        """Whether every document is read to find those that are asked for."""
        return "COLLSCAN" in self.stages

    @property
    def sorts(self) -> bool:
        """Whether documents are sorted instead of being read in order."""
        return "SORT" in self.stages

    @property
    def nothing_there(self) -> bool:
        """Whether the collection is not there."""
        return self.stages == {"EOF"}


def plan_of(collection: Collection, query: Query) -> Plan:
    """How a query would be answered."""
    find: Document = {"find": collection.name, "filter": query.where}
    more = {"projection": query.fields, "sort": dict(query.sort), "hint": query.index}
    return _explained(collection, find | {name: value for name, value in more.items() if value})


def plan_of_pipeline(collection: Collection, pipeline: Sequence[Mapping[str, Any]], index: str | None) -> Plan:
    """How a pipeline would be answered."""
    command = {"aggregate": collection.name, "pipeline": list(pipeline), "cursor": {}}
    return _explained(collection, command | ({"hint": index} if index else {}))


def _explained(collection: Collection, command: Document) -> Plan:
    return parse(collection.database.command("explain", command, verbosity="queryPlanner"))


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
