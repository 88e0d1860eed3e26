"""The Makefile says at once which Python it needs, before anything is installed, and installs what any of them can."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from readmodel_pipelines_tests.support.pages.blocks import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def too_old(tmp_path: Path) -> Path:
    """A Python that says of itself that it is of another version."""
    program = tmp_path / "python3.10"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return program


def test_a_python_that_is_too_old_is_told_before_anything_is_made(too_old: Path, tmp_path: Path) -> None:
    ended = make("demo", f"PYTHON={too_old}", f"VENV={tmp_path / 'venv'}")
    assert ended.returncode == 2
    assert f"{too_old} is no Python 3.11" in ended.stderr
    assert not (tmp_path / "venv").exists()


def test_the_oldest_versions_are_wheels_for_a_newer_python_cannot_build_all_of_them(tmp_path: Path) -> None:
    planned = make("--dry-run", "lowest", f"VENV={tmp_path / 'venv'}").stdout.replace("\\\n", " ").split("\n")
    (oldest,) = [line.split() for line in planned if "lowest-direct" in line]
    assert oldest[oldest.index("--only-binary") + 1] == ":all:"


def test_an_environment_of_another_python_is_noticed(too_old: Path, tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    link = tmp_path / "venv" / "bin" / "python"
    link.symlink_to(too_old)
    (tmp_path / "venv" / ".installed").touch()
    ended = make("demo", f"VENV={tmp_path / 'venv'}")
    assert (ended.returncode, "make clean" in ended.stderr) == (2, True)

    link.unlink()
    link.symlink_to(sys.executable)
    ended = make("demo", f"PYTHON={too_old}", f"VENV={tmp_path / 'venv'}")
    assert (ended.returncode, "another Python" in ended.stderr) == (2, True)
