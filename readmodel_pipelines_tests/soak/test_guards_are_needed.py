"""Guards that hold at a moment, each taken out of a copy of the program: a test must turn red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from readmodel_pipelines_tests.support.guards import GUARDS, PROGRAM, ROOT, TESTS, Guard

SECONDS = 600


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program and its tests, as they are."""
    folder = tmp_path_factory.mktemp("without")
    for name in (PROGRAM, TESTS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--whole", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *(f"{TESTS}/{test}" for test in tests)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_with_all_guards_every_test_is_green(copy: Path) -> None:
    ended = run(copy, *dict.fromkeys(guard.test for guard in GUARDS.values()))
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_without_a_guard_its_test_is_red(copy: Path, guard: Guard) -> None:
    file = copy / PROGRAM / guard.file
    whole = file.read_text()
    file.write_text(whole.replace(guard.old, guard.new))
    try:
        ended = run(copy, guard.test)
    finally:
        file.write_text(whole)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
