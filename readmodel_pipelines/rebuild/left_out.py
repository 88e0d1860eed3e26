"""Read models whose shadow cannot replace the live collection: each is left out, or the whole rebuild is refused."""

from collections.abc import Collection
from dataclasses import replace

from readmodel_pipelines.cutover.built import drop, identities
from readmodel_pipelines.projections.names import BUILT_IN
from readmodel_pipelines.projections.projection import Projection
from readmodel_pipelines.rebuild.catch_up import CatchUp
from readmodel_pipelines.rebuild.finish import Refused
from readmodel_pipelines.rebuild.this_run import Run

LEFT_OUT = ""
"""Stored on the record in place of the shadow's identity, for a read model that is left out."""


def leave_out(run: Run, catch_up: CatchUp, item: Projection, why: str) -> None:
    """Leave out this read model, which stays unchanged; the rebuild continues with the others."""
    counts = run.summary.read_models[item.read_model]
    counts.failed += max(1, counts.written)
    counts.inserted = counts.replaced = counts.deleted = 0
    run.warn(f"{item.read_model} was left out and is unchanged: {why}")
    run.record = replace(run.record, shadows={**run.record.shadows, item.read_model: LEFT_OUT})
    run.rebuilds.note(run.record, shadows=run.record.shadows)
    drop(run.store.database, [fence for name, fence in run.built.items() if name == item.read_model])
    run.store = catch_up.store = run.store.of(other for other in run.store.projections if other is not item)


def may_go_without(run: Run, items: Collection[Projection]) -> bool:
    """Whether the rebuild can continue without these: all are added projections, and others remain."""
    return len(items) < len(run.store.projections) and not any(item.name in BUILT_IN for item in items)


def refuse(run: Run, why: str) -> Refused:
    """Refuse the whole rebuild. Nothing of it is written, so its counts are removed too."""
    # The obstacle may be the run that took over.
    run.held.confirm()
    for item in run.store.projections:
        counts = run.summary.read_models[item.read_model]
        counts.inserted = counts.replaced = counts.deleted = 0
    return Refused(why)


def check_lives(run: Run) -> None:
    """Raise `Refused` if a live collection was replaced since its shadow was begun."""
    lives = {item.read_model: run.store.live(item).name for item in run.store.projections}
    now = identities(run.store.database, lives.values())
    for read_model, live in lives.items():
        before = run.record.lives.get(read_model)
        if before and now.get(live) != before:
            raise refuse(run, replaced(run, live))


def replaced(run: Run, live: str) -> str:
    """The message that it was replaced."""
    of_it = [item.read_model for item in run.store.projections if run.store.live(item).name == live]
    shadows = [run.built[read_model].name for read_model in of_it if read_model in run.built]
    return (
        f"{live} was dropped or replaced while its shadow was built, so nothing was cut over. Rebuild again; it begins "
        f"with the new collection. If the drop was a mistake: until then, {' and '.join(shadows)} still has the "
        f"documents, with their foreign fields."
    )
