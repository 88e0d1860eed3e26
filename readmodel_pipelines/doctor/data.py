"""Judges collections and their indexes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from readmodel_pipelines.doctor.check import Check, Health, worst
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
    make = "`readmodel ensure-indexes`"
    return Check(
        "indexes",
        # Without a unique index two writers make duplicates; any other makes work slow, and `queries` tells which.
        worst(Health.PROBLEM if flaw.index.unique else Health.WARNING for flaw in counted),
        f"{len(counted)} of the indexes are not as they ought to be.",
        f"Drop what is in their place ({'; '.join(drop)}), then run {make}." if drop else f"{make} makes them.",
        tuple(_told(flaw) for flaw in counted),
    )


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
