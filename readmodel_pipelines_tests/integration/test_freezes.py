"""A process that sleeps before a write, and wakes up when others have done its work, does no harm.

All writes of all verbs are in `soak/`; here are some of them, picked by seed.
"""

import random

import pytest

from readmodel_pipelines_tests.support.freezes.trial import FORMS, Freeze, freeze, short_transactions
from readmodel_pipelines_tests.support.scene import Scene

_CHANCE = random.Random(15)
_SOME = [Freeze(*form, _CHANCE.randint(1, 30)) for form in _CHANCE.sample(FORMS, 4)]


@pytest.mark.parametrize("point", _SOME, ids=str)
def test_who_wakes_up_too_late_does_no_harm(scene: Scene, point: Freeze) -> None:
    with short_transactions(scene.database):
        freeze(scene, point)
