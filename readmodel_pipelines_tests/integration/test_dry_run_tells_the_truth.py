"""A dry run says exactly what the rebuild then does, whatever is broken at once: seeded random damage."""

from random import Random
from typing import Any

import pytest

from readmodel_pipelines_tests.support.scene import Scene
from readmodel_pipelines_tests.support.vandal import Vandal

WRITES = ("inserted", "replaced", "deleted", "failed")


def writes(summary: Any) -> dict[str, dict[str, int]]:
    return {name: {write: getattr(counts, write) for write in WRITES} for name, counts in summary.read_models.items()}


def told(summary: Any) -> list[tuple[Any, ...]]:
    """What each finding says; a failed one has its reason there."""
    return sorted(
        (item.read_model, repr(item.aggregate_id), item.outcome, str(item.reason)) for item in summary.findings
    )


@pytest.fixture(params=["chat", "task"])
def any_scene(request: pytest.FixtureRequest) -> Scene:
    scene: Scene = request.getfixturevalue("scene" if request.param == "chat" else "legacy_scene")
    return scene


@pytest.mark.parametrize("seed", range(9))
def test_a_dry_run_predicts_a_full_rebuild(any_scene: Scene, seed: int) -> None:
    any_scene.fill(24, seed)
    Vandal(any_scene, seed).rampage()
    before = any_scene.dump()

    predicted = any_scene.rebuild(dry_run=True)
    assert any_scene.dump() == before, f"seed {seed}: the dry run wrote"
    done = any_scene.rebuild()

    assert writes(predicted) == writes(done), f"seed {seed}"
    assert told(predicted) == told(done), f"seed {seed}"
    assert all(counts.superseded == 0 for counts in done.read_models.values()), f"seed {seed}: nobody else wrote"
    again = any_scene.rebuild()
    assert [counts["inserted"] + counts["replaced"] + counts["deleted"] for counts in writes(again).values()] == [0, 0]
    left = any_scene.verify()
    unhealed = sum(counts.failed for counts in done.read_models.values())
    malformed = sum(counts.malformed for counts in done.read_models.values())
    assert sum(counts.discrepancies for counts in left.read_models.values()) == malformed + unhealed, f"seed {seed}"


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_dry_run_predicts_the_rebuild_of_each_one(any_scene: Scene, seed: int) -> None:
    any_scene.fill(10, seed)
    Vandal(any_scene, seed).rampage()
    ids = sorted(any_scene.events.distinct("aggregate_id"))
    Random(seed).shuffle(ids)

    for aggregate_id in ids:
        before = any_scene.dump()
        predicted = any_scene.rebuild_one(aggregate_id, dry_run=True)
        assert any_scene.dump() == before, f"seed {seed}, {aggregate_id}: the dry run wrote"
        done = any_scene.rebuild_one(aggregate_id)
        assert writes(predicted) == writes(done), f"seed {seed}, {aggregate_id}"
        assert told(predicted) == told(done), f"seed {seed}, {aggregate_id}"
        verified = any_scene.verify_one(aggregate_id)
        assert verified.ok == done.ok, f"seed {seed}, {aggregate_id}"
