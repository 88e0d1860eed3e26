"""A database whose documents lack chosen updates, and how what a verification says of them is held against that."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from readmodel_pipelines.projections.registry import projections_for
from readmodel_pipelines.reconcile.summary import Summary
from readmodel_pipelines_tests.support.lost_updates import Chosen, Events, stored_without
from readmodel_pipelines_tests.support.scene import Scene

Lost = Mapping[tuple[str, str], set[int]]
"""By read model and aggregate, the versions whose updates were lost."""


def streams_of(scene: Scene) -> dict[str, Events]:
    made: dict[str, Events] = {}
    for event in scene.events.find(sort=[("aggregate_id", 1), ("version", 1)]):
        made.setdefault(event["aggregate_id"], []).append(event)
    return made


def lose(scene: Scene, chosen: Chosen, seed: int = 1, some: Callable[[str], bool] = lambda _: True) -> Lost:
    """Have the documents of some aggregates lack what is chosen; gives what was lost of each."""
    random, lost = Random(seed), dict[tuple[str, str], set[int]]()
    for key, events in streams_of(scene).items():
        versions = chosen(events, random) if some(key) else set()
        for projection in projections_for(scene.settings) if versions else ():
            collection = scene.collection(projection.read_model)
            stored = stored_without(projection, key, events, versions)
            collection.delete_one({projection.key: key})
            if stored is not None:
                collection.insert_one(stored)
            lost[projection.read_model, key] = versions
    return lost


def held_against(summary: Summary, lost: Lost) -> tuple[int, int, list[Any]]:
    """How many findings there are, of how many the cause is right, and those that name an event that was applied."""
    right, lies = 0, []
    for finding in summary.findings:
        truth = lost.get((finding.read_model, finding.aggregate_id), set())
        named = {event.version for event in finding.cause.lost or finding.cause.one_of} if finding.cause else set()
        right += bool(named & truth)
        if finding.cause and not {event.version for event in finding.cause.lost} <= truth:
            lies.append(finding)
    return len(summary.findings), right, lies
