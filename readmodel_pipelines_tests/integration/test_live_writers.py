"""Verifying and rebuilding while an application writes. The long forms are in `soak/`."""

from typing import Any

import pytest

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.support.trials.beside_writers import rebuild_beside_writers, verify_beside_a_writer


def test_a_live_writer_is_no_false_alarm_and_a_damage_made_meanwhile_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=7, rate=200, grace=2.5)
    assert seen.verifications >= 3
    assert seen.events > 0


@pytest.mark.parametrize("strategy", ["in_place", "shadow"])
def test_a_rebuild_beside_writers_that_fail_or_are_late_leaves_nothing_wrong(settings: Settings, strategy: Any) -> None:
    events, _ = rebuild_beside_writers(
        settings, strategy=strategy, seconds=3, writers=2, rate=300, seed=1, quiet_chats=600
    )
    assert events > 0
