"""The long form of `integration/test_live_writers.py`."""

from __future__ import annotations

from readmodel_pipelines.settings import Settings
from readmodel_pipelines_tests.live import verify_beside_a_writer


def test_a_minute_of_live_writing_is_no_false_alarm_and_every_damage_is_found(settings: Settings) -> None:
    seen = verify_beside_a_writer(settings, seconds=60, rate=500)
    print(seen)
    assert seen.events >= 25_000
    assert seen.verifications >= 10
