"""Guards of which a long trial shows that they are needed still stand where that trial takes them out."""

import re

import pytest

from readmodel_pipelines_tests.support.guards import GUARDS, PROGRAM, ROOT, TESTS, Guard


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_a_guard_stands_in_its_file_once_and_its_test_is_there(guard: Guard) -> None:
    assert (ROOT / PROGRAM / guard.file).read_text().count(guard.old) == 1
    file, _, test = guard.test.partition("::")
    assert re.search(rf"^def {test.partition('[')[0]}\(", (ROOT / TESTS / file).read_text(), re.MULTILINE)
