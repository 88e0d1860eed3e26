"""The arrows between the rooms point inwards, there is no circle: pyproject.toml has the contracts, and they bite."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "readmodel_pipelines"
ARROWS = "Arrows point inwards"
CIRCLE = "No circle, of rooms or of files"
DAGSTER = "Only orchestration imports Dagster, so that the command line starts fast"
DRIVER = "Only the rooms that talk to MongoDB import the driver"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    run = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", run], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def rooms() -> list[list[str]]:
    """The layers, from top to bottom, each with the rooms that lie side by side."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(item["layers"] for item in contracts if item["name"] == ARROWS)
    return [re.split(r" [|:] ", layer) for layer in layers]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A made-up package under the same contracts: the same rooms with two files each, and every exception used."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    made = tmp_path / PACKAGE
    for name in ("", *(name for layer in rooms() for name in layer)):
        (made / name).mkdir()
        for file in ("__init__", "one", "two") if name else ("__init__",):
            (made / name / f"{file}.py").touch()
    for name in ("bookkeeping", "cutover", "embedded", "mongo"):
        (made / name / "one.py").write_text("import pymongo\n")
    (made / "orchestration" / "one.py").write_text("import dagster\n")
    for name in ("definitions", "orchestration"):
        (made / name / "__init__.py").write_text("import dagster\n")
    return tmp_path


def test_every_import_contract_is_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 kept, 0 broken" in result.stdout


def test_a_made_up_house_keeps_them_too(house: Path) -> None:
    result = lint(house)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("broken", "file", "line"),
    [
        (CIRCLE, "mongo/two", "from readmodel_pipelines.mongo import one"),
        (DRIVER, "doctor/one", "from pymongo.collection import Collection"),
        (DRIVER, "projector/one", "import pymongo"),
        (DAGSTER, "cli/one", "import dagster"),
        (ARROWS, "cli/one", "import readmodel_pipelines.orchestration.one"),
        (ARROWS, "errors/one", "import readmodel_pipelines.events.one"),
        (ARROWS, "a_room_without_a_place", ""),
    ],
)
def test_what_breaks_a_contract_is_told(house: Path, broken: str, file: str, line: str) -> None:
    if broken == CIRCLE:
        (house / PACKAGE / "mongo" / "one.py").write_text("import pymongo\nfrom readmodel_pipelines.mongo import two\n")
    (house / PACKAGE / f"{file}.py").write_text(f"{line}\n")
    result = lint(house)
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.findall(r"^(.+?) BROKEN", result.stdout, re.MULTILINE) == [broken]


def test_every_arrow_that_points_outwards_is_told(house: Path) -> None:
    upwards = [(below, above) for above, below in zip(rooms(), rooms()[1:], strict=False)]
    for below, above in upwards:
        (house / PACKAGE / below[0] / "two.py").write_text(f"import {PACKAGE}.{above[0]}.two\n")
    told = " ".join(lint(house).stdout.split())
    for below, above in upwards:
        assert f"{PACKAGE}.{below[0]} is not allowed to import {PACKAGE}.{above[0]}:" in told
