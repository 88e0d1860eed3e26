"""Every verb that writes falls asleep before each of its writes, in each form: nothing is wrong when it wakes up."""

import pytest

from readmodel_pipelines_tests.support.freezes.trial import FORMS, Freeze, freeze, short_transactions
from readmodel_pipelines_tests.support.scene import Scene

_MOST = 200


@pytest.mark.parametrize(("verb", "instead", "third"), FORMS)
def test_nobody_who_wakes_up_too_late_does_harm(scene: Scene, verb: str, instead: str, third: bool) -> None:
    harmful = []
    with short_transactions(scene.database):
        for number in range(1, _MOST):
            scene.database.client.drop_database(scene.database.name)
            try:
                if not freeze(scene, Freeze(verb, instead, third, number)):
                    break
            except Exception as error:  # noqa: BLE001 - the others are tried all the same
                harmful.append((number, repr(error)[:500]))
    print(f"{verb}, {instead}{', a third at work' if third else ''}: {number - 1} writes, {len(harmful)} harmful")
    assert harmful == []
