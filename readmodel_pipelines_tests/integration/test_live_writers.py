"""Verifying while an application writes: no false alarm, and no true one missed. A minute of it is in `soak/`."""

from __future__ import annotations

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.live import verify_beside_a_writer


def test_a_live_writer_is_no_false_alarm_and_a_damage_made_meanwhile_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=6, rate=500)
    assert seen.verifications >= 3
    assert seen.events > 1_000
