"""Judges collections, their indexes, and how the server would answer the main queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from readmodel_pipelines.doctor.check import Check, Health, worst
from readmodel_pipelines.doctor.plans import Plan
from readmodel_pipelines.mongo.indexes import Flaw
from readmodel_pipelines.mongo.wanted_indexes import VERSIONS

_SHOWN = 8


def judge_collections(
    database: str, events: str, read_models: Sequence[str], sizes: Mapping[str, int], there: Collection[str]
) -> Check:
    """Whether events and read models are where they are looked for; `sizes` of those that are `there`."""
    held = ", ".join(f"{name} about {sizes[name]:,}" for name in (events, *read_models) if name in sizes)
    if not sizes.get(events):
        others = sorted(name for name in there if name not in (events, *read_models))
        instead = f" The database has {', '.join(others[:_SHOWN])}." if others else " The database is empty."
        return Check(
            "collections",
            Health.WARNING,
            f"{database}.{events} holds no event, or is not there.{instead}",
            "Check READMODEL_DATABASE and READMODEL_EVENTS_COLLECTION.",
        )
    empty = [name for name in read_models if not sizes.get(name)]
    if empty:
        return Check(
            "collections",
            Health.WARNING,
            f"Documents in {database}: {held}. There is nothing in {', '.join(empty)}.",
            "`readmodel rebuild-readmodel --type all --all` makes it from the events.",
        )
    return Check("collections", Health.OK, f"Documents in {database}: {held}.")


def judge_indexes(flaws: Sequence[Flaw], there: Collection[str]) -> Check:
    """Whether the indexes are as wanted. What is not there yet needs none: a rebuild and `ensure-indexes` make them."""
    counted = [flaw for flaw in flaws if flaw.collection in there]
    if not counted:
        return Check("indexes", Health.OK, "Every index is there, on every collection that is.")
    drop = [f"db.getCollection({flaw.collection!r}).dropIndex({flaw.instead!r})" for flaw in counted if flaw.in_the_way]
    first = f"Drop what is in their place ({'; '.join(drop)}), then run " if drop else ""
    make = "`readmodel ensure-indexes`" + ("." if drop else " makes them.")
    return Check(
        "indexes",
        worst(*(_state_of(flaw) for flaw in counted)),
        f"{len(counted)} of the indexes are not as they ought to be.",
        f"{first}{make}",
        tuple(_told(flaw) for flaw in counted),
    )


def _state_of(flaw: Flaw) -> Health:
    # Without a unique index two writers make duplicates; any other makes work slow, and `queries` tells which.
    return Health.PROBLEM if flaw.index.unique else Health.WARNING


def _told(flaw: Flaw) -> str:
    fields = ", ".join(name for name, _ in flaw.index.key)
    unique = "unique index" if flaw.index.unique else "index"
    for_what = " (only --tier versions needs it)" if flaw.index == VERSIONS else ""
    match flaw.kind:
        case "missing":
            return f"{flaw.collection}: no {unique} on {fields}{for_what}"
        case "other":
            return f"{flaw.collection}: {flaw.instead} on {fields} is no {unique} as it ought to be"
        case "expiry":
            return f"{flaw.collection}: {flaw.instead} lets documents expire at another time than the settings say"


@dataclass(frozen=True, slots=True)
class Answered:
    """A query in words, its collection, and its plan; `optional` when what asks it can be left undone."""

    what: str
    collection: str
    plan: Plan
    optional: bool = False


def judge_queries(queries: Sequence[Answered]) -> Check:
    """Whether the main queries are answered through indexes, in the order that they ask for."""
    asked = [query for query in queries if not query.plan.nothing_there]
    wrong = [(query, told) for query in asked if (told := _against(query))]
    if not asked:
        return Check("queries", Health.OK, "No collection is there yet that a query could be slow on.")
    if not wrong:
        return Check("queries", Health.OK, f"All {len(asked)} main queries read an index, in order (explain).")
    arrays = [query for query, _ in wrong if query.plan.arrays]
    hint = "`readmodel ensure-indexes` makes the indexes that are missing."
    if arrays:
        hint += (
            " An index that holds an array, or ever did, gives no order: find the events or documents whose id is an "
            "array (`readmodel verify-consistency --type all --all`), remove them, then drop the index and make it "
            "anew."
        )
    return Check(
        "queries",
        worst(*(Health.WARNING if query.optional else Health.PROBLEM for query, _ in wrong)),
        f"{len(wrong)} of {len(asked)} main queries are not answered by an index alone (explain).",
        hint,
        tuple(f"{query.collection}, {query.what}: {told}" for query, told in wrong),
    )


def _against(query: Answered) -> str:
    if query.plan.reads_everything:
        return "reads every document" + (" and sorts them in memory" if query.plan.sorts else "")
    if query.plan.sorts:
        why = " (it holds arrays)" if query.plan.arrays else ""
        return f"sorts in memory what it finds by {', '.join(query.plan.indexes)}{why}"
    return ""
