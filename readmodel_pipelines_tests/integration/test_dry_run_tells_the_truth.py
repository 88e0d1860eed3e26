"""A dry run says exactly what the rebuild then does, whatever is broken at once, and of which documents."""

from typing import Any

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.campaign.trial import COUNTS, Trial
from readmodel_pipelines_tests.support.scene import Mongo, Scene


def told(summary: Any) -> tuple[Any, ...]:
    """What is written, and what each finding says; a failed one has its reason there."""
    counts = {name: [getattr(counts, write) for write in COUNTS] for name, counts in summary.read_models.items()}
    findings = sorted(
        (item.read_model, repr(item.aggregate_id), item.outcome, str(item.reason)) for item in summary.findings
    )
    return counts, findings


@pytest.mark.each_once
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.whole) for seed in range(4, 8))])
@pytest.mark.parametrize("each", [False, True], ids=["everything", "each by itself"])
def test_a_dry_run_predicts_the_rebuild(database: Mongo, settings: Settings, seed: int, each: bool) -> None:
    trial = Trial(database, settings, seed, number=10 if each else 30)
    trial.add_events()
    trial.break_everything()
    scene, projector = Scene(database, trial.settings), trial.projector()
    for key in [str(item.value) for item in trial.ids({})] if each else [None]:
        before = scene.dump()
        predicted = projector.rebuild_one(key, dry_run=True) if key else projector.rebuild_all(dry_run=True)
        assert scene.dump() == before, f"{key}: the dry run wrote"
        done = projector.rebuild_one(key) if key else projector.rebuild_all()
        assert told(predicted) == told(done), key
        assert all(counts.superseded == 0 for counts in done.read_models.values()), f"{key}: nobody else wrote"
        assert (projector.verify_consistency(key) if key else projector.verify_all()).ok == done.ok, key
